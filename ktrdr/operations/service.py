"""The one writer of the store: every change of an operation is a method here.

It runs in the operations actor, or in a client that has no cluster; the guard is the row in the
database, wherever this runs. transitions.py judges, the store writes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from ktrdr.errors import ModelNotFound, OperationNotFound, OwnerClosing
from ktrdr.operations import attempt_end, transitions, validation
from ktrdr.operations.attempt_end import AttemptEnd
from ktrdr.operations.event_replay import inconsistency
from ktrdr.operations.lease import lease_expired, lease_from, ownerless
from ktrdr.operations.ports import Reader, Store, Transaction
from ktrdr.operations.retry import retrying
from ktrdr.operations.transition_records import TransitionRecord, check_running
from ktrdr.operations.types import (
    Adoption,
    Checkpoint,
    Event,
    FailureReason,
    HistoryRow,
    ModelRow,
    NewCheckpoint,
    Operation,
    Owner,
    OwnerRow,
    Plan,
    Report,
    Request,
    Result,
    Resumption,
    Selection,
    Status,
    StopKind,
    TrainingWarning,
    check_operation_id,
    new_operation_id,
)

NOTHING_TO_ADOPT = Adoption()


@retrying
class OperationsService:
    def __init__(self, store: Store) -> None:
        self._store = store

    def submit(self, request: Request, plan: Plan, owner: Owner, request_id: str) -> Operation:
        """Write a pending operation for `owner` to start; a repeated id gives the first answer.

        Raise OwnerClosing when the owner ends: nothing is written.
        """
        validation.check_submission(request, plan)
        with self._store.transaction() as tx:
            known = tx.claim(request_id)
            if known is not None:
                return _found(tx, known)
            _check_accepting(tx, owner)
            now = tx.now()
            operation_id = new_operation_id(now)
            return _apply(
                tx, transitions.submit(operation_id, request, plan, owner, request_id, now)
            )

    def start(self, operation_id: str, owner_id: str, driver: str | None = None) -> Operation:
        """Begin attempt 1, run by the actor of this name; StaleAttempt for another's row."""
        with self._store.transaction() as tx:
            row = _locked(tx, operation_id)
            return _apply(tx, transitions.start(row, owner_id, tx.now(), driver))

    def queue(self, operation_id: str, owner_id: str, waiting_for: str) -> Operation:
        """Say what a pending operation waits for; the same again changes nothing."""
        with self._store.transaction() as tx:
            row = _locked(tx, operation_id)
            step = transitions.queue(row, owner_id, waiting_for, tx.now())
            return _apply(tx, step) if step is not None else row

    def launch(
        self, operation_id: str, attempt: int, owner_id: str, driver: str | None = None
    ) -> Operation:
        """Say that a restarted or resumed attempt is now given a driver; once per attempt."""
        with self._store.transaction() as tx:
            row = _locked(tx, operation_id)
            return _apply(tx, transitions.launch(row, attempt, owner_id, tx.now(), driver))

    def wait(self, operation_id: str, attempt: int, owner_id: str, waiting_for: str) -> Operation:
        """Say what an attempt waits for before its driver runs; the same again changes nothing."""
        with self._store.transaction() as tx:
            row = _locked(tx, operation_id)
            step = transitions.wait(row, attempt, owner_id, waiting_for, tx.now())
            return _apply(tx, step) if step is not None else row

    def read_attempt(
        self, operation_id: str, attempt: int
    ) -> tuple[Operation, tuple[Checkpoint, ...]]:
        """Return the row that an attempt runs, and all checkpoint rows, superseded ones too.

        Raise StaleAttempt or IllegalTransition when the attempt is over.
        """
        with self._store.read() as view:
            row = _found(view, operation_id)
            check_running(row, attempt)
            return row, view.checkpoints(operation_id)

    def report(self, operation_id: str, attempt: int, report: Report) -> None:
        """Write progress, history and warnings; a sequence already seen changes nothing.

        Raise StaleAttempt or IllegalTransition when the attempt is over: the driver must stop.
        """
        with self._store.transaction() as tx:
            row, now = _locked(tx, operation_id), tx.now()
            held = tx.checkpoints(operation_id) if report.restored else ()
            step = transitions.report(row, attempt, report, held, now)
            if step is None:
                return
            row = _apply(tx, step)
            for warning in report.warnings:
                row = _apply(tx, transitions.warn(row, attempt, warning, now))

    def warn(self, operation_id: str, attempt: int, warning: TrainingWarning) -> None:
        """Write down a trouble that training survives."""
        with self._store.transaction() as tx:
            row = _locked(tx, operation_id)
            tx.apply(transitions.warn(row, attempt, warning, tx.now()))

    def commit_checkpoint(self, operation_id: str, attempt: int, checkpoint: NewCheckpoint) -> None:
        """Write the row of a durable directory and doom those it supersedes; repeatable."""
        validation.check_checkpoint_path(operation_id, checkpoint.path)
        with self._store.transaction() as tx:
            row = _locked(tx, operation_id)
            held = tx.checkpoints(operation_id)
            step = transitions.commit_checkpoint(row, attempt, checkpoint, held, tx.now())
            if step is not None:
                tx.apply(step)

    def delete_checkpoints(self, operation_id: str) -> tuple[Checkpoint, ...]:
        """Doom all checkpoints of an operation that has ended; repeatable.

        Return every doomed row not yet forgotten: their directories may be removed now. Raise
        OperationRunning while it has not ended.
        """
        with self._store.transaction() as tx:
            _doom_all(tx, _locked(tx, operation_id))
            return tuple(c for c in tx.checkpoints(operation_id) if c.doomed_at is not None)

    def expire_checkpoints(self, older_than: timedelta) -> tuple[str, ...]:
        """Doom all checkpoints of what failed or was cancelled longer ago, in one transaction.

        Return the ids of the operations that had some.
        """
        with self._store.transaction() as tx:
            listed = tx.expired(_before(tx.now(), older_than))
            rows = [_locked(tx, name) for name in listed]
            ended = [row for row in rows if row.status.terminal]  # not resumed since it was listed
            return tuple(row.operation_id for row in ended if _doom_all(tx, row))

    def delete(self, operation_id: str) -> tuple[Checkpoint, ...]:
        """Delete an operation that has ended, with its events and history; its model stays.

        Return its checkpoint rows, all doomed now: they stay until they are forgotten. Raise
        OperationRunning while it has not ended.
        """
        with self._store.transaction() as tx:
            row = _locked(tx, operation_id)
            tx.apply(transitions.delete(row, tx.checkpoints(operation_id), tx.now()))
            return tx.checkpoints(operation_id)

    def forget_checkpoints(self, operation_id: str, ids: tuple[int, ...]) -> None:
        """Delete doomed rows whose directories are gone; rows that are not doomed stay."""
        check_operation_id(operation_id)
        with self._store.transaction() as tx:
            tx.forget_checkpoints(operation_id, ids)

    def request_cancel(
        self, operation_id: str, attempt: int, request_id: str, presumed_dead: str | None = None
    ) -> Operation:
        """Ask for the end of what the caller saw as `attempt`; asking again changes nothing.

        An automatic restart since then does not matter; a user's resume since then is
        StaleAttempt. Pending ends at once, running when its driver confirms, and at once when
        its owner is gone: its lease has expired, or its id is `presumed_dead`. Raise
        OperationNotCancellable when it completed or failed first.
        """
        return self._request_end(
            transitions.request_cancel, (operation_id, attempt, request_id), presumed_dead
        )

    def request_kill(
        self, operation_id: str, attempt: int, request_id: str, presumed_dead: str | None = None
    ) -> Operation:
        """Ask that the driver be killed at once: the last committed checkpoint stands.

        Guarded like `request_cancel`; the operation ends cancelled.
        """
        return self._request_end(
            transitions.request_kill, (operation_id, attempt, request_id), presumed_dead
        )

    def _request_end(
        self,
        transition: Callable[..., TransitionRecord | None],
        request: tuple[str, int, str],
        presumed_dead: str | None,
    ) -> Operation:
        operation_id, attempt, request_id = request
        with self._store.transaction() as tx:
            known = tx.claim(request_id)
            row, now = _locked(tx, operation_id), tx.now()
            step = None if known else transition(row, attempt, request_id, now)
            row = _apply(tx, step) if step is not None else row
            if row.cancel_requested_at and ownerless(row, presumed_dead, now):
                row = _apply(tx, attempt_end.lose_owner(row, now))
            return row

    def finish_completed(
        self, operation_id: str, attempt: int, result: Result, model: tuple[str, int]
    ) -> Operation:
        """End with a stored model (strategy name, version); every checkpoint row is doomed."""
        with self._store.transaction() as tx:
            row = _locked(tx, operation_id)
            held = tx.checkpoints(operation_id)
            step = attempt_end.finish_completed(row, attempt, result, model, held, tx.now())
            return _apply(tx, step) if step is not None else row

    def finish_stopped(
        self,
        operation_id: str,
        attempt: int,
        kind: StopKind,
        adopt: Adoption = NOTHING_TO_ADOPT,
    ) -> Operation:
        """End at a batch boundary as asked: cancelled, or for a drain the next attempt.

        `adopt` are durable directories of this attempt whose rows were never written.
        """
        _check_paths(operation_id, adopt)
        with self._store.transaction() as tx:
            row = _locked(tx, operation_id)
            held = tx.checkpoints(operation_id)
            step = attempt_end.finish_stopped(row, attempt, kind, adopt, held, tx.now())
            return _apply(tx, step) if step is not None else row

    def finish_failed(
        self,
        operation_id: str,
        attempt: int,
        reason: FailureReason,
        message: str,
        adopt: Adoption = NOTHING_TO_ADOPT,
    ) -> Operation:
        """End with a failure: cancelled if that was asked for, else the next attempt or failed."""
        _check_paths(operation_id, adopt)
        with self._store.transaction() as tx:
            row = _locked(tx, operation_id)
            held = tx.checkpoints(operation_id)
            end = AttemptEnd(reason, message, adopt)
            step = attempt_end.finish_failed(row, attempt, end, held, tx.now())
            return _apply(tx, step) if step is not None else row

    def lose(
        self,
        operation_id: str,
        attempt: int,
        reason: FailureReason,
        message: str,
        found_on_start: bool = False,
        adopt: Adoption = NOTHING_TO_ADOPT,
    ) -> Operation:
        """Say for a driver that cannot say it itself that its attempt is over; by the owner.

        `found_on_start`: a restarted owner found no driver; before the attempt's first report
        this costs no restart budget. `adopt` are durable directories of this attempt: those newer
        than its last row get theirs now.
        """
        _check_paths(operation_id, adopt)
        with self._store.transaction() as tx:
            row = _locked(tx, operation_id)
            held = tx.checkpoints(operation_id)
            end = AttemptEnd(reason, message, adopt, found_on_start)
            return _apply(tx, attempt_end.lose(row, attempt, end, held, tx.now()))

    def mark_swept(self, operation_id: str, attempt: int) -> None:
        """Write down that nothing of the attempts up to this one is left to be swept."""
        check_operation_id(operation_id)
        with self._store.transaction() as tx:
            tx.mark_swept(operation_id, attempt)

    def try_resume(
        self,
        operation_id: str,
        attempt: int,
        resumption: Resumption,
        presumed_dead: str | None = None,
    ) -> Operation:
        """Take a stopped operation into its next attempt; of N callers exactly one succeeds.

        A pending or running row counts as stopped when its owner is gone: its lease has expired,
        or its id is `presumed_dead` (an owner whose process the caller saw gone on its own
        host). Raise OwnerClosing when the new owner ends, OperationNotResumable to the others, and
        CheckpointNotFound when the chosen row was doomed meanwhile: then choose and verify again.
        A repeated request id gives the first answer.
        """
        with self._store.transaction() as tx:
            known = tx.claim(resumption.request_id)
            row = _locked(tx, operation_id)
            if known is not None:
                return row
            now = tx.now()
            if ownerless(row, presumed_dead, now):
                row = _apply(tx, attempt_end.lose_owner(row, now))
            held = tx.checkpoints(operation_id)
            row = _apply(tx, transitions.try_resume(row, attempt, resumption, held, now))
            _check_accepting(tx, resumption.owner)
            return row

    def check_resumable(self, operation: Operation, presumed_dead: str | None = None) -> None:
        """Raise OperationNotResumable where try_resume would refuse the row as it was read."""
        with self._store.read() as view:
            gone = ownerless(operation, presumed_dead, view.now())
        if not gone:
            transitions.check_resumable(operation, operation.attempt)

    def reserve_model(self, operation_id: str, attempt: int) -> ModelRow:
        """Return the attempt's version of its strategy's model; repeated: the same answer."""
        with self._store.transaction() as tx:
            row = _locked(tx, operation_id)
            check_running(row, attempt)
            return tx.reserve_model(row)

    def renew(self, owner_id: str) -> int:
        """Extend the lease of an owner and of all its operations; return how many those are."""
        with self._store.transaction() as tx:
            return tx.renew(owner_id, lease_from(tx.now()))

    def register_owner(self, owner: Owner, version: str) -> OwnerRow:
        """Write an owner down with its first lease; repeated: the row as it is."""
        with self._store.transaction() as tx:
            known = tx.lock_owner(owner.id)
            if known is not None:
                return known
            now = tx.now()
            row = OwnerRow(owner, version, created_at=now, lease_expires_at=lease_from(now))
            tx.insert_owner(row)
            return row

    def describe_owner(self, owner_id: str, **facts: Any) -> OwnerRow:
        """Write down an owner's `address`, `dashboard` or `nodes`; OwnerClosing without a row."""
        with self._store.transaction() as tx:
            return _owner_changed(tx, owner_id, **facts)

    def keep_owner(self, owner_id: str) -> OwnerRow:
        """Let an owner stay when it is idle; raise OwnerClosing when it ends already."""
        with self._store.transaction() as tx:
            row = _owner_changed(tx, owner_id, persistent=True)
            if not row.accepting:
                raise _closing(owner_id)
            return row

    def request_shutdown(self, owner_id: str) -> OwnerRow:
        """Tell an owner to stop everything with a last checkpoint, and take nothing any more."""
        with self._store.transaction() as tx:
            return _owner_changed(tx, owner_id, shutdown_requested_at=tx.now())

    def close_owner(self, owner_id: str) -> bool:
        """Let an owner end unless something of it has not ended; say whether it may end.

        From then on nothing is submitted to it: of this and a `submit`, one goes first.
        """
        with self._store.transaction() as tx:
            row = tx.lock_owner(owner_id)
            if tx.owned(owner_id):
                return False
            if row is not None and row.closing_at is None:
                tx.update_owner(replace(row, closing_at=tx.now()))
            return True

    def owner(self, owner_id: str) -> OwnerRow | None:
        with self._store.read() as view:
            return view.owner(owner_id)

    def owners(self) -> tuple[OwnerRow, ...]:
        """Return the owners that have not ended, oldest first."""
        with self._store.read() as view:
            return view.owners()

    def sweepable(self, owner_id: str | None = None) -> tuple[str, ...]:
        """Return the operations with something on storage to be swept, oldest first.

        Those are an owner's with an attempt that is over and not swept or with doomed checkpoints,
        and all ended ones with doomed checkpoints. Without an owner: everybody's that have ended.
        """
        with self._store.read() as view:
            return view.sweepable(owner_id)

    def owned(self, owner_id: str) -> tuple[Operation, ...]:
        """Return the pending and running operations of an owner, oldest first."""
        with self._store.read() as view:
            return view.owned(owner_id)

    def get(self, operation_id: str) -> Operation:
        with self._store.read() as view:
            return _found(view, operation_id)

    def ids_with(self, part: str, limit: int) -> tuple[str, ...]:
        """Return the ids that begin or end with `part`, newest first."""
        with self._store.read() as view:
            return view.ids_with(part, limit)

    def list(
        self,
        status: Status | None = None,
        limit: int | None = None,
        offset: int = 0,
        strategy_name: str | None = None,
    ) -> tuple[tuple[Operation, ...], int]:
        """Return one page, newest first, and how many match in all."""
        selection = Selection(status, strategy_name)
        with self._store.read() as view:
            return view.operations(selection, limit, offset), view.num_operations(selection)

    def events(self, operation_id: str, after: int = 0) -> tuple[Event, ...]:
        """Return events, oldest first; only those with a higher id than `after`."""
        with self._store.read() as view:
            _found(view, operation_id)
            return view.events(operation_id, after)

    def inconsistency(self, operation_id: str) -> str | None:
        """Say how a row differs from what its events lead to; None: it does not."""
        with self._store.read() as view:
            return inconsistency(_found(view, operation_id), view.events(operation_id))

    def history(self, operation_id: str) -> tuple[HistoryRow, ...]:
        with self._store.read() as view:
            _found(view, operation_id)
            return view.history(operation_id)

    def checkpoints(self, operation_id: str, doomed: bool = False) -> tuple[Checkpoint, ...]:
        """Return the standing rows (or the doomed ones) by (attempt, number)."""
        with self._store.read() as view:
            _found(view, operation_id)
            rows = view.checkpoints(operation_id)
        return tuple(c for c in rows if (c.doomed_at is not None) == doomed)

    def latest_checkpoint(self, operation_id: str) -> Checkpoint | None:
        return self.latest_checkpoints((operation_id,)).get(operation_id)

    def latest_checkpoints(self, operation_ids: tuple[str, ...]) -> dict[str, Checkpoint]:
        """Return, for each operation that has one, its latest good checkpoint."""
        for operation_id in operation_ids:
            check_operation_id(operation_id)
        with self._store.read() as view:
            return view.latest_checkpoints(operation_ids)

    def models(self) -> tuple[ModelRow, ...]:
        """Return the completed versions by (strategy name, version)."""
        with self._store.read() as view:
            return view.models(None)

    def model(self, strategy_name: str, version: int | None = None) -> ModelRow:
        """Return a completed version, the newest when none is named; raise ModelNotFound."""
        validation.check_strategy_name(strategy_name)
        with self._store.read() as view:
            rows = view.models(strategy_name)
        for row in reversed(rows):
            if version in (None, row.version):
                return row
        name = strategy_name if version is None else f"{strategy_name}@v{version}"
        raise ModelNotFound(f"no model {name} in the store: see `ktrdr models list`")

    def reserved_models(
        self, strategy_name: str | None = None, operation_id: str | None = None
    ) -> tuple[ModelRow, ...]:
        """Return the versions of a strategy or an operation, also those never completed."""
        with self._store.read() as view:
            return view.reserved_models(strategy_name, operation_id)

    def model_of(self, operation_id: str) -> tuple[str, int]:
        """Return (strategy name, version) of what an operation made; raise ModelNotFound."""
        with self._store.read() as view:
            rows = view.models(_found(view, operation_id).request.strategy_name)
        for row in rows:
            if row.operation_id == operation_id:
                return row.strategy_name, row.version
        raise ModelNotFound(
            f"operation {operation_id} has made no model: it has not completed,"
            f" see `ktrdr operations status {operation_id}`"
        )

    def lease_expired(self, operation: Operation) -> bool:
        """Say whether nobody has looked after a pending or running operation for a lease's time."""
        with self._store.read() as view:
            return lease_expired(operation, view.now())

    def store_id(self) -> str:
        """Return the id that storage roots of this store are marked with."""
        return self._store.store_id()

    def now(self) -> datetime:
        """Return the database's clock, aware UTC."""
        with self._store.read() as view:
            return view.now()


