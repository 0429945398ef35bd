"""What every store must do for the operations service."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import jsonschema
import pytest
from store_bench import (
    DIGEST,
    OWNER,
    STORES,
    Bench,
    checkpoint,
    opened,
    plan,
    request,
    result,
    resumption,
)

from ktrdr.errors import (
    CheckpointNotFound,
    IllegalTransition,
    InvalidId,
    InvalidInput,
    KtrdrError,
    ModelNotFound,
    OperationNotCancellable,
    OperationNotFound,
    OperationNotResumable,
    OperationRunning,
    StaleAttempt,
)
from ktrdr.operations import records
from ktrdr.operations.types import (
    Adoption,
    FailureReason,
    HistoryRow,
    Operation,
    Owner,
    OwnerKind,
    Phase,
    Progress,
    Report,
    Status,
    StopKind,
)

SCHEMA = Path(__file__).parents[3] / "shared" / "contract" / "operation.schema.json"
UNKNOWN = "op_training_20260102_030405_0123abcd"


T = TypeVar("T")


@pytest.fixture(params=STORES)
def bench(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Bench]:
    with opened(request.param, tmp_path) as bench:
        yield bench


def cancelled(bench: Bench) -> tuple[Operation, int]:
    row = bench.running()
    checkpoint_id = bench.commit(row, 1)
    bench.service.request_cancel(row.operation_id, 1, "r-cancel")
    return bench.service.finish_stopped(row.operation_id, 1, StopKind.USER), checkpoint_id


def snapshot(bench: Bench, operation_id: str) -> tuple[Any, ...]:
    service = bench.service
    return (
        service.get(operation_id),
        service.events(operation_id),
        service.history(operation_id),
        service.checkpoints(operation_id),
        service.checkpoints(operation_id, doomed=True),
    )


def test_what_is_written_is_read_back_equal(bench: Bench) -> None:
    row = bench.running()
    progress = Progress(1, 4, 3, None, 25.0, {"loss": 0.1 + 0.2, "bad": None})
    history = (HistoryRow(1, {"val_loss": 1 / 3}), HistoryRow(2, {"val_loss": 1e-320}))
    bench.service.report(row.operation_id, 1, Report(1, Phase.TRAINING, progress, history))
    bench.commit(row, 1, is_best=True)
    read = bench.service.get(row.operation_id)
    assert read == replace(row, phase=Phase.TRAINING, progress=progress, report_sequence=1)
    assert bench.service.history(row.operation_id) == history
    stored = bench.service.latest_checkpoint(row.operation_id)
    assert stored is not None
    written = checkpoint(row, 1, is_best=True)
    assert {k: v for k, v in asdict(stored).items() if k in asdict(written)} == asdict(written)


def test_what_is_no_number_in_json_is_stored_as_null(bench: Bench) -> None:
    row = bench.running()
    history = (HistoryRow(1, {"val_loss": float("nan"), "x": [float("inf")]}),)
    bench.service.report(row.operation_id, 1, Report(1, history=history))
    assert bench.service.history(row.operation_id)[0].metrics == {"val_loss": None, "x": [None]}


def test_a_repeated_submit_gives_the_first_answer(bench: Bench) -> None:
    first = bench.submit("r")
    assert bench.submit("r") == first
    assert bench.submit("other").operation_id != first.operation_id
    assert bench.service.list()[1] == 2


@pytest.mark.parametrize("name", ["../x", "", "a b", "x" * 10_000])
def test_nothing_that_becomes_a_path_comes_in_unchecked(bench: Bench, name: str) -> None:
    with pytest.raises(InvalidId):
        bench.service.submit(replace(request(), strategy_name=name), plan(), OWNER, "r")
    with pytest.raises(InvalidId):
        bench.service.get(name)
    with pytest.raises(InvalidInput):
        bench.service.submit(request(), replace(plan(), storage=name), OWNER, "r")
    row = bench.running()
    with pytest.raises(InvalidInput):
        bench.commit(row, 1, path=f"operations/{name}")


def test_unknown_things_are_not_found(bench: Bench) -> None:
    service = bench.service
    asks: tuple[Callable[[], Any], ...] = (
        lambda: service.get(UNKNOWN),
        lambda: service.start(UNKNOWN, "o"),
        lambda: service.request_cancel(UNKNOWN, 1, "r"),
        lambda: service.events(UNKNOWN),
        lambda: service.history(UNKNOWN),
        lambda: service.checkpoints(UNKNOWN),
    )
    for ask in asks:
        with pytest.raises(OperationNotFound, match=UNKNOWN):
            ask()
    with pytest.raises(ModelNotFound, match="demo@v3"):
        service.model("demo", 3)


def test_reports_are_idempotent_and_history_is_keyed_by_epoch(bench: Bench) -> None:
    row, service = bench.running(), bench.service
    first = Report(1, Phase.TRAINING, None, (HistoryRow(1, {"a": 1}),))
    service.report(row.operation_id, 1, first)
    service.report(row.operation_id, 1, replace(first, history=(HistoryRow(9, {}),)))
    both = (HistoryRow(1, {"a": 2}), HistoryRow(2, {"a": 3}))
    service.report(row.operation_id, 1, Report(2, history=both))
    assert service.history(row.operation_id) == both
    assert [e.event for e in service.events(row.operation_id)] == [
        "submitted",
        "started",
        "reported",
    ]


def test_a_commit_dooms_what_it_supersedes_and_only_doomed_rows_are_forgotten(
    bench: Bench,
) -> None:
    row, service = bench.running(), bench.service
    ids = [bench.commit(row, n, is_best=n == 1) for n in (1, 2, 3)]
    service.commit_checkpoint(row.operation_id, 1, checkpoint(row, 4))
    doomed = service.checkpoints(row.operation_id, doomed=True)
    assert [c.number for c in doomed] == [2]
    before = snapshot(bench, row.operation_id)
    service.commit_checkpoint(row.operation_id, 1, checkpoint(row, 4))
    assert service.checkpoints(row.operation_id, doomed=True) == doomed
    assert snapshot(bench, row.operation_id) == before
    service.forget_checkpoints(row.operation_id, tuple(ids))
    assert [c.number for c in service.checkpoints(row.operation_id)] == [1, 3, 4]
    assert service.checkpoints(row.operation_id, doomed=True) == ()


def test_a_delete_dooms_all_and_is_refused_while_it_runs(bench: Bench) -> None:
    row, service = bench.running(), bench.service
    bench.commit(row, 1)
    before = snapshot(bench, row.operation_id)
    with pytest.raises(OperationRunning):
        service.delete_checkpoints(row.operation_id)
    assert snapshot(bench, row.operation_id) == before
    ended = service.finish_failed(row.operation_id, 1, FailureReason.USER_ERROR, "boom")
    assert [c.number for c in service.delete_checkpoints(row.operation_id)] == [1]
    assert service.get(row.operation_id) == ended
    assert service.events(row.operation_id)[-1].event == "checkpoints_deleted"
    after = snapshot(bench, row.operation_id)
    assert len(service.delete_checkpoints(row.operation_id)) == 1  # not removed yet
    assert snapshot(bench, row.operation_id) == after
    with pytest.raises(CheckpointNotFound):
        service.try_resume(row.operation_id, 1, resumption(1, "r-resume"))


def test_of_a_delete_and_a_resume_at_once_one_wins(bench: Bench) -> None:
    ended, checkpoint_id = cancelled(bench)
    name, service = ended.operation_id, bench.service
    barrier, outcomes = threading.Barrier(2), {}

    def attempt(what: str, act: Callable[[], Any]) -> None:
        barrier.wait()
        try:
            act()
            outcomes[what] = "won"
        except KtrdrError as error:
            outcomes[what] = error.code

    resume = resumption(checkpoint_id, "r-resume")
    threads = [
        threading.Thread(target=attempt, args=("delete", lambda: service.delete_checkpoints(name))),
        threading.Thread(
            target=attempt, args=("resume", lambda: service.try_resume(name, 1, resume))
        ),
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert outcomes in (
        {"delete": "won", "resume": "CHECKPOINT_NOT_FOUND"},
        {"delete": "OPERATION_RUNNING", "resume": "won"},
    )
    assert bool(service.checkpoints(name)) == (outcomes["resume"] == "won")


def test_expiry_takes_only_what_ended_before_in_one_transaction(bench: Bench) -> None:
    ended, _ = cancelled(bench)
    going, service = bench.running("r-going"), bench.service
    bench.commit(going, 1)
    assert service.expire_checkpoints(timedelta(hours=1)) == ()
    assert service.expire_checkpoints(timedelta(days=10**8)) == ()
    bench.execute(
        "UPDATE operations SET completed_at = '2000-01-01 00:00:00' WHERE operation_id ="
        f" '{ended.operation_id}'"
    )
    assert service.expire_checkpoints(timedelta(hours=1)) == (ended.operation_id,)
    assert service.checkpoints(ended.operation_id) == ()
    assert service.expire_checkpoints(timedelta(hours=1)) == ()
    assert len(service.checkpoints(going.operation_id)) == 1


def test_what_is_to_be_swept_is_found_by_ended_attempts_and_by_doomed_rows(bench: Bench) -> None:
    service, stranger = bench.service, replace(OWNER, id="owner-2")
    mine = bench.running("r-mine")
    theirs = bench.running("r-theirs", stranger)
    done = bench.running("r-done", stranger)
    bench.commit(done, 1)
    version = service.reserve_model(done.operation_id, 1).version
    service.finish_completed(done.operation_id, 1, result(), ("demo", version))
    bench.commit(theirs, 1)
    assert service.sweepable(OWNER.id) == (done.operation_id,)  # nothing of mine is over
    assert service.sweepable() == (done.operation_id,)
    service.mark_swept(done.operation_id, 1)
    assert service.sweepable() == (done.operation_id,)
    doomed = service.checkpoints(done.operation_id, doomed=True)
    service.forget_checkpoints(done.operation_id, tuple(c.id for c in doomed))
    assert service.sweepable() == service.sweepable(OWNER.id) == ()

    for number in (1, 2, 3):
        bench.commit(mine, number)
        bench.commit(theirs, number)
    assert service.sweepable(OWNER.id) == (mine.operation_id,)  # one is doomed while it runs
    doomed = service.checkpoints(mine.operation_id, doomed=True)
    service.forget_checkpoints(mine.operation_id, tuple(c.id for c in doomed))
    assert service.sweepable(OWNER.id) == ()
    service.lose(mine.operation_id, 1, FailureReason.DRIVER_LOST, "gone")
    assert service.sweepable(OWNER.id) == (mine.operation_id,)
    row = service.get(mine.operation_id)
    for swept in (1, 0):  # a late one takes nothing back
        service.mark_swept(mine.operation_id, swept)
        assert service.sweepable(OWNER.id) == ()
    assert service.get(mine.operation_id) == row


def test_an_adopted_checkpoint_is_a_row_like_any_other(bench: Bench) -> None:
    row, service = bench.running(), bench.service
    bench.commit(row, 1)
    found = Adoption((checkpoint(row, 2), checkpoint(row, 3, epoch=3)))
    after = service.lose(row.operation_id, 1, FailureReason.DRIVER_LOST, "gone", adopt=found)
    assert after.progress is not None
    assert after.progress.epoch == 3
    assert [c.key for c in service.checkpoints(row.operation_id)] == [(1, 2), (1, 3)]
    bad = (checkpoint(row, 4, path="operations/../x"),)
    with pytest.raises(InvalidInput):
        service.lose(row.operation_id, 2, FailureReason.HUNG, "", adopt=Adoption(bad))


def test_events_and_reserved_models_can_be_read_in_part(bench: Bench) -> None:
    row, service = bench.running(), bench.service
    first, *rest = service.events(row.operation_id)
    assert service.events(row.operation_id, after=first.id) == tuple(rest)
    reserved = service.reserve_model(row.operation_id, 1)
    assert service.reserved_models(operation_id=row.operation_id) == (reserved,)
    assert service.reserved_models(strategy_name="demo") == (reserved,)
    assert service.reserved_models(strategy_name="other") == ()
    assert service.models() == ()


def test_completion_stores_the_model_and_dooms_the_checkpoints(bench: Bench) -> None:
    row, service = bench.running(), bench.service
    bench.commit(row, 1)
    reserved = service.reserve_model(row.operation_id, 1)
    assert service.reserve_model(row.operation_id, 1) == reserved
    assert service.models() == ()
    done = service.finish_completed(row.operation_id, 1, result(), ("demo", reserved.version))
    assert done.status is Status.COMPLETED
    assert service.finish_completed(row.operation_id, 1, result(), ("demo", 1)) == done
    assert service.checkpoints(row.operation_id) == ()
    assert len(service.checkpoints(row.operation_id, doomed=True)) == 1
    model = service.model("demo")
    assert (model.version, model.path, model.weights_digest) == (1, "models/demo/v1", DIGEST)
    assert service.model("demo", 1) == model
    assert service.model_of(row.operation_id) == ("demo", 1)
    with pytest.raises(ModelNotFound, match="not completed"):
        service.model_of(bench.submit("r2").operation_id)
    assert service.get(row.operation_id) == done


def test_a_version_that_was_not_reserved_changes_nothing(bench: Bench) -> None:
    row = bench.running()
    before = snapshot(bench, row.operation_id)
    with pytest.raises(IllegalTransition, match="reserve it first"):
        bench.service.finish_completed(row.operation_id, 1, result(), ("demo", 1))
    assert snapshot(bench, row.operation_id) == before


def test_each_attempt_reserves_its_own_version(bench: Bench) -> None:
    row, service = bench.running(), bench.service
    assert service.reserve_model(row.operation_id, 1).version == 1
    service.finish_failed(row.operation_id, 1, FailureReason.HUNG, "hung")
    with pytest.raises(StaleAttempt):
        service.reserve_model(row.operation_id, 1)
    assert service.reserve_model(row.operation_id, 2).version == 2
    assert service.reserve_model(bench.running("r2").operation_id, 1).version == 3


def test_a_stale_attempt_changes_nothing(bench: Bench) -> None:
    row, service = bench.running(), bench.service
    bench.commit(row, 1)
    service.lose(row.operation_id, 1, FailureReason.DRIVER_LOST, "gone")
    before, name = snapshot(bench, row.operation_id), row.operation_id
    late: tuple[Callable[[], Any], ...] = (
        lambda: service.report(name, 1, Report(9, history=(HistoryRow(1, {}),))),
        lambda: service.commit_checkpoint(name, 1, checkpoint(row, 2)),
        lambda: service.finish_completed(name, 1, result(), ("demo", 1)),
        lambda: service.finish_stopped(name, 1, StopKind.USER),
        lambda: service.finish_failed(name, 1, FailureReason.HUNG, ""),
        lambda: service.lose(name, 1, FailureReason.HUNG, ""),
        lambda: service.reserve_model(name, 1),
    )
    for call in late:
        with pytest.raises(StaleAttempt):
            call()
    assert snapshot(bench, row.operation_id) == before


def test_the_update_itself_is_guarded(bench: Bench) -> None:
    """Also a step judged on a row that has moved on since is refused by the database."""
    from ktrdr.operations import attempt_end, transitions

    row = bench.running()
    now = bench.service.now()
    late = transitions.request_cancel(row, 1, "r-late", now)
    assert late is not None
    bench.service.finish_stopped(row.operation_id, 1, StopKind.USER)
    before = snapshot(bench, row.operation_id)
    with pytest.raises(IllegalTransition, match="somebody else"), bench.store.transaction() as tx:
        tx.apply(late)
    end = attempt_end.AttemptEnd(FailureReason.HUNG, "")
    other = bench.running("r2")
    stale = attempt_end.lose(other, 1, end, (), now)
    bench.service.lose(other.operation_id, 1, FailureReason.HUNG, "")
    with pytest.raises(StaleAttempt), bench.store.transaction() as tx:
        tx.apply(stale)
    assert snapshot(bench, row.operation_id) == before


def test_a_restart_drops_history_past_the_latest_checkpoint(bench: Bench) -> None:
    row, service = bench.running(), bench.service
    history = tuple(HistoryRow(epoch, {"loss": epoch}) for epoch in (1, 2, 3))
    service.report(row.operation_id, 1, Report(1, Phase.TRAINING, None, history))
    bench.commit(row, 1, epoch=2)
    after = service.finish_failed(row.operation_id, 1, FailureReason.WORKER_LOST, "lost")
    assert (after.status, after.attempt) == (Status.RUNNING, 2)
    assert [h.epoch for h in service.history(row.operation_id)] == [1, 2]
    service.report(row.operation_id, 2, Report(1, Phase.STARTING))
    assert service.get(row.operation_id).phase is Phase.STARTING


def test_cancel_is_confirmed_by_the_driver_and_keeps_its_checkpoint(bench: Bench) -> None:
    row, service = bench.running(), bench.service
    asked = service.request_cancel(row.operation_id, 1, "r-cancel")
    assert (asked.status, asked.phase) == (Status.RUNNING, Phase.STOPPING)
    assert service.request_cancel(row.operation_id, 1, "r-cancel") == asked
    assert service.request_cancel(row.operation_id, 1, "r-other") == asked
    ended = service.finish_stopped(
        row.operation_id, 1, StopKind.USER, Adoption((checkpoint(row, 1),))
    )
    assert ended.status is Status.CANCELLED
    assert service.latest_checkpoint(row.operation_id) is not None
    assert service.request_cancel(row.operation_id, 1, "r-again") == ended
    assert service.finish_stopped(row.operation_id, 1, StopKind.USER) == ended


def test_cancel_of_a_finished_operation_is_refused(bench: Bench) -> None:
    row, service = bench.running(), bench.service
    service.finish_failed(row.operation_id, 1, FailureReason.USER_ERROR, "boom")
    before = snapshot(bench, row.operation_id)
    with pytest.raises(OperationNotCancellable, match="failed"):
        service.request_cancel(row.operation_id, 1, "r")
    assert snapshot(bench, row.operation_id) == before


@pytest.mark.parametrize("start", [False, True])
def test_cancel_of_an_operation_whose_owner_is_gone_ends_it_at_once(
    bench: Bench, start: bool
) -> None:
    row = bench.running() if start else bench.submit()
    bench.expire_lease(row.operation_id)
    ended = bench.service.request_cancel(row.operation_id, row.attempt, "r")
    assert ended.status is Status.CANCELLED
    other = bench.running("r2")
    ended = bench.service.request_cancel(other.operation_id, 1, "r3", presumed_dead=OWNER.id)
    assert ended.status is Status.CANCELLED


def test_a_cancel_asked_while_the_owner_lived_ends_when_it_is_asked_again(bench: Bench) -> None:
    row, service = bench.running(), bench.service
    assert service.request_cancel(row.operation_id, 1, "r").status is Status.RUNNING
    again = service.request_cancel(row.operation_id, 1, "r", presumed_dead=OWNER.id)
    assert again.status is Status.CANCELLED


def test_a_repeated_cancel_does_not_reach_what_was_resumed_since(bench: Bench) -> None:
    row, checkpoint_id = cancelled(bench)
    service = bench.service
    service.try_resume(row.operation_id, 1, resumption(checkpoint_id, "r-resume"))
    assert service.request_cancel(row.operation_id, 1, "r-cancel").cancel_requested_at is None
    with pytest.raises(StaleAttempt):
        service.request_cancel(row.operation_id, 1, "r-new")


def test_resume_takes_the_next_attempt_and_a_repeat_gives_the_same_answer(bench: Bench) -> None:
    row, checkpoint_id = cancelled(bench)
    asked = resumption(checkpoint_id, "r-resume")
    resumed = bench.service.try_resume(row.operation_id, 1, asked)
    assert (resumed.status, resumed.attempt, resumed.owner.id) == (Status.RUNNING, 2, "owner-2")
    assert resumed.resumed_from == asked.resumed_from
    assert bench.service.try_resume(row.operation_id, 1, asked) == resumed
    assert bench.service.get(row.operation_id) == resumed
    event = bench.service.events(row.operation_id)[-1]
    assert (event.event, event.attempt, event.status) == ("resumed", 2, Status.RUNNING)
    assert event.details["before"]["status"] == "cancelled"


def test_what_is_resumable_can_be_asked_before_the_checks(bench: Bench) -> None:
    live, service = bench.running("r-live"), bench.service
    with pytest.raises(OperationNotResumable):
        service.check_resumable(live)
    service.check_resumable(live, presumed_dead=OWNER.id)
    bench.expire_lease(live.operation_id)
    service.check_resumable(service.get(live.operation_id))
    row, _ = cancelled(bench)
    service.check_resumable(row)


def test_a_resumed_attempt_is_launched_by_its_owner(bench: Bench) -> None:
    row, checkpoint_id = cancelled(bench)
    service, name = bench.service, row.operation_id
    service.try_resume(name, 1, resumption(checkpoint_id, "r-resume"))
    with pytest.raises(StaleAttempt):
        service.launch(name, 2, OWNER.id)
    assert service.launch(name, 2, "owner-2").phase is Phase.STARTING
    assert service.events(name)[-1].event == "launched"


def test_resume_flags_what_it_passed_over_and_drops_later_history(bench: Bench) -> None:
    row, service = bench.running(), bench.service
    history = (HistoryRow(1, {}), HistoryRow(2, {}))
    service.report(row.operation_id, 1, Report(1, Phase.TRAINING, None, history))
    good = bench.commit(row, 1, epoch=1)
    bad = bench.commit(row, 2, epoch=2)
    service.finish_failed(row.operation_id, 1, FailureReason.USER_ERROR, "boom")
    asked = replace(resumption(good, "r"), passed_over=((bad, "model.pt is wrong"),))
    service.try_resume(row.operation_id, 1, asked)
    assert [h.epoch for h in service.history(row.operation_id)] == [1]
    latest = service.latest_checkpoint(row.operation_id)
    assert latest is not None
    assert latest.id == good
    flagged = {c.id: c.unusable for c in service.checkpoints(row.operation_id)}
    assert flagged == {good: None, bad: "model.pt is wrong"}


def test_a_refused_resume_changes_nothing(bench: Bench) -> None:
    row, checkpoint_id = cancelled(bench)
    service, name = bench.service, row.operation_id
    before = snapshot(bench, name)
    with pytest.raises(CheckpointNotFound):
        service.try_resume(name, 1, resumption(checkpoint_id + 99, "r1"))
    with pytest.raises(OperationNotResumable):
        service.try_resume(name, 7, resumption(checkpoint_id, "r2"))
    assert snapshot(bench, name) == before
    live = bench.running("r-live")
    before = snapshot(bench, live.operation_id)
    with pytest.raises(OperationNotResumable, match="running"):
        service.try_resume(live.operation_id, 1, resumption(checkpoint_id, "r3"), "owner-9")
    assert snapshot(bench, live.operation_id) == before


def test_resume_takes_over_from_an_owner_that_is_gone(bench: Bench) -> None:
    row, service = bench.running(), bench.service
    checkpoint_id = bench.commit(row, 1)
    assert not service.lease_expired(service.get(row.operation_id))
    bench.expire_lease(row.operation_id)
    assert service.lease_expired(service.get(row.operation_id))
    before = snapshot(bench, row.operation_id)
    with pytest.raises(CheckpointNotFound):
        service.try_resume(row.operation_id, 1, resumption(checkpoint_id + 9, "r1"))
    assert snapshot(bench, row.operation_id) == before
    resumed = service.try_resume(row.operation_id, 1, resumption(checkpoint_id, "r2"))
    assert (resumed.attempt, resumed.error) == (2, None)
    events = [e.event for e in service.events(row.operation_id)]
    assert events[-2:] == ["owner_lost", "resumed"]
    again = service.try_resume(
        row.operation_id, 2, resumption(checkpoint_id, "r3", "owner-3"), presumed_dead="owner-2"
    )
    assert (again.attempt, again.owner.id) == (3, "owner-3")


def test_a_lease_is_renewed_for_what_the_owner_still_has(bench: Bench) -> None:
    service = bench.service
    first, second = bench.running("r1"), bench.submit("r2")
    foreign = bench.submit("r3", Owner("cluster", OwnerKind.CLUSTER))
    ended = bench.running("r4")
    service.finish_stopped(ended.operation_id, 1, StopKind.USER)
    bench.expire_lease(first.operation_id)
    assert service.renew(OWNER.id) == 2
    assert not service.lease_expired(service.get(first.operation_id))
    owned = [row.operation_id for row in service.owned(OWNER.id)]
    assert sorted(owned) == sorted([first.operation_id, second.operation_id])
    assert service.get(foreign.operation_id) == foreign


def test_lists_are_paged_newest_first_and_filtered(bench: Bench) -> None:
    rows = [bench.submit(f"r{n}") for n in range(5)]
    bench.service.start(rows[2].operation_id, OWNER.id)
    newest = sorted(rows, key=lambda o: (o.created_at, o.operation_id), reverse=True)
    page, total = bench.service.list(limit=2, offset=1)
    assert [o.operation_id for o in page] == [o.operation_id for o in newest[1:3]]
    assert total == 5
    page, total = bench.service.list(Status.RUNNING)
    assert ([o.operation_id for o in page], total) == ([rows[2].operation_id], 1)
    assert len(bench.service.list(offset=3)[0]) == 2


def test_status_and_attempt_equal_the_last_event(bench: Bench) -> None:
    row, _ = cancelled(bench)
    for operation in bench.service.list()[0]:
        last = bench.service.events(operation.operation_id)[-1]
        assert (last.status, last.attempt) == (operation.status, operation.attempt)
    names = [e.event for e in bench.service.events(row.operation_id)]
    assert names == ["submitted", "started", "checkpoint_committed", "cancel_requested", "stopped"]


@pytest.mark.parametrize(
    "change",
    [
        "completed_at = '2026-01-01 00:00:00'",
        "status = 'done'",
        "status = 'cancelled', phase = NULL, lease_expires_at = NULL,"
        " completed_at = '2026-01-01 00:00:00'",
        "status = 'pending', phase = NULL",
        "error = '{}'",
        "result = '{}'",
        "phase = NULL",
        "lease_expires_at = NULL",
    ],
)
def test_the_database_refuses_what_the_state_machine_does_not_know(
    bench: Bench, change: str
) -> None:
    from sqlalchemy.exc import IntegrityError

    bench.running()
    with pytest.raises(IntegrityError, match="ck_operations"):
        bench.execute(f"UPDATE operations SET {change}")


def test_of_sixteen_threads_resuming_exactly_one_wins(bench: Bench) -> None:
    row, checkpoint_id = cancelled(bench)
    outcomes: list[str] = []
    together = threading.Barrier(16)

    def contend(n: int) -> None:
        together.wait(10)
        try:
            asked = resumption(checkpoint_id, f"r{n}", f"owner-{n}")
            outcomes.append(bench.service.try_resume(row.operation_id, 1, asked).owner.id)
        except KtrdrError as error:
            outcomes.append(error.code)

    threads = [threading.Thread(target=contend, args=(n,)) for n in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sorted(outcomes)[:15] == ["OPERATION_NOT_RESUMABLE"] * 15
    assert bench.service.get(row.operation_id).owner.id == sorted(outcomes)[15]
    assert bench.service.get(row.operation_id).attempt == 2


def at_once(*acts: Callable[[], T]) -> list[T]:
    """Return what the acts returned, each on a thread of its own."""
    together = threading.Barrier(len(acts))

    def act(which: Callable[[], T]) -> T:
        together.wait(10)
        return which()

    with ThreadPoolExecutor(len(acts)) as pool:
        return list(pool.map(act, acts))


def test_of_submissions_with_one_request_id_at_once_there_is_one(bench: Bench) -> None:
    """The second waits for the first, also before there is any row to lock."""
    rows = at_once(*[lambda: bench.submit("r")] * 8)
    assert {row.operation_id for row in rows} == {rows[0].operation_id}
    assert bench.service.list()[1] == 1


def test_models_reserved_at_once_get_versions_of_their_own(bench: Bench) -> None:
    names = [bench.running(f"r{n}").operation_id for n in range(8)]
    reserve = bench.service.reserve_model
    models = at_once(*[partial(reserve, name, 1) for name in names])
    assert sorted(model.version for model in models) == list(range(1, 9))


def test_leases_are_renewed_while_everything_changes(bench: Bench) -> None:
    """Verbs that lock many rows do not wait for each other in a circle, and lose nothing."""
    service, rows = bench.service, [bench.running(f"r{n}") for n in range(6)]

    def renew() -> None:
        for _ in range(10):
            service.renew(OWNER.id)
            service.expire_checkpoints(timedelta(0))

    def end(row: Operation) -> None:
        bench.commit(row, 1)
        service.finish_stopped(row.operation_id, 1, StopKind.SHUTDOWN)

    at_once(renew, renew, *[partial(end, row) for row in rows])
    service.expire_checkpoints(timedelta(0))
    assert service.owned(OWNER.id) == ()
    assert all(row.lease_expires_at is None for row in service.list()[0])
    assert all(service.checkpoints(row.operation_id) == () for row in rows)


def test_names_are_sorted_by_their_bytes(bench: Bench) -> None:
    names = ["B", "a-b", "a_b", "ab", "b", "a"]
    for n, name in enumerate(names):
        asked = replace(request(), strategy_name=name)
        row = bench.service.submit(asked, plan(), OWNER, f"r{n}")
        bench.service.start(row.operation_id, OWNER.id)
        bench.service.reserve_model(row.operation_id, 1)
    found = [model.strategy_name for model in bench.service.reserved_models()]
    assert found == sorted(names)


def test_records_satisfy_the_contract(bench: Bench) -> None:
    if not SCHEMA.is_file():
        pytest.skip("the contract's JSON Schema is not beside this repository")
    schema = json.loads(SCHEMA.read_text(encoding="utf-8"))
    service = bench.service

    def check(row: Operation) -> dict[str, Any]:
        latest = service.latest_checkpoint(row.operation_id)
        document = records.record(row, latest, alive=True)
        jsonschema.validate(json.loads(json.dumps(document, allow_nan=False)), schema)
        return document

    check(bench.submit("r1"))
    lost = records.record(bench.service.list()[0][0], None, alive=False)
    assert (lost["status"], lost["lost"], lost["owner"]["alive"]) == ("pending", True, False)
    row, checkpoint_id = cancelled(bench)
    document = check(row)
    assert document["owner"]["alive"] is None
    assert document["lost"] is False
    assert document["checkpoint"]["path"].startswith(f"/storage/operations/{row.operation_id}/")
    resumed = service.try_resume(row.operation_id, 1, resumption(checkpoint_id, "r2"))
    assert check(resumed)["resumed_from"]["differences"] == ["torch 2.6 -> 2.13"]
    progress = Progress(1, 4, 0, 9, 25.0, {"loss": float("nan")})
    service.report(row.operation_id, 2, Report(1, Phase.TRAINING, progress))
    check(service.get(row.operation_id))
    version = service.reserve_model(row.operation_id, 2).version
    done = service.finish_completed(row.operation_id, 2, result(), ("demo", version))
    assert check(done)["checkpoint"] is None
    failed = bench.running("r3")
    reason = FailureReason.DATA_ERROR
    check(service.finish_failed(failed.operation_id, 1, reason, "bad bars"))
    assert records.model_record(service.model("demo"))["path"] == "/storage/models/demo/v1"
    assert records.event_record(service.events(row.operation_id)[0])["at"].endswith("Z")
