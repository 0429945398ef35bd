"""Any sequence of verbs on a real store does what a simple model of one operation says."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from store_bench import OWNER, STORES, Bench, checkpoint, opened, result, resumption

from ktrdr.errors import (
    CheckpointNotFound,
    IllegalTransition,
    KtrdrError,
    OperationNotCancellable,
    OperationNotFound,
    OperationNotResumable,
    OperationRunning,
    StaleAttempt,
)
from ktrdr.operations.types import (
    FailureReason,
    HistoryRow,
    Operation,
    Phase,
    Progress,
    Report,
    Status,
    StopKind,
)

EXAMPLES = {"memory": 60, "sqlite": 20, "postgres": 20}
STEPS = 40
SELDOM = st.sampled_from((False, False, False, True))
Refusal = type[KtrdrError]
Key = tuple[int, int]


@dataclass
class Life:
    """The model: what an operation is, in the plainest terms."""

    status: str = "pending"
    attempt: int = 0
    resumed: int = 0
    cancel: bool = False
    restarting: bool = False
    waiting: bool = False
    expired: bool = False
    sequence: int = 0
    at: int | None = None
    """Epoch last reported."""
    restarts: int = 0
    last_failure: tuple[Any, ...] | None = None
    epochs: set[int] = field(default_factory=set)
    standing: dict[Key, tuple[int, bool]] = field(default_factory=dict)
    """By (attempt, number): its epoch, and whether it was the best."""
    committed: int = 0
    """Highest number of this attempt."""

    @property
    def over(self) -> bool:
        return self.status in ("completed", "failed", "cancelled")

    def fenced(self, attempt: int) -> Refusal | None:
        if attempt != self.attempt:
            return StaleAttempt
        return None if self.status == "running" else IllegalTransition

    def commit(self, epoch: int, best: bool) -> None:
        self.committed += 1
        self.standing[self.attempt, self.committed] = (epoch, best)
        keep = sorted(self.standing)[-2:]
        keep += [key for key in sorted(self.standing) if self.standing[key][1]][-1:]
        self.standing = {key: self.standing[key] for key in keep}

    def end(self, status: str) -> None:
        self.status, self.restarting, self.waiting, self.expired = status, False, False, False
        self.cancel |= status == "cancelled"
        if status == "completed":
            self.standing = {}

    def begin_next(self) -> None:
        latest = max(self.standing, default=None)
        epoch = self.standing[latest][0] if latest else 0
        self.attempt, self.sequence, self.committed = self.attempt + 1, 0, 0
        self.at = epoch if latest else None
        self.epochs = {e for e in self.epochs if e <= epoch}
        self.status, self.restarting = "running", True

    def fail(self, reason: FailureReason) -> None:
        latest = max(self.standing, default=None)
        failure = (reason, self.at, latest)
        free = reason is FailureReason.NODE_PREEMPTED
        again = free or (reason.retryable and self.restarts < 3 and failure != self.last_failure)
        if self.cancel:
            self.end("cancelled")
        elif again:
            first = max(latest[0] if latest else 0, self.resumed - 1)
            self.waiting = self.attempt > first
            self.restarts += 0 if free else 1
            self.last_failure = self.last_failure if free else failure
            self.begin_next()
        else:
            self.end("failed")


class Lifecycle(RuleBasedStateMachine):
    """One operation in a store that has many; the verbs come in any order, late and repeated."""

    bench: Bench
    count = 0

    @initialize(started=st.sampled_from((True, True, True, False)))
    def submit(self, started: bool) -> None:
        Lifecycle.count += 1
        self.tag = f"{Lifecycle.count}"
        self.num_requests = 0
        self.life: Life | None = Life()
        self.id = self.bench.submit(self.tag).operation_id
        assert self.bench.submit(self.tag).operation_id == self.id
        if started:
            self.start()
            self.commit(False, False, 0, False)

    def does(self, refusal: Refusal | None, ask: Callable[[], Any]) -> bool:
        """Ask; it must be refused exactly so, or else done."""
        if refusal is None:
            ask()
            return True
        with pytest.raises(refusal):
            ask()
        return False

    def request_id(self) -> str:
        self.num_requests += 1
        return f"{self.tag}.{self.num_requests}"

    @precondition(lambda self: self.life is not None and self.life.status != "running")
    @rule()
    def start(self) -> None:
        life = self.alive()
        refusal = None if life.status == "pending" else KtrdrError
        if self.does(refusal, lambda: self.bench.service.start(self.id, OWNER.id)):
            life.status, life.attempt = "running", 1

    @precondition(lambda self: self.life is not None and self.life.restarting)
    @rule()
    def launch(self) -> None:
        life, owner = self.alive(), self.owner()

        def ask() -> Operation:
            return self.bench.service.launch(self.id, life.attempt, owner)

        if life.waiting or life.cancel:
            self.does(IllegalTransition, ask)
        if not life.cancel:
            change = "UPDATE operations SET launch_not_before = NULL WHERE operation_id ="
            self.bench.execute(f"{change} '{self.id}'")
            assert ask().phase is Phase.STARTING
            life.restarting = life.waiting = False

    @precondition(lambda self: self.life is not None)
    @rule(late=SELDOM, repeated=SELDOM, epoch=st.integers(1, 4))
    def report(self, late: bool, repeated: bool, epoch: int) -> None:
        life = self.alive()
        attempt, sequence = life.attempt - late, life.sequence + (not repeated)
        progress = Progress(epoch, 4, 0, None, 25.0 * epoch, None)
        history = (HistoryRow(epoch, {"val_loss": 0.5}),)
        message = Report(sequence, Phase.TRAINING, progress, history)
        if not self.does(
            life.fenced(attempt), lambda: self.bench.service.report(self.id, attempt, message)
        ):
            return
        life.restarting = life.restarting and repeated
        if not repeated:
            life.sequence, life.at = sequence, epoch
            life.epochs.add(epoch)

    @precondition(lambda self: self.life is not None)
    @rule(late=SELDOM, repeated=SELDOM, epoch=st.integers(0, 4), best=st.booleans())
    def commit(self, late: bool, repeated: bool, epoch: int, best: bool) -> None:
        life = self.alive()
        attempt, number = life.attempt - late, life.committed + (not repeated)
        if number < 1 or attempt < 1:
            return
        new = checkpoint(
            self.bench.service.get(self.id), number, epoch=epoch, batch=0, is_best=best
        )
        if (
            self.does(
                life.fenced(attempt),
                lambda: self.bench.service.commit_checkpoint(self.id, attempt, new),
            )
            and not repeated
        ):
            life.commit(epoch, best)

    @precondition(lambda self: self.life is not None)
    @rule(behind=st.sampled_from((0, 0, 0, 1, 2)))
    def cancel(self, behind: int) -> None:
        life = self.alive()
        seen = life.attempt - behind
        refusal: Refusal | None = None
        if life.status in ("completed", "failed"):
            refusal = OperationNotCancellable
        elif not life.over and not life.resumed <= seen <= life.attempt:
            refusal = StaleAttempt
        if self.does(
            refusal,
            lambda: self.bench.service.request_cancel(self.id, seen, self.request_id()),
        ):
            life.cancel = True
            life.restarting = False  # the phase is stopping
            if life.status == "pending" or life.expired:
                life.end("cancelled")

    @precondition(lambda self: self.life is not None)
    @rule(late=SELDOM, kind=st.sampled_from(StopKind))
    def stop(self, late: bool, kind: StopKind) -> None:
        life = self.alive()
        attempt = life.attempt - late
        repeated = life.status == "cancelled" and not late
        refusal = None if repeated else life.fenced(attempt)
        done = self.does(refusal, lambda: self.bench.service.finish_stopped(self.id, attempt, kind))
        if done and not repeated:
            if kind is StopKind.DRAIN and not life.cancel:
                life.waiting = False
                life.begin_next()
            else:
                life.end("cancelled")

    @precondition(lambda self: self.life is not None)
    @rule(
        late=SELDOM,
        by_owner=st.booleans(),
        reason=st.sampled_from(
            [FailureReason.HUNG, FailureReason.NODE_PREEMPTED, FailureReason.USER_ERROR]
        ),
    )
    def fail(self, late: bool, by_owner: bool, reason: FailureReason) -> None:
        life, service = self.alive(), self.bench.service
        attempt = life.attempt - late
        error = service.get(self.id).error
        repeated = (
            life.status == "failed" and not late and error is not None and error.reason is reason
        )
        refusal = None if repeated and not by_owner else life.fenced(attempt)
        end = service.lose if by_owner else service.finish_failed
        if self.does(refusal, lambda: end(self.id, attempt, reason, "it broke")) and not repeated:
            life.fail(reason)

    @precondition(lambda self: self.life is not None)
    @rule(really=SELDOM, late=SELDOM)
    def complete(self, really: bool, late: bool) -> None:
        life, service = self.alive(), self.bench.service
        if not really:
            return
        attempt = life.attempt - late
        repeated = life.status == "completed" and not late
        refusal = None if repeated else life.fenced(attempt)

        def ask() -> None:
            if refusal is None and not repeated:
                version = service.reserve_model(self.id, attempt).version
                self.version = version
            model = ("demo", getattr(self, "version", 1))
            service.finish_completed(self.id, attempt, result(), model)

        if self.does(refusal, ask) and not repeated:
            life.end("completed")

    @precondition(lambda self: self.life is not None and not self.life.over)
    @rule()
    def expire(self) -> None:
        self.bench.expire_lease(self.id)
        self.alive().expired = True

    @precondition(lambda self: self.life is not None)
    @rule()
    def renew(self) -> None:
        self.bench.service.renew(self.owner())
        self.alive().expired = False

    @precondition(lambda self: self.life is not None)
    @rule(behind=SELDOM, doomed=SELDOM)
    def resume(self, behind: bool, doomed: bool) -> None:
        life = self.alive()
        seen, latest = life.attempt - behind, max(life.standing, default=None)
        rows = self.bench.service.checkpoints(self.id, doomed=doomed or latest is None)
        chosen = rows[-1].id if rows else 0
        resumable = life.status in ("cancelled", "failed") or (life.expired and not life.over)
        refusal: Refusal | None = None
        if not resumable or behind:
            refusal = OperationNotResumable
        elif doomed or latest is None:
            refusal = CheckpointNotFound
        asked = resumption(chosen, self.request_id(), f"owner-{self.tag}")
        if self.does(refusal, lambda: self.bench.service.try_resume(self.id, seen, asked)):
            again = self.bench.service.try_resume(self.id, seen, asked)
            assert again.attempt == life.attempt + 1
            life.begin_next()
            life.cancel = life.expired = life.waiting = False
            life.resumed, life.restarts, life.last_failure = life.attempt, 0, None

    @precondition(lambda self: self.life is not None)
    @rule(really=SELDOM)
    def delete_checkpoints(self, really: bool) -> None:
        life = self.alive()
        if not really:
            return
        refusal = None if life.over else OperationRunning
        if self.does(refusal, lambda: self.bench.service.delete_checkpoints(self.id)):
            life.standing = {}

    @precondition(lambda self: self.life is not None)
    @rule(really=SELDOM)
    def delete(self, really: bool) -> None:
        life = self.alive()
        if not really:
            return  # seldom, so that lives grow long
        refusal = None if life.over else OperationRunning
        if self.does(refusal, lambda: self.bench.service.delete(self.id)):
            self.life = None

    @precondition(lambda self: self.life is None)
    @rule()
    def anything_after_a_deletion(self) -> None:
        service = self.bench.service
        for ask in (
            lambda: service.get(self.id),
            lambda: service.delete(self.id),
            lambda: service.events(self.id),
            lambda: service.request_cancel(self.id, 1, self.request_id()),
            lambda: service.report(self.id, 1, Report(1)),
        ):
            self.does(OperationNotFound, ask)
        self.submit(True)

    @invariant()
    def row_is_the_model(self) -> None:
        service, life = self.bench.service, self.life
        if life is None:
            return
        row = service.get(self.id)
        assert (row.status, row.attempt) == (life.status, life.attempt)
        assert (row.cancel_requested_at is not None) == life.cancel
        assert (row.phase is Phase.RESTARTING) == (life.restarting and not life.over)
        assert (row.launch_not_before is not None) >= life.waiting
        standing = {c.key: (c.epoch, c.is_best) for c in service.checkpoints(self.id)}
        assert standing == life.standing
        assert {line.epoch for line in service.history(self.id)} == life.epochs
        assert service.inconsistency(self.id) is None
        assert service.lease_expired(row) == life.expired

    @invariant()
    def it_is_listed_where_it_belongs(self) -> None:
        status = Status(self.life.status) if self.life is not None else None
        rows, total = self.bench.service.list(status, limit=5, strategy_name="demo")
        assert (self.id in {row.operation_id for row in rows}) == (status is not None)
        assert total >= len(rows)

    def alive(self) -> Life:
        assert self.life is not None
        return self.life

    def owner(self) -> str:
        return self.bench.service.get(self.id).owner.id


@pytest.mark.timeout(400)  # hypothesis makes a failure small for up to five minutes
@pytest.mark.parametrize("kind", STORES)
def test_every_sequence_does_what_the_model_says(kind: str, tmp_path: Path) -> None:
    with opened(kind, tmp_path) as bench:
        machine = type("OneStore", (Lifecycle,), {"bench": bench})
        run_state_machine_as_test(
            machine,
            settings=settings(
                max_examples=EXAMPLES[kind],
                stateful_step_count=STEPS,
                deadline=None,
                derandomize=True,
                database=None,
                suppress_health_check=list(HealthCheck),
            ),
        )
