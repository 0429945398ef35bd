"""The store on a SQL database: guarded writes and consistent reads, nothing more.

What a transition means is decided in ktrdr.operations; here a record becomes one UPDATE that names
the row it was judged on, its effects and its event, in one transaction.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any, TypeVar

from sqlalchemy import (
    ColumnElement,
    Connection,
    Engine,
    Select,
    and_,
    delete,
    func,
    insert,
    or_,
    select,
    tuple_,
    union,
    update,
)

from ktrdr.errors import IllegalTransition, StaleAttempt
from ktrdr.operations.transition_records import Effects, TransitionRecord
from ktrdr.operations.types import (
    Checkpoint,
    Event,
    HistoryRow,
    ModelRow,
    Operation,
    OwnerRow,
    Selection,
    Status,
)
from ktrdr.store import rows, tables
from ktrdr.store.addresses import Address
from ktrdr.store.dialect import clock, connected, for_reading, for_writing, hold
from ktrdr.store.errors import repeatable, translated

T = TypeVar("T")

_OWNED = (Status.PENDING, Status.RUNNING)
_ENDED = (Status.COMPLETED, Status.FAILED, Status.CANCELLED)


class SqlReader:
    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def now(self) -> datetime:
        return clock(self._connection)

    def operation(self, operation_id: str) -> Operation | None:
        query = select(tables.operations).where(tables.operations.c.operation_id == operation_id)
        return self._one(query, rows.operation_from)

    def operations(
        self, selection: Selection, limit: int | None, offset: int
    ) -> tuple[Operation, ...]:
        table = tables.operations
        query = select(table).where(*_selecting(selection))
        query = query.order_by(table.c.created_at.desc(), table.c.operation_id.desc())
        return self._all(query.limit(limit).offset(offset), rows.operation_from)

    def ids_with(self, part: str, limit: int) -> tuple[str, ...]:
        table = tables.operations
        name = table.c.operation_id
        begins, ends = name.startswith(part, autoescape=True), name.endswith(part, autoescape=True)
        query = select(name).where(or_(begins, ends))
        query = query.order_by(table.c.created_at.desc(), name.desc()).limit(limit)
        return tuple(self._connection.execute(query).scalars())

    def num_operations(self, selection: Selection) -> int:
        query = select(func.count()).select_from(tables.operations)
        return self._connection.execute(query.where(*_selecting(selection))).scalar_one()

    def owned(self, owner_id: str) -> tuple[Operation, ...]:
        table = tables.operations
        query = select(table).where(table.c.owner_id == owner_id, table.c.status.in_(_OWNED))
        return self._all(
            query.order_by(table.c.created_at, table.c.operation_id), rows.operation_from
        )

    def owner(self, owner_id: str) -> OwnerRow | None:
        query = select(tables.owners).where(tables.owners.c.id == owner_id)
        return self._one(query, rows.owner_from)

    def owners(self) -> tuple[OwnerRow, ...]:
        table = tables.owners
        query = select(table).where(table.c.closing_at.is_(None))
        return self._all(query.order_by(table.c.created_at, table.c.id), rows.owner_from)

    def sweepable(self, owner_id: str | None) -> tuple[str, ...]:
        table, doomed = tables.operations, tables.checkpoints.c.doomed_at.is_not(None)
        ended = table.c.status.in_(_ENDED)
        over = or_(ended, table.c.swept_attempt < table.c.attempt - 1)
        own = ended if owner_id is None else table.c.owner_id == owner_id
        # The conditions of the two indexes that hold little more than what is found.
        unswept = select(table.c.operation_id).where(
            table.c.swept_attempt < table.c.attempt, over, own
        )
        superseded = select(tables.checkpoints.c.operation_id).where(doomed)
        found = union(unswept, superseded).subquery()
        query = select(table.c.operation_id).join(found, table.c.operation_id == found.c[0])
        return self._ids(query.where(or_(own, ended)))

    def expired(self, ended_before: datetime) -> tuple[str, ...]:
        table = tables.operations
        over = table.c.status.in_((Status.FAILED, Status.CANCELLED))
        query = select(table.c.operation_id).where(over, table.c.completed_at < ended_before)
        return self._ids(query)

    def events(self, operation_id: str, after: int = 0) -> tuple[Event, ...]:
        table = tables.events
        query = select(table).where(table.c.operation_id == operation_id, table.c.id > after)
        return self._all(query.order_by(table.c.id), rows.event_from)

    def history(self, operation_id: str) -> tuple[HistoryRow, ...]:
        table = tables.history
        query = select(table).where(table.c.operation_id == operation_id).order_by(table.c.epoch)
        return self._all(query, rows.history_from)

    def checkpoints(self, operation_id: str) -> tuple[Checkpoint, ...]:
        table = tables.checkpoints
        query = select(table).where(table.c.operation_id == operation_id)
        return self._all(query.order_by(table.c.attempt, table.c.number), rows.checkpoint_from)

    def latest_checkpoints(self, operation_ids: Sequence[str]) -> dict[str, Checkpoint]:
        table = tables.checkpoints
        good = and_(table.c.doomed_at.is_(None), table.c.unusable.is_(None))
        latest: dict[str, Checkpoint] = {}
        for chunk in _chunks(operation_ids):
            query = select(table).where(table.c.operation_id.in_(chunk), good)
            found = self._all(query.order_by(table.c.attempt, table.c.number), rows.checkpoint_from)
            latest |= {checkpoint.operation_id: checkpoint for checkpoint in found}
        return latest

    def models(self, strategy_name: str | None) -> tuple[ModelRow, ...]:
        table = tables.models
        query = select(table).where(table.c.completed_at.is_not(None))
        if strategy_name is not None:
            query = query.where(table.c.strategy_name == strategy_name)
        query = query.order_by(table.c.strategy_name, table.c.version)
        return self._all(query, rows.model_from)

    def reserved_models(
        self, strategy_name: str | None, operation_id: str | None
    ) -> tuple[ModelRow, ...]:
        table = tables.models
        query = select(table).order_by(table.c.strategy_name, table.c.version)
        if strategy_name is not None:
            query = query.where(table.c.strategy_name == strategy_name)
        if operation_id is not None:
            query = query.where(table.c.operation_id == operation_id)
        return self._all(query, rows.model_from)

    def _ids(self, query: Select[tuple[str]]) -> tuple[str, ...]:
        table = tables.operations
        query = query.order_by(table.c.created_at, table.c.operation_id)
        return tuple(row.operation_id for row in self._connection.execute(query))

    def _all(self, query: Select[Any], build: Callable[[rows.Row], T]) -> tuple[T, ...]:
        return tuple(build(row._asdict()) for row in self._connection.execute(query))

    def _one(self, query: Select[Any], build: Callable[[rows.Row], T]) -> T | None:
        row = self._connection.execute(query).one_or_none()
        return build(row._asdict()) if row is not None else None


class SqlTransaction(SqlReader):
    def claim(self, request_id: str) -> str | None:
        table = tables.requests
        hold(self._connection, f"request {request_id}")
        query = select(table.c.operation_id).where(table.c.request_id == request_id)
        return self._connection.execute(query).scalar_one_or_none()

    def lock(self, operation_id: str) -> Operation | None:
        table = tables.operations
        query = select(table).where(table.c.operation_id == operation_id).with_for_update()
        return self._one(query, rows.operation_from)

    def apply(self, step: TransitionRecord) -> None:
        if step.before is None:
            values = rows.operation_values(step.after)
            self._connection.execute(insert(tables.operations).values(values))
        elif step.effects.delete:
            self._delete(step.before)
        else:
            self._update(step.before, step.after)
        self._write(step)
        if step.recorded:
            self._record(step)

    def forget_checkpoints(self, operation_id: str, ids: Iterable[int]) -> None:
        table = tables.checkpoints
        doomed = and_(table.c.operation_id == operation_id, table.c.doomed_at.is_not(None))
        for chunk in _chunks(tuple(ids)):
            self._connection.execute(delete(table).where(doomed, table.c.id.in_(chunk)))

    def mark_swept(self, operation_id: str, attempt: int) -> None:
        table = tables.operations
        own = and_(table.c.operation_id == operation_id, table.c.swept_attempt < attempt)
        self._connection.execute(update(table).where(own).values(swept_attempt=attempt))

    def renew(self, owner_id: str, until: datetime) -> int:
        table = tables.operations
        owned = and_(table.c.owner_id == owner_id, table.c.status.in_(_OWNED))
        # Whoever locks several rows takes them oldest first: nobody waits in a circle.
        locked = select(table.c.operation_id).where(owned).with_for_update()
        locked = locked.order_by(table.c.created_at, table.c.operation_id)
        change = update(table).where(table.c.operation_id.in_(locked), owned)
        change = change.values(lease_expires_at=until)
        renewed = self._connection.execute(change).rowcount
        owner = update(tables.owners).where(tables.owners.c.id == owner_id)
        self._connection.execute(owner.values(lease_expires_at=until))
        return renewed

    def lock_owner(self, owner_id: str) -> OwnerRow | None:
        hold(self._connection, f"owner {owner_id}")  # also when there is no row yet
        query = select(tables.owners).where(tables.owners.c.id == owner_id).with_for_update()
        return self._one(query, rows.owner_from)

    def insert_owner(self, row: OwnerRow) -> None:
        self._connection.execute(insert(tables.owners).values(rows.owner_values(row)))

    def update_owner(self, row: OwnerRow) -> None:
        values = rows.owner_values(row)
        del values["lease_expires_at"]
        change = update(tables.owners).where(tables.owners.c.id == row.owner.id)
        self._connection.execute(change.values(values))

    def reserve_model(self, operation: Operation) -> ModelRow:
        table, name = tables.models, operation.request.strategy_name
        mine = and_(
            table.c.operation_id == operation.operation_id, table.c.attempt == operation.attempt
        )
        known = self._one(select(table).where(mine), rows.model_from)
        if known is not None:
            return known
        hold(self._connection, f"model {name}")
        newest = select(func.max(table.c.version)).where(table.c.strategy_name == name)
        version = (self._connection.execute(newest).scalar_one() or 0) + 1
        reserved = ModelRow(
            strategy_name=name,
            version=version,
            operation_id=operation.operation_id,
            attempt=operation.attempt,
            storage=operation.plan.storage,
            path=f"models/{name}/v{version}",
            weights_digest=None,
            created_at=self.now(),
            completed_at=None,
        )
        self._connection.execute(insert(table).values(vars(reserved)))
        return reserved

    def _update(self, before: Operation, after: Operation) -> None:
        table, old = tables.operations, rows.operation_values(before)
        changed = {k: v for k, v in rows.operation_values(after).items() if v != old[k]}
        values = {"attempt": after.attempt, **changed}
        change = update(table).where(*_guarding(before)).values(values)
        if self._connection.execute(change).rowcount != 1:
            raise _overtaken(before, self.operation(before.operation_id))

    def _delete(self, before: Operation) -> None:
        """Everything that refers to the row goes with it."""
        deletion = delete(tables.operations).where(*_guarding(before))
        if self._connection.execute(deletion).rowcount != 1:
            raise _overtaken(before, self.operation(before.operation_id))

    def _write(self, step: TransitionRecord) -> None:
        effects, operation_id = step.effects, step.after.operation_id
        if effects.request_id is not None:
            values = {"request_id": effects.request_id, "operation_id": operation_id, "at": step.at}
            self._connection.execute(insert(tables.requests).values(values))
        self._write_checkpoints(step)
        self._write_history(operation_id, effects)
        if effects.complete_model is not None:
            self._complete_model(step, effects.complete_model)

    def _write_checkpoints(self, step: TransitionRecord) -> None:
        table, operation_id = tables.checkpoints, step.after.operation_id
        attempt = step.before.attempt if step.before is not None else 0
        for new in step.effects.commit:
            values = rows.checkpoint_values(operation_id, attempt, new)
            self._connection.execute(insert(table).values(values))
        own = table.c.operation_id == operation_id
        if step.effects.doom:
            key = tuple_(table.c.attempt, table.c.number)
            doom = update(table).where(own, key.in_(step.effects.doom))
            self._connection.execute(doom.values(doomed_at=step.at))
        for checkpoint_id, why in step.effects.flag:
            flag = update(table).where(own, table.c.id == checkpoint_id)
            self._connection.execute(flag.values(unusable=why))

    def _write_history(self, operation_id: str, effects: Effects) -> None:
        table = tables.history
        own = table.c.operation_id == operation_id
        if effects.keep_epochs is not None:
            past = delete(table).where(own, table.c.epoch > effects.keep_epochs)
            self._connection.execute(past)
        by_epoch = {row.epoch: row.metrics for row in effects.history}
        for chunk in _chunks(tuple(by_epoch)):
            self._connection.execute(delete(table).where(own, table.c.epoch.in_(chunk)))
        if by_epoch:
            self._connection.execute(
                insert(table),
                [
                    {"operation_id": operation_id, "epoch": epoch, "metrics": metrics}
                    for epoch, metrics in by_epoch.items()
                ],
            )

    def _complete_model(self, step: TransitionRecord, model: tuple[str, int, str]) -> None:
        table, (name, version, digest) = tables.models, model
        reserved = and_(
            table.c.strategy_name == name,
            table.c.version == version,
            table.c.operation_id == step.after.operation_id,
            table.c.attempt == step.after.attempt,
        )
        change = update(table).where(reserved)
        change = change.values(weights_digest=digest, completed_at=step.at)
        if self._connection.execute(change).rowcount != 1:
            raise IllegalTransition(
                f"model {name}@v{version} is not reserved for attempt {step.after.attempt} of"
                f" operation {step.after.operation_id}: reserve it first"
            )

    def _record(self, step: TransitionRecord) -> None:
        values = {
            "operation_id": step.after.operation_id,
            "attempt": step.after.attempt,
            "event": step.event,
            "status": step.after.status,
            "at": step.at,
            "details": step.details,
        }
        self._connection.execute(insert(tables.events).values(values))


class SqlStore:
    def __init__(self, engine: Engine, address: Address, store_id: str) -> None:
        self._engine = engine
        self._reader = for_reading(engine)
        self._writer = for_writing(engine)
        self._address = address
        self._store_id = store_id

    def store_id(self) -> str:
        return self._store_id

    @contextmanager
    def read(self) -> Iterator[SqlReader]:
        with self._begun(self._reader) as connection:
            yield SqlReader(connection)

    @contextmanager
    def transaction(self) -> Iterator[SqlTransaction]:
        with self._begun(self._writer) as connection:
            yield SqlTransaction(connection)

    def close(self) -> None:
        self._engine.dispose()

    @contextmanager
    def _begun(self, engine: Engine) -> Iterator[Connection]:
        """A block that fails is rolled back; what the commit itself raises is never repeatable."""
        with (
            translated(self._address),
            connected(engine) as connection,
            connection.begin(),
            repeatable(self._address),
        ):
            yield connection


def _selecting(selection: Selection) -> list[ColumnElement[bool]]:
    table = tables.operations.c
    wanted = ((table.status, selection.status), (table.strategy_name, selection.strategy_name))
    return [column == value for column, value in wanted if value is not None]


def _guarding(before: Operation) -> tuple[ColumnElement[bool], ...]:
    table = tables.operations.c
    return (
        table.operation_id == before.operation_id,
        table.status == before.status,
        table.attempt == before.attempt,
    )


def _overtaken(before: Operation, now: Operation | None) -> IllegalTransition | StaleAttempt:
    name = before.operation_id
    if now is not None and now.attempt != before.attempt:
        return StaleAttempt(f"operation {name} is in attempt {now.attempt} now")
    status = now.status if now is not None else "gone"
    return IllegalTransition(f"operation {name} is {status} now: somebody else went first")


def _chunks(values: Sequence[Any], size: int = 500) -> Iterator[Sequence[Any]]:
    for first in range(0, len(values), size):
        yield values[first : first + size]
