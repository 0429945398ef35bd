"""The transitions as pure functions: what is legal, what follows, what is refused."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from ktrdr.errors import (
    CheckpointNotFound,
    IllegalTransition,
    OperationNotCancellable,
    OperationNotResumable,
    OperationRunning,
    StaleAttempt,
)
from ktrdr.operations import attempt_end, transitions
from ktrdr.operations.attempt_end import AttemptEnd
from ktrdr.operations.lease import lease_expired, ownerless
from ktrdr.operations.restart_policy import superseded
from ktrdr.operations.state_machine import RULES, Transition, table_markdown
from ktrdr.operations.transition_records import TransitionRecord
from ktrdr.operations.types import (
    Adoption,
    Checkpoint,
    CheckpointType,
    FailureReason,
    HistoryRow,
    NewCheckpoint,
    Operation,
    Owner,
    OwnerKind,
    Phase,
    Plan,
    Progress,
    Report,
    Request,
    Restored,
    Result,
    ResumedFrom,
    Resumption,
    Status,
    StopKind,
)

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
LATER = NOW + timedelta(seconds=7)
ID = "op_training_20260102_030405_0123abcd"
OWNER = Owner("owner-1", OwnerKind.EMBEDDED, "host", 4242, 1000.5)
DIGEST = "ab" * 32
RESULT = Result("/s/models/demo/v1", DIGEST, 4, 2, {"test_loss": 0.5})


def submitted() -> Operation:
    request = Request("/w/demo.yaml", "demo", ("EURUSD",), ("5m",), None, None, 4, 42, 1)
    plan = Plan(
        config={"name": "demo"},
        overrides={},
        strategy_fingerprint="s" * 64,
        data_fingerprint="d" * 64,
        dataset_digest="f" * 64,
        spans=[{"symbol": "EURUSD", "timeframe": "1h", "first": 1, "last": 2, "rows": 2}],
        storage="/s",
    )
    return transitions.submit(ID, request, plan, OWNER, "r-submit", NOW).after


def running(**changes: Any) -> Operation:
    started = transitions.start(submitted(), OWNER.id, NOW).after
    return replace(started, **changes)


def terminal(status: Status, **changes: Any) -> Operation:
    row = running()
    step: TransitionRecord | None
    if status is Status.COMPLETED:
        step = attempt_end.finish_completed(row, 1, RESULT, ("demo", 1), (), NOW)
    elif status is Status.FAILED:
        end = AttemptEnd(FailureReason.USER_ERROR, "boom")
        step = attempt_end.finish_failed(row, 1, end, (), NOW)
    else:
        step = attempt_end.finish_stopped(row, 1, StopKind.USER, Adoption(), (), NOW)
    assert step is not None
    return replace(step.after, **changes)


def new(number: int, epoch: int = 0, batch: int = 0, is_best: bool = False) -> NewCheckpoint:
    path = f"operations/{ID}/attempt-0001/checkpoint-{number:06d}"
    kind = CheckpointType.PERIODIC
    return NewCheckpoint(number, path, epoch, batch, kind, NOW, 10, DIGEST, is_best)


def held(
    number: int, attempt: int = 1, epoch: int = 0, batch: int = 0, **changes: Any
) -> Checkpoint:
    values = vars(new(number, epoch, batch))
    row = Checkpoint(id=100 * attempt + number, operation_id=ID, attempt=attempt, **values)
    return replace(row, **changes)


def resumption(checkpoint_id: int, request_id: str = "r-resume") -> Resumption:
    found = ResumedFrom(CheckpointType.CANCELLATION, NOW, 1, 5, True)
    return Resumption(
        checkpoint_id,
        Owner("owner-2", OwnerKind.EMBEDDED, "host", 4243, 1001.0),
        request_id,
        found,
        submitted().plan,
        ((103, "model.pt is missing"),),
    )


def fail(row: Operation, reason: FailureReason, rows: Sequence[Checkpoint] = ()) -> Operation:
    step = attempt_end.finish_failed(row, row.attempt, AttemptEnd(reason, "it broke"), rows, NOW)
    assert step is not None
    return step.after


def test_docs_show_the_table() -> None:
    page = Path(__file__).parents[2] / "docs" / "operations.md"
    assert table_markdown() in page.read_text(encoding="utf-8")


def test_table_names_every_transition_and_only_resume_leaves_an_end() -> None:
    assert {rule.transition for rule in RULES} == set(Transition)
    ended = [rule for rule in RULES if any(status.terminal for status in rule.before)]
    leaving = {rule.transition for rule in ended if rule.after and rule.after != rule.before}
    assert leaving == {Transition.TRY_RESUME}
    completed = [rule for rule in RULES if Status.COMPLETED in rule.before]
    assert [(rule.transition, rule.after) for rule in completed] == [(Transition.DELETE, ())]


Ask = Callable[[Operation], TransitionRecord | None]
EVENTS: dict[str, tuple[Ask, set[Status]]] = {
    "start": (lambda o: transitions.start(o, OWNER.id, LATER), {Status.PENDING}),
    "launch": (
        lambda o: transitions.launch(
            replace(o, phase=o.phase and Phase.RESTARTING), o.attempt, o.owner.id, LATER
        ),
        {Status.RUNNING},
    ),
    "report": (
        lambda o: transitions.report(o, o.attempt, Report(1, Phase.TRAINING), (), LATER),
        {Status.RUNNING},
    ),
    "commit": (
        lambda o: transitions.commit_checkpoint(o, o.attempt, new(1), (), LATER),
        {Status.RUNNING},
    ),
    "cancel": (
        lambda o: transitions.request_cancel(o, o.attempt, "r", LATER),
        {Status.PENDING, Status.RUNNING},
    ),
    "complete": (
        lambda o: attempt_end.finish_completed(
            o, o.attempt, replace(RESULT, epochs=3), ("demo", 1), (), LATER
        ),
        {Status.RUNNING},
    ),
    "stop": (
        lambda o: attempt_end.finish_stopped(o, o.attempt, StopKind.USER, Adoption(), (), LATER),
        {Status.RUNNING},
    ),
    "drain": (
        lambda o: attempt_end.finish_stopped(o, o.attempt, StopKind.DRAIN, Adoption(), (), LATER),
        {Status.RUNNING},
    ),
    "fail": (
        lambda o: attempt_end.finish_failed(
            o, o.attempt, AttemptEnd(FailureReason.HUNG, "hung"), (), LATER
        ),
        {Status.RUNNING},
    ),
    "lose": (
        lambda o: attempt_end.lose(
            o, o.attempt, AttemptEnd(FailureReason.DRIVER_LOST, "gone"), (), LATER
        ),
        {Status.RUNNING},
    ),
    "lose owner": (lambda o: attempt_end.lose_owner(o, LATER), {Status.PENDING, Status.RUNNING}),
    "resume": (
        lambda o: transitions.try_resume(o, o.attempt, resumption(101), (held(1),), LATER),
        {Status.CANCELLED, Status.FAILED},
    ),
}
EVENTS["delete checkpoints"] = (
    lambda o: transitions.delete_checkpoints(o, (held(1), held(2, doomed_at=NOW)), LATER),
    {Status.FAILED, Status.CANCELLED},
)
EVENTS["delete"] = (
    lambda o: transitions.delete(o, (held(1), held(2, doomed_at=NOW)), LATER),
    {Status.COMPLETED, Status.FAILED, Status.CANCELLED},
)
REPEATS = {Status.CANCELLED: ("cancel", "stop", "drain")}
"""Events that were done already where nothing is left to do: no change and no refusal."""
ROWS: dict[Status, Callable[[], Operation]] = {
    Status.PENDING: submitted,
    Status.RUNNING: running,
    Status.COMPLETED: lambda: terminal(Status.COMPLETED),
    Status.FAILED: lambda: terminal(Status.FAILED),
    Status.CANCELLED: lambda: terminal(Status.CANCELLED),
}


@pytest.mark.parametrize("status", list(Status))
@pytest.mark.parametrize("event", list(EVENTS))
def test_each_event_is_legal_from_its_statuses_and_changes_nothing_elsewhere(
    event: str, status: Status
) -> None:
    ask, legal = EVENTS[event]
    row = ROWS[status]()
    if status in legal:
        step = ask(row)
        assert step is not None
        assert step.after.operation_id == row.operation_id
        return
    if event in REPEATS.get(status, ()):
        assert ask(row) is None
        return
    with pytest.raises(
        (IllegalTransition, OperationNotCancellable, OperationNotResumable, OperationRunning)
    ):
        ask(row)


@pytest.mark.parametrize("event", ["report", "commit", "complete", "stop", "drain", "fail", "lose"])
def test_an_attempt_that_is_over_is_fenced_out(event: str) -> None:
    old = running(attempt=2)
    calls: dict[str, Callable[[], Any]] = {
        "report": lambda: transitions.report(old, 1, Report(1), (), NOW),
        "commit": lambda: transitions.commit_checkpoint(old, 1, new(1), (), NOW),
        "complete": lambda: attempt_end.finish_completed(old, 1, RESULT, ("demo", 1), (), NOW),
        "stop": lambda: attempt_end.finish_stopped(old, 1, StopKind.USER, Adoption(), (), NOW),
        "drain": lambda: attempt_end.finish_stopped(old, 1, StopKind.DRAIN, Adoption(), (), NOW),
        "fail": lambda: attempt_end.finish_failed(
            old, 1, AttemptEnd(FailureReason.HUNG, ""), (), NOW
        ),
        "lose": lambda: attempt_end.lose(old, 1, AttemptEnd(FailureReason.HUNG, ""), (), NOW),
    }
    with pytest.raises(StaleAttempt):
        calls[event]()


def test_start_is_for_the_owner_that_was_written_at_submission() -> None:
    with pytest.raises(StaleAttempt):
        transitions.start(submitted(), "someone else", NOW)


def test_a_deletion_dooms_what_stands_and_leaves_no_event() -> None:
    rows = (held(1), held(2, doomed_at=NOW))
    step = transitions.delete(terminal(Status.CANCELLED), rows, LATER)
    assert (step.effects.delete, step.effects.doom) == (True, ((1, 1),))
    assert (step.event, step.recorded) == (None, False)


def waited(row: Operation, rows: Sequence[Checkpoint]) -> tuple[Operation, float]:
    """Lose an attempt; the next one's row, and how many seconds it is held back."""
    end = AttemptEnd(FailureReason.NODE_PREEMPTED, "gone")
    after = attempt_end.lose(row, row.attempt, end, rows, NOW).after
    not_before = after.launch_not_before
    return after, (not_before - NOW).total_seconds() if not_before else 0.0


