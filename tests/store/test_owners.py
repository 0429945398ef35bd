"""Owners as rows: what they are given, and that nothing is given to one that ends."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from store_bench import (
    SHARED_STORES,
    STORES,
    Bench,
    checkpoint,
    opened,
    plan,
    request,
    resumption,
)

from ktrdr.errors import OperationNotCancellable, OwnerClosing, StaleAttempt
from ktrdr.operations.service import OperationsService
from ktrdr.operations.types import (
    Adoption,
    FailureReason,
    HistoryRow,
    Owner,
    OwnerKind,
    Phase,
    Report,
    Status,
    StopKind,
    TrainingWarning,
)
from ktrdr.store import open_store

OWNER = Owner("local-1", OwnerKind.LOCAL, "host", 4242, 1000.5)
ROUNDS = 1000


@pytest.fixture(params=STORES)
def bench(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Bench]:
    with opened(request.param, tmp_path) as bench:
        yield bench


def test_an_owner_is_registered_once_and_described(bench: Bench) -> None:
    service = bench.service
    first = service.register_owner(OWNER, "0.1.0+abc")
    assert service.register_owner(OWNER, "another") == first
    assert (first.owner, first.version, first.persistent, first.accepting) == (
        OWNER,
        "0.1.0+abc",
        False,
        True,
    )
    service.describe_owner(OWNER.id, address="10.0.0.1:6379", nodes=({"node_id": "n1"},))
    found = service.owner(OWNER.id)
    assert found is not None
    assert (found.address, found.nodes) == ("10.0.0.1:6379", ({"node_id": "n1"},))
    assert service.owners() == (found,)
    assert service.owner("local-2") is None


def test_a_renewal_extends_the_lease_of_owner_and_operations(bench: Bench) -> None:
    service = bench.service
    service.register_owner(OWNER, "1")
    row = bench.submit(owner=OWNER)
    bench.expire_lease(row.operation_id)
    bench.execute("UPDATE owners SET lease_expires_at = '2000-01-01 00:00:00'")
    assert service.renew(OWNER.id) == 1
    renewed, after = service.owner(OWNER.id), service.get(row.operation_id)
    assert renewed is not None
    assert after.lease_expires_at is not None
    assert renewed.lease_expires_at > service.now()
    assert after.lease_expires_at > service.now()


def test_an_owner_with_something_to_do_does_not_close(bench: Bench) -> None:
    service = bench.service
    service.register_owner(OWNER, "1")
    row = bench.running(owner=OWNER)
    assert not service.close_owner(OWNER.id)
    service.finish_stopped(row.operation_id, 1, StopKind.USER)
    assert service.close_owner(OWNER.id)
    assert service.close_owner(OWNER.id)
    assert service.owners() == ()


def test_nothing_is_given_to_an_owner_that_ends(bench: Bench) -> None:
    service = bench.service
    service.register_owner(OWNER, "1")
    row = bench.running(owner=OWNER)
    checkpoint_id = bench.commit(row, 1)
    service.finish_stopped(row.operation_id, 1, StopKind.USER)
    service.keep_owner(OWNER.id)
    service.request_shutdown(OWNER.id)
    before = service.list()
    with pytest.raises(OwnerClosing):
        bench.submit("r-late", OWNER)
    asked = replace(resumption(checkpoint_id, "r-resume"), owner=OWNER)
    with pytest.raises(OwnerClosing):
        service.try_resume(row.operation_id, 1, asked)
    with pytest.raises(OwnerClosing):
        service.keep_owner(OWNER.id)
    assert service.list() == before
    assert [e.event for e in service.events(row.operation_id)][-1] == "stopped"


@pytest.mark.parametrize("kind", SHARED_STORES)
def test_of_a_submission_and_a_closing_at_once_one_goes_first(kind: str, tmp_path: Path) -> None:
    with opened(kind, tmp_path) as bench:
        other = OperationsService(open_store(bench.url))
        for number in range(ROUNDS):
            owner = replace(OWNER, id=f"local-{number}")
            bench.service.register_owner(owner, "1")
            submitted, closed = _raced(bench.service, other, owner)
            assert submitted != closed, number
            assert len(bench.service.owned(owner.id)) == submitted


def _raced(service: OperationsService, other: OperationsService, owner: Owner) -> tuple[bool, bool]:
    """Whether the operation was submitted, and whether the owner was closed."""
    start, answers = threading.Barrier(2), {}

    def submit() -> None:
        start.wait()
        try:
            service.submit(request(), plan(), owner, f"r-{owner.id}")
            answers["submitted"] = True
        except OwnerClosing:
            answers["submitted"] = False

    thread = threading.Thread(target=submit)
    thread.start()
    start.wait()
    closed = other.close_owner(owner.id)
    thread.join(30)
    return answers["submitted"], closed


def test_a_kill_of_a_running_operation_is_written_for_its_owner(bench: Bench) -> None:
    service, row = bench.service, bench.running()
    name = row.operation_id
    asked = service.request_kill(name, 1, "r-kill")
    assert (asked.status, asked.phase) == (Status.RUNNING, Phase.STOPPING)
    assert asked.kill_requested_at is not None
    assert asked.cancel_requested_at == asked.kill_requested_at
    assert service.request_kill(name, 1, "r-kill") == asked
    assert service.request_kill(name, 1, "r-other") == asked
    ended = service.lose(name, 1, FailureReason.DRIVER_LOST, "killed on request")
    assert ended.status is Status.CANCELLED
    assert service.request_kill(name, 1, "r-again") == ended


def test_a_kill_follows_a_cancel_and_a_resume_forgets_both(bench: Bench) -> None:
    service, row = bench.service, bench.running()
    name, checkpoint_id = row.operation_id, bench.commit(row, 1)
    cancelled = service.request_cancel(name, 1, "r-cancel")
    killed = service.request_kill(name, 1, "r-kill")
    assert killed.cancel_requested_at == cancelled.cancel_requested_at
    service.lose(name, 1, FailureReason.DRIVER_LOST, "killed on request")
    resumed = service.try_resume(name, 1, resumption(checkpoint_id, "r-resume"))
    assert (resumed.kill_requested_at, resumed.cancel_requested_at) == (None, None)
    with pytest.raises(StaleAttempt):
        service.request_kill(name, 1, "r-late")


def test_a_kill_ends_what_is_pending_and_refuses_what_has_ended(bench: Bench) -> None:
    service = bench.service
    pending = bench.submit("r1")
    assert service.request_kill(pending.operation_id, 0, "k1").status is Status.CANCELLED
    failed = bench.running("r2")
    service.finish_failed(failed.operation_id, 1, FailureReason.USER_ERROR, "boom")
    with pytest.raises(OperationNotCancellable):
        service.request_kill(failed.operation_id, 1, "k2")


def test_what_a_pending_operation_waits_for_is_written_once(bench: Bench) -> None:
    service, row = bench.service, bench.submit()
    name = row.operation_id
    assert service.queue(name, row.owner.id, "1 CPU").waiting_for == "1 CPU"
    service.queue(name, row.owner.id, "1 CPU")
    assert [e.event for e in service.events(name)] == ["submitted", "queued"]
    with pytest.raises(StaleAttempt):
        service.queue(name, "somebody else", "1 CPU")
    assert service.start(name, row.owner.id).waiting_for is None


def test_warnings_are_counted_by_their_code(bench: Bench) -> None:
    service, name = bench.service, bench.running().operation_id
    service.warn(name, 1, TrainingWarning("DISK", "full"))
    service.warn(name, 1, TrainingWarning("OTHER", "odd"))
    service.warn(name, 1, TrainingWarning("DISK", "still full", 3))
    assert service.get(name).warnings == (
        TrainingWarning("DISK", "still full", 4),
        TrainingWarning("OTHER", "odd"),
    )


def test_an_adopted_checkpoint_brings_the_history_that_was_never_reported(bench: Bench) -> None:
    service, row = bench.service, bench.running()
    name = row.operation_id
    service.report(name, 1, Report(1, history=(HistoryRow(1, {"loss": 0.5}),)))
    rows = tuple(HistoryRow(epoch, {"loss": 0.5 / epoch}) for epoch in (1, 2, 3))
    adopt = Adoption((checkpoint(row, 1, epoch=2),), rows)
    after = service.lose(name, 1, FailureReason.DRIVER_LOST, "gone", adopt=adopt)
    assert (after.status, after.attempt) == (Status.RUNNING, 2)
    assert service.history(name) == rows[:2]  # what follows the checkpoint is trained again
