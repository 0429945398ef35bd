"""Ids, times and records as users and programs see them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest

from ktrdr.errors import InvalidId, InvalidInput
from ktrdr.operations.types import check_operation_id, new_operation_id, timestamp
from ktrdr.operations.validation import check_checkpoint_path, check_strategy_name

ID = "op_training_20260102_030405_0123abcd"


def test_a_new_id_is_valid_unique_and_in_utc() -> None:
    east = datetime(2026, 1, 2, 5, 4, 5, tzinfo=timezone(timedelta(hours=2)))
    ids = {new_operation_id(east) for _ in range(100)}
    assert len(ids) == 100
    assert all(check_operation_id(i).startswith("op_training_20260102_030405_") for i in ids)


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "..",
        "../../etc",
        ID + "\n",
        " " + ID,
        ID.upper(),
        ID[:-1],
        ID[:-1] + "\u0661",
        "x" * 10_000,
        "\x00",
    ],
)
def test_a_malformed_id_is_refused_in_one_short_line(text: str) -> None:
    with pytest.raises(InvalidId) as caught:
        check_operation_id(text)
    assert len(caught.value.message) < 250
    assert caught.value.message.isascii()
    assert caught.value.message.isprintable()


@pytest.mark.parametrize("name", ["", "..", "a/b", "a b", "-a", "a" * 65, "a\n"])
def test_a_strategy_name_that_is_no_folder_name_is_refused(name: str) -> None:
    with pytest.raises(InvalidId):
        check_strategy_name(name)


@pytest.mark.parametrize(
    "path",
    [
        "/operations/x",
        f"operations/{ID}/attempt-0001/../checkpoint-000001",
        f"operations/{ID[:-1]}0/attempt-0001/checkpoint-000001",
        f"operations/{ID}/attempt-0001/checkpoint-000001/../..",
    ],
)
def test_a_checkpoint_path_stays_in_the_folder_of_its_operation(path: str) -> None:
    check_checkpoint_path(ID, f"operations/{ID}/attempt-0001/checkpoint-000001")
    with pytest.raises(InvalidInput):
        check_checkpoint_path(ID, path)


def test_times_are_iso_8601_in_utc() -> None:
    assert timestamp(datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)) == "2026-01-02T03:04:05Z"
    east = timezone(timedelta(hours=2))
    at = datetime(2026, 1, 2, 3, 4, 5, 120_000, tzinfo=east)
    assert timestamp(at) == "2026-01-02T01:04:05.120000Z"