def test_restarts_without_progress_wait_twice_as_long_each_time_up_to_a_minute() -> None:
    row, waits = running(), []
    for _ in range(10):
        row, wait = waited(row, (held(1),))
        waits.append(wait)
    assert waits == [0, 1, 2, 4, 8, 16, 32, 60, 60, 60]
    _, wait = waited(row, (held(1), held(1, attempt=row.attempt)))
    assert wait == 0
    assert waited(replace(running(), attempt=5, resumed_attempt=5), (held(1),))[1] == 1
    assert waited(replace(running(), attempt=10**6), ())[1] == 60


def test_a_restart_is_launched_when_its_time_has_come_and_a_cancel_does_not_wait() -> None:
    row, _ = waited(running(), ())
    due = row.launch_not_before
    assert due is not None
    with pytest.raises(IllegalTransition, match="not to be launched yet"):
        transitions.launch(row, 2, OWNER.id, due - timedelta(milliseconds=1))
    launched = transitions.launch(row, 2, OWNER.id, due).after
    assert (launched.phase, launched.launch_not_before) == (Phase.STARTING, None)
    asked = transitions.request_cancel(row, 2, "r", NOW)
    assert asked is not None
    ended = fail(asked.after, FailureReason.DRIVER_LOST)
    assert (ended.status, ended.launch_not_before) == (Status.CANCELLED, None)


