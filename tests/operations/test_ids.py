"""Naming an operation: its id, a unique part of it, or its place among the newest."""

from __future__ import annotations

import pytest
from store_bench import Bench, opened

from ktrdr.errors import AmbiguousId, InvalidId, OperationNotFound
from ktrdr.operations.ids import resolve, short_id


@pytest.fixture(params=["sqlite", "postgres"])
def bench(request, tmp_path):  # type: ignore[no-untyped-def]
    with opened(request.param, tmp_path) as made:
        yield made


def test_a_beginning_an_end_and_the_newest_name_an_operation(bench: Bench) -> None:
    first, second = bench.submit("r1").operation_id, bench.submit("r2").operation_id
    for name in (first, second):
        for text in (name, short_id(name), name[-4:], name[1:], name[-12:]):
            assert resolve(bench.service, text) == name
        assert len(short_id(name)) == 8
    newest = bench.service.list()[0]
    for place, text in ((0, "@last"), (0, "@1"), (1, "@2")):
        assert resolve(bench.service, text) == newest[place].operation_id
    with pytest.raises(OperationNotFound, match="the store has 2"):
        resolve(bench.service, "@3")


def test_what_is_not_unique_lists_the_matches(bench: Bench) -> None:
    names = [bench.submit(f"r{n}").operation_id for n in range(12)]
    with pytest.raises(AmbiguousId) as refused:
        resolve(bench.service, "op_training_")
    assert refused.value.exit_status == 2
    assert refused.value.code == "AMBIGUOUS_ID"
    assert len(refused.value.details["matches"]) == 10
    assert set(refused.value.details["matches"]) <= set(names)
    assert refused.value.message.endswith("and more")


@pytest.mark.parametrize(
    "text", ["", "abc", "@", "@0", "@first", "ABCD", "wxyz", "../x", "op_%", "____", "a" * 40]
)
def test_what_can_name_no_operation_is_malformed(bench: Bench, text: str) -> None:
    bench.submit("r")
    with pytest.raises(InvalidId):
        resolve(bench.service, text)


@pytest.mark.parametrize(
    "unknown", ["op_training_19990101", "op_training_20240101_000000_00000000"]
)
def test_what_is_well_formed_and_unknown_is_not_found(bench: Bench, unknown: str) -> None:
    bench.submit("r")
    with pytest.raises(OperationNotFound):
        resolve(bench.service, unknown)