def _locked(tx: Transaction, operation_id: str) -> Operation:
    row = tx.lock(check_operation_id(operation_id))
    return row if row is not None else _missing(operation_id)


def _found(view: Reader, operation_id: str) -> Operation:
    row = view.operation(check_operation_id(operation_id))
    return row if row is not None else _missing(operation_id)


def _missing(operation_id: str) -> Operation:
    raise OperationNotFound(
        f"no operation {operation_id} in the store: see `ktrdr operations list`"
    )


def _check_accepting(tx: Transaction, owner: Owner) -> None:
    """Raise OwnerClosing when the owner takes nothing any more; it cannot begin to end after."""
    row = tx.lock_owner(owner.id)
    if row is not None and not row.accepting:
        raise _closing(owner.id)


def _owner_changed(tx: Transaction, owner_id: str, **changes: Any) -> OwnerRow:
    row = tx.lock_owner(owner_id)
    if row is None:
        raise _closing(owner_id)
    row = replace(row, **changes)
    tx.update_owner(row)
    return row


def _closing(owner_id: str) -> OwnerClosing:
    return OwnerClosing(f"the cluster of owner {owner_id} ends or has ended: start another one")


def _apply(tx: Transaction, step: TransitionRecord) -> Operation:
    tx.apply(step)
    return step.after


def _doom_all(tx: Transaction, row: Operation) -> bool:
    step = transitions.delete_checkpoints(row, tx.checkpoints(row.operation_id), tx.now())
    if step is not None:
        tx.apply(step)
    return step is not None


def _before(now: datetime, age: timedelta) -> datetime:
    try:
        return now - age
    except OverflowError:
        return datetime.min.replace(tzinfo=now.tzinfo)


def _check_paths(operation_id: str, adopt: Adoption) -> None:
    for checkpoint in adopt.checkpoints:
        validation.check_checkpoint_path(operation_id, checkpoint.path)