def test_a_users_resume_gives_the_whole_budget_back_and_waits_for_nothing() -> None:
    row = running()
    for epoch in range(4):
        row = fail(replace(row, progress=Progress(epoch, 4, 0, 9, 0.0, None)), FailureReason.HUNG)
    assert row.status is Status.FAILED
    row = transitions.try_resume(row, row.attempt, resumption(101), (held(1),), LATER).after
    assert row.launch_not_before is None
    for epoch in range(3):
        row = fail(replace(row, progress=Progress(epoch, 4, 0, 9, 0.0, None)), FailureReason.HUNG)
        assert row.status is Status.RUNNING


def test_a_restarted_attempt_is_launched_once_by_its_owner() -> None:
    row = fail(running(), FailureReason.HUNG)
    launched = transitions.launch(row, 2, OWNER.id, LATER).after
    assert launched.phase is Phase.STARTING
    with pytest.raises(IllegalTransition):
        transitions.launch(launched, 2, OWNER.id, LATER)
    with pytest.raises(StaleAttempt):
        transitions.launch(row, 2, "someone else", LATER)
    with pytest.raises(StaleAttempt):
        transitions.launch(row, 1, OWNER.id, LATER)


def test_a_report_is_written_once_and_leaves_an_event_only_when_the_phase_changes() -> None:
    progress = Progress(1, 4, 3, 10, 32.5, {"loss": 1.0})
    message = Report(1, Phase.TRAINING, progress, (HistoryRow(1, {"val_loss": 1.0}),))
    first = transitions.report(running(), 1, message, (), LATER)
    assert first is not None
    assert (first.recorded, first.after.phase) == (True, Phase.TRAINING)
    assert transitions.report(first.after, 1, message, (), LATER) is None
    second = transitions.report(first.after, 1, Report(2, progress=None), (), LATER)
    assert second is not None
    assert (second.recorded, second.after.progress) == (False, progress)


