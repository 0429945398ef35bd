"""What the operations service asks of a store; tests/store holds every store to it.

All of it is synchronous. Errors of a driver or a server come out as StoreUnavailable, never as
the exceptions of the library below. A method may be retried after StoreUnavailable: the
transaction it was part of happened whole or not at all. TransactionAborted says that it did not
happen at all.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from datetime import datetime
from typing import Protocol

from ktrdr.errors import StoreUnavailable
from ktrdr.operations.transition_records import TransitionRecord
from ktrdr.operations.types import (
    Checkpoint,
    Event,
    HistoryRow,
    ModelRow,
    Operation,
    OwnerRow,
    Selection,
)


class TransactionAborted(StoreUnavailable):
    """The store undid the whole block through no fault of its own: it may be run again."""


class Reader(Protocol):
    """One consistent view of the store."""

    def now(self) -> datetime:
        """Return the database's clock, aware UTC: leases of several hosts are compared by it."""

    def operation(self, operation_id: str) -> Operation | None: ...

    def operations(
        self, selection: Selection, limit: int | None, offset: int
    ) -> tuple[Operation, ...]:
        """Return operations, newest first."""

    def ids_with(self, part: str, limit: int) -> tuple[str, ...]:
        """Return the ids that begin or end with `part`, newest first."""

    def num_operations(self, selection: Selection) -> int: ...

    def owner(self, owner_id: str) -> OwnerRow | None: ...

    def owners(self) -> tuple[OwnerRow, ...]:
        """Return the owners that are not closing, oldest first."""

    def owned(self, owner_id: str) -> tuple[Operation, ...]:
        """Return the pending and running operations of an owner, oldest first."""

    def sweepable(self, owner_id: str | None) -> tuple[str, ...]:
        """Return the ids of operations that have something on storage to be swept, oldest first.

        Those are an owner's (None: everybody's that have ended) with an attempt that is over and
        not swept or with doomed checkpoint rows, and all that have ended with doomed rows.
        """

    def expired(self, ended_before: datetime) -> tuple[str, ...]:
        """Return the ids of failed and cancelled operations that ended before, oldest first."""

    def events(self, operation_id: str, after: int = 0) -> tuple[Event, ...]:
        """Return events with a higher id than `after` in the order they were committed."""

    def history(self, operation_id: str) -> tuple[HistoryRow, ...]:
        """Return rows by epoch."""

    def checkpoints(self, operation_id: str) -> tuple[Checkpoint, ...]:
        """Return all rows, doomed ones too, by (attempt, number)."""

    def latest_checkpoints(self, operation_ids: Sequence[str]) -> dict[str, Checkpoint]:
        """Return, for each operation that has one, its latest good checkpoint."""

    def models(self, strategy_name: str | None) -> tuple[ModelRow, ...]:
        """Return completed versions by (strategy name, version)."""

    def reserved_models(
        self, strategy_name: str | None, operation_id: str | None
    ) -> tuple[ModelRow, ...]:
        """Return versions of a strategy or an operation, completed or not, by version."""


class Transaction(Reader, Protocol):
    """Reads and writes that become durable together when the block ends, or not at all."""

    def claim(self, request_id: str) -> str | None:
        """Return the operation a request id was used for, None when it is new.

        Another transaction that claims the same id waits until this one has ended.
        """

    def lock(self, operation_id: str) -> Operation | None:
        """Read a row that nobody else can change until this transaction has ended."""

    def apply(self, step: TransitionRecord) -> None:
        """Write a transition: ONE guarded update, its effects and its event row.

        The update names operation id, status and attempt of `step.before`. Raise StaleAttempt
        when the attempt has moved on and IllegalTransition when the status has; both leave the
        transaction to be rolled back. A deletion takes events, history and requests along;
        checkpoint rows stay, doomed, until they are forgotten, and so do models.
        """

    def forget_checkpoints(self, operation_id: str, ids: Iterable[int]) -> None:
        """Delete those of the rows that are doomed."""

    def mark_swept(self, operation_id: str, attempt: int) -> None:
        """Note up to which attempt an operation's storage was swept; it never goes back."""

    def lock_owner(self, owner_id: str) -> OwnerRow | None:
        """Read an owner's row that nobody else can change until this transaction has ended."""

    def insert_owner(self, row: OwnerRow) -> None: ...

    def update_owner(self, row: OwnerRow) -> None:
        """Write a row that was locked, all but its lease."""

    def renew(self, owner_id: str, until: datetime) -> int:
        """Move the lease of an owner and of its pending and running rows; how many those are."""

    def reserve_model(self, operation: Operation) -> ModelRow:
        """Return the model row of this operation and attempt, made with the next free version."""


class Store(Protocol):
    def store_id(self) -> str:
        """Return the id this store was given when it was made; it never changes."""

    def read(self) -> AbstractContextManager[Reader]:
        """Open a view that blocks no writer."""

    def transaction(self) -> AbstractContextManager[Transaction]:
        """Open a write transaction: durable when the block ends, rolled back if it raises.

        Transactions of all threads and processes take effect as if one after the other for
        whatever they `lock` or `claim`. Do not nest.
        """

    def close(self) -> None: ...
