"""Lists are filtered, paged, and quick with ten thousand; a deletion takes its own things along."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import func, insert, select
from store_bench import (
    OWNER,
    SHARED_STORES,
    STORES,
    Bench,
    checkpoint,
    in_processes,
    opened,
    plan,
    request,
    result,
    resumption,
)

from ktrdr.operations.service import OperationsService
from ktrdr.operations.types import HistoryRow, Operation, Report, Status, StopKind, new_operation_id
from ktrdr.store import open_store, rows, tables


@pytest.fixture(params=STORES)
def bench(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Bench]:
    with opened(request.param, tmp_path) as bench:
        yield bench


def test_filters_go_together_and_the_total_counts_what_matches(bench: Bench) -> None:
    names = ("demo", "other", "demo", "demo")
    made = [
        bench.service.submit(replace(request(), strategy_name=name), plan(), OWNER, f"r{n}")
        for n, name in enumerate(names)
    ]
    bench.service.start(made[0].operation_id, OWNER.id)
    listed, total = bench.service.list(strategy_name="demo", limit=2)
    assert (len(listed), total) == (2, 3)
    assert {row.request.strategy_name for row in listed} == {"demo"}
    listed, total = bench.service.list(Status.RUNNING, strategy_name="demo")
    assert ([row.operation_id for row in listed], total) == ([made[0].operation_id], 1)
    assert bench.service.list(Status.RUNNING, strategy_name="other") == ((), 0)
    assert bench.service.list(strategy_name="dem%")[1] == 0


def test_the_first_page_of_ten_thousand_is_the_newest_of_all(bench: Bench) -> None:
    """How quick it is, `benchmarks/operations.py` measures."""
    first = bench.running()
    changed = (
        replace(
            first,
            operation_id=new_operation_id(first.created_at),
            created_at=first.created_at - timedelta(seconds=n),
        )
        for n in range(1, 10_000)
    )
    with bench.store.transaction() as tx:
        tx._connection.execute(
            insert(tables.operations), [rows.operation_values(row) for row in changed]
        )
    for filters in ({}, {"status": Status.RUNNING}, {"strategy_name": "demo"}):
        page, total = bench.service.list(limit=100, **filters)
        assert (len(page), total) == (100, 10_000)
        assert page[0] == first
        assert sorted(page, key=lambda row: row.created_at, reverse=True) == list(page)


def lived(bench: Bench, request_id: str) -> Operation:
    """A running operation with a checkpoint, history, and a model of its own."""
    row = bench.running(request_id)
    bench.commit(row, 1)
    bench.service.report(row.operation_id, 1, Report(1, history=(HistoryRow(1, {"loss": 1.0}),)))
    bench.service.reserve_model(row.operation_id, 1)
    return row


def test_a_deletion_takes_events_history_and_requests_along_and_leaves_the_model(
    bench: Bench,
) -> None:
    row, other = lived(bench, "r1"), lived(bench, "r2")
    bench.service.finish_completed(row.operation_id, 1, result(), ("demo", 1))
    doomed = bench.service.delete(row.operation_id)
    assert [(c.key, c.doomed_at is None) for c in doomed] == [((1, 1), False)]
    with bench.store.read() as view:
        for table in (tables.events, tables.history, tables.requests):
            own = select(func.count()).where(table.c.operation_id == row.operation_id)
            assert view._connection.execute(own).scalar_one() == 0
        assert [c.key for c in view.checkpoints(row.operation_id)] == [(1, 1)]
    bench.service.forget_checkpoints(row.operation_id, (doomed[0].id,))
    with bench.store.read() as view:
        assert view.checkpoints(row.operation_id) == ()
    assert [m.operation_id for m in bench.service.models()] == [row.operation_id]
    assert bench.submit("r1").operation_id != row.operation_id
    assert bench.service.history(other.operation_id)
    assert bench.service.checkpoints(other.operation_id)


@pytest.mark.parametrize("kind", SHARED_STORES)
def test_of_resumes_and_deletions_at_once_one_wins(kind: str, tmp_path: Path) -> None:
    with opened(kind, tmp_path) as bench:
        row = bench.running()
        bench.service.commit_checkpoint(row.operation_id, 1, checkpoint(row, 1))
        chosen = bench.service.checkpoints(row.operation_id)[0].id
        bench.service.finish_stopped(row.operation_id, 1, StopKind.USER)
        bench.store.close()

        def act(index: int) -> str:
            store = open_store(bench.url)
            service = OperationsService(store)
            try:
                if index % 2:
                    service.delete(row.operation_id)
                    return "deleted"
                asked = resumption(chosen, f"r{index}", f"owner-{index}")
                service.try_resume(row.operation_id, 1, asked)
                return "resumed"
            finally:
                store.close()

        answers = sorted(in_processes(16, act))
        if "deleted" in answers:
            assert answers == ["OPERATION_NOT_FOUND"] * 15 + ["deleted"]
        else:
            refused = ["OPERATION_NOT_RESUMABLE"] * 7 + ["OPERATION_RUNNING"] * 8
            assert answers == [*refused, "resumed"]