def test_a_requested_cancel_stays_visible_whatever_the_driver_reports() -> None:
    asked = transitions.request_cancel(running(), 1, "r", LATER)
    assert asked is not None
    step = transitions.report(asked.after, 1, Report(1, Phase.TRAINING), (), LATER)
    assert step is not None
    assert (step.after.phase, step.recorded) == (Phase.STOPPING, False)


def test_a_restarted_attempt_says_what_it_began_from() -> None:
    rows = (held(1, epoch=1), held(2, epoch=2))
    restored = Restored(101, None, ((102, "model.pt is wrong"),))
    message = Report(1, history=(HistoryRow(1, {"val_loss": 1.0}),), restored=restored)
    step = transitions.report(running(attempt=2), 2, message, rows, LATER)
    assert step is not None
    assert step.recorded
    assert step.after.seed_checkpoint_id == 101
    assert step.effects.keep_epochs == 1
    assert step.effects.flag == ((102, "model.pt is wrong"),)


def test_cancel_is_asked_of_what_the_client_saw() -> None:
    restarted = running(attempt=3)
    assert transitions.request_cancel(restarted, 1, "r", NOW) is not None
    resumed = running(attempt=3, resumed_attempt=3)
    with pytest.raises(StaleAttempt):
        transitions.request_cancel(resumed, 2, "r", NOW)
    with pytest.raises(StaleAttempt):
        transitions.request_cancel(restarted, 4, "r", NOW)


def test_cancel_of_a_pending_operation_ends_it_and_asking_again_is_no_change() -> None:
    step = transitions.request_cancel(submitted(), 0, "r", LATER)
    assert step is not None
    assert (step.after.status, step.after.completed_at) == (Status.CANCELLED, LATER)
    assert transitions.request_cancel(step.after, 0, "r2", LATER) is None


@pytest.mark.parametrize("reason", list(FailureReason))
def test_a_pending_cancel_beats_any_restart(reason: FailureReason) -> None:
    row = running(cancel_requested_at=NOW, phase=Phase.STOPPING)
    assert fail(row, reason).status is Status.CANCELLED
    assert fail(row, reason).error is None
    drained = attempt_end.finish_stopped(row, 1, StopKind.DRAIN, Adoption(), (), NOW)
    assert drained is not None
    assert drained.after.status is Status.CANCELLED


@pytest.mark.parametrize("reason", list(FailureReason))
def test_only_retryable_reasons_restart(reason: FailureReason) -> None:
    after = fail(running(), reason)
    if reason.retryable:
        assert (after.status, after.attempt, after.phase) == (Status.RUNNING, 2, Phase.RESTARTING)
        assert after.error is None
    else:
        assert (after.status, after.attempt) == (Status.FAILED, 1)
        assert after.error is not None
        assert (after.error.reason, after.error.message) == (reason, "it broke")


def test_the_budget_is_three_restarts_and_the_message_says_so() -> None:
    row = running()
    for epoch in range(3):
        row = fail(replace(row, progress=Progress(epoch, 4, 0, 9, 0.0, None)), FailureReason.HUNG)
        assert row.status is Status.RUNNING
    row = fail(replace(row, progress=Progress(3, 4, 0, 9, 0.0, None)), FailureReason.HUNG)
    assert row.status is Status.FAILED
    assert row.error is not None
    assert "budget of 3 restarts" in row.error.message


def test_the_same_failure_at_the_same_step_without_a_new_checkpoint_ends_early() -> None:
    at = Progress(1, 4, 3, 9, 0.0, None)
    once = fail(running(progress=at), FailureReason.WORKER_LOST, (held(1),))
    assert once.status is Status.RUNNING
    again = replace(once, progress=at)
    assert fail(again, FailureReason.WORKER_LOST, (held(1),)).status is Status.FAILED
    assert fail(again, FailureReason.HUNG, (held(1),)).status is Status.RUNNING
    committed = (held(1), held(1, attempt=2))
    assert fail(again, FailureReason.WORKER_LOST, committed).status is Status.RUNNING
    further = replace(once, progress=replace(at, batch=4))
    assert fail(further, FailureReason.WORKER_LOST, (held(1),)).status is Status.RUNNING


def test_out_of_memory_restarts_once_also_with_other_failures_between() -> None:
    row = fail(running(), FailureReason.OUT_OF_MEMORY)
    row = fail(row, FailureReason.HUNG)
    assert row.status is Status.RUNNING
    assert fail(row, FailureReason.OUT_OF_MEMORY).status is Status.FAILED


def test_preemption_and_drain_cost_no_budget() -> None:
    row = running()
    for _ in range(10):
        row = fail(row, FailureReason.NODE_PREEMPTED)
        drained = attempt_end.finish_stopped(row, row.attempt, StopKind.DRAIN, Adoption(), (), NOW)
        assert drained is not None
        row = drained.after
    assert (row.status, row.attempt, row.restarts) == (Status.RUNNING, 21, 0)


def test_an_attempt_found_without_a_driver_before_its_first_report_costs_nothing() -> None:
    found = AttemptEnd(FailureReason.DRIVER_LOST, "no driver", found_on_start=True)
    row = running(report_sequence=0)
    after = attempt_end.lose(row, 1, found, (), NOW).after
    assert (after.attempt, after.restarts, after.last_failure) == (2, 0, None)
    reported = replace(row, report_sequence=1)
    assert attempt_end.lose(reported, 1, found, (), NOW).after.restarts == 1


def test_a_restart_goes_back_to_the_latest_good_checkpoint() -> None:
    rows = (held(1, epoch=1), held(2, epoch=2, batch=5), held(3, epoch=3, unusable="torn"))
    row = running(progress=Progress(3, 4, 2, 10, 80.0, {"loss": 1.0}), report_sequence=9)
    end = AttemptEnd(FailureReason.DRIVER_LOST, "gone")
    step = attempt_end.lose(row, 1, end, rows, NOW)
    assert step.effects.keep_epochs == 2
    assert step.after.progress == Progress(2, 4, 5, 10, 62.5, None)
    assert step.after.report_sequence == 0
    assert attempt_end.lose(row, 1, end, (), NOW).effects.keep_epochs == 0


def test_an_unwritten_row_is_adopted_by_the_transaction_that_ends_its_attempt() -> None:
    end = AttemptEnd(FailureReason.HUNG, "hung", adopt=Adoption((new(2, epoch=2), new(1))))
    step = attempt_end.finish_failed(running(), 1, end, (held(1),), NOW)
    assert step is not None
    assert [c.number for c in step.effects.commit] == [2]
    assert step.effects.keep_epochs == 2


def test_retention_keeps_the_two_newest_good_ones_and_the_best_one() -> None:
    rows = (
        held(1, is_best=True),
        held(2, is_best=True),
        held(3),
        held(4, unusable="torn"),
        held(5, doomed_at=NOW),
        held(6),
    )
    assert superseded(2, (new(1),), rows) == {(1, 1), (1, 3), (1, 4)}
    assert superseded(2, (new(1, is_best=True),), rows) == {(1, 1), (1, 2), (1, 3), (1, 4)}


def test_a_commit_repeated_is_no_change_even_when_its_row_was_forgotten() -> None:
    assert transitions.commit_checkpoint(running(), 1, new(2), (held(2),), NOW) is None
    assert transitions.commit_checkpoint(running(), 1, new(1), (held(2), held(3)), NOW) is None
    assert transitions.commit_checkpoint(running(attempt=2), 2, new(1), (held(7),), NOW)


def test_completion_dooms_every_checkpoint_and_names_the_model() -> None:
    rows = (held(1, doomed_at=NOW), held(2), held(3))
    step = attempt_end.finish_completed(running(), 1, RESULT, ("demo", 7), rows, LATER)
    assert step is not None
    assert step.effects.doom == ((1, 2), (1, 3))
    assert step.effects.complete_model == ("demo", 7, DIGEST)
    again = attempt_end.finish_completed(step.after, 1, RESULT, ("demo", 7), rows, LATER)
    assert again is None


def test_shutdown_is_a_cancel_that_nobody_asked_for() -> None:
    step = attempt_end.finish_stopped(running(), 1, StopKind.SHUTDOWN, Adoption(), (), LATER)
    assert step is not None
    assert (step.after.status, step.after.cancel_requested_at) == (Status.CANCELLED, LATER)


def test_resume_clears_what_ended_the_operation_and_keeps_it_in_the_event() -> None:
    row = terminal(Status.FAILED, restarts=3, memory_restarts=1)
    rows = (held(1, epoch=1, batch=5), held(3, epoch=3))
    step = transitions.try_resume(row, 1, resumption(101), rows, LATER)
    after = step.after
    assert (after.status, after.attempt, after.phase) == (Status.RUNNING, 2, Phase.RESTARTING)
    assert (after.error, after.completed_at, after.restarts) == (None, None, 0)
    assert (after.memory_restarts, after.last_failure) == (0, None)
    assert (after.seed_checkpoint_id, after.resumed_attempt) == (101, 2)
    assert after.owner.id == "owner-2"
    assert after.lease_expires_at == LATER + timedelta(seconds=20)
    assert step.effects.keep_epochs == 1
    assert step.details["before"]["error"]["message"] == "boom"
    assert step.details["before"]["completed_at"] == "2026-01-02T03:04:05Z"


def test_resume_of_a_doomed_or_unknown_checkpoint_begins_again() -> None:
    row = terminal(Status.CANCELLED)
    for rows in ((), (held(1, doomed_at=NOW),)):
        with pytest.raises(CheckpointNotFound):
            transitions.try_resume(row, 1, resumption(101), rows, NOW)


def test_resume_refusals_say_the_status_and_what_to_do() -> None:
    with pytest.raises(OperationNotResumable, match=r"is running .*cancel it first"):
        transitions.try_resume(running(), 1, resumption(101), (held(1),), NOW)
    with pytest.raises(OperationNotResumable, match=r"is completed .*its model"):
        transitions.try_resume(terminal(Status.COMPLETED), 1, resumption(101), (held(1),), NOW)
    with pytest.raises(OperationNotResumable, match="resumed meanwhile"):
        transitions.try_resume(
            terminal(Status.FAILED, attempt=3), 1, resumption(101), (held(1),), NOW
        )


def test_a_delete_dooms_what_stands_and_changes_nothing_else() -> None:
    row = terminal(Status.CANCELLED)
    rows = (held(1, unusable="torn"), held(2, doomed_at=NOW), held(1, attempt=2))
    step = transitions.delete_checkpoints(row, rows, LATER)
    assert step is not None
    assert (step.after, step.effects.doom) == (row, ((1, 1), (2, 1)))
    for status in (Status.CANCELLED, Status.FAILED, Status.COMPLETED):
        assert transitions.delete_checkpoints(terminal(status), rows[1:2], LATER) is None


def test_only_checkpoints_newer_than_the_last_row_are_adopted() -> None:
    end = AttemptEnd(
        FailureReason.HUNG, "", adopt=Adoption((new(1), new(2), new(3, epoch=2), new(4)))
    )
    rows = (held(2, doomed_at=NOW), held(9, attempt=0))
    effects = attempt_end.lose(running(), 1, end, rows, NOW).effects
    assert [checkpoint.number for checkpoint in effects.commit] == [3, 4]


def test_an_owner_is_gone_when_its_lease_expired_or_its_process_was_seen_dead() -> None:
    row, end = running(), NOW + timedelta(seconds=20)
    assert not lease_expired(row, end - timedelta(milliseconds=1))
    assert lease_expired(row, end)
    assert ownerless(row, OWNER.id, NOW)
    assert not ownerless(row, "owner-0", NOW)
    cluster = replace(row, owner=replace(OWNER, kind=OwnerKind.CLUSTER))
    assert not ownerless(cluster, OWNER.id, NOW)
    assert not ownerless(terminal(Status.FAILED), OWNER.id, end)


def test_owner_lost_is_failed_and_resumable_or_cancelled_when_that_was_asked() -> None:
    lost = attempt_end.lose_owner(submitted(), LATER).after
    assert lost.error is not None
    assert (lost.status, lost.error.reason) == (Status.FAILED, FailureReason.OWNER_LOST)
    asked = running(cancel_requested_at=NOW, phase=Phase.STOPPING)
    assert attempt_end.lose_owner(asked, LATER).after.status is Status.CANCELLED
