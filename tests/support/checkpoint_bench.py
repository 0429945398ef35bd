"""An operation with real rows on a real storage, and an owner without processes."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from supervision import Supervision

from ktrdr.checkpoints.manifest import Header, ModelHeader, Provenance
from ktrdr.checkpoints.model_store import write_model
from ktrdr.checkpoints.write import write_checkpoint
from ktrdr.driver.heartbeat import Heartbeat
from ktrdr.driver.names import AttemptKey, driver_name
from ktrdr.operations.service import OperationsService
from ktrdr.operations.types import (
    Checkpoint,
    CheckpointType,
    FailureReason,
    NewCheckpoint,
    Operation,
    Owner,
    OwnerKind,
    Plan,
    Request,
    Result,
    ResumedFrom,
    Resumption,
    StopKind,
)
from ktrdr.storage.posix import DISK, Files
from ktrdr.storage.root import Storage
from ktrdr.store import SqlStore, open_store
from ktrdr.supervisor.drivers import Lost

OWNER = Owner("owner-1", OwnerKind.EMBEDDED, "host", 4242, 1000.5)
WRITTEN = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
FILES = {"model.pt": b"weights" * 50, "optimizer.pt": b"moments" * 90, "loop.pt": b"position"}
PROVENANCE = Provenance(
    request={"strategy_name": "demo"},
    strategy_path="/w/demo.yaml",
    strategy_fingerprint="s" * 64,
    data_fingerprint="d" * 64,
    dataset_digest="f" * 64,
    environment={"torch": "2.13.0"},
)


@dataclass
class Bench:
    """A service, its storage, and short forms of what a driver does with them."""

    store: SqlStore
    storage: Storage
    service: OperationsService = field(init=False)

    def __post_init__(self) -> None:
        self.service = OperationsService(self.store)

    def running(self, name: str = "r", owner: Owner = OWNER) -> Operation:
        request = Request("/w/demo.yaml", "demo", ("EURUSD",), ("5m",), None, None, 40, 42, 1)
        plan = Plan(
            config={"name": "demo"},
            overrides={},
            strategy_fingerprint="s" * 64,
            data_fingerprint="d" * 64,
            dataset_digest="f" * 64,
            spans=[{"symbol": "EURUSD", "timeframe": "1h", "first": 1, "last": 2, "rows": 2}],
            storage=str(self.storage.root),
        )
        row = self.service.submit(request, plan, owner, name)
        return self.service.start(row.operation_id, owner.id)

    def write(
        self, operation: Operation, number: int, files: Mapping[str, bytes] = FILES, **changes: Any
    ) -> NewCheckpoint:
        """A durable directory, without a row."""
        return write_checkpoint(self.storage, header(operation, number, **changes), files)

    def commit(self, operation: Operation, number: int, **changes: Any) -> Checkpoint:
        """A durable directory and its row; what that dooms stays on the disk."""
        new = self.write(operation, number, **changes)
        self.service.commit_checkpoint(operation.operation_id, operation.attempt, new)
        rows = self.service.checkpoints(operation.operation_id)
        return next(row for row in rows if row.key == (operation.attempt, number))

    def cancelled(self, name: str = "r", numbers: int = 2) -> Operation:
        """An operation that was cancelled after so many checkpoints."""
        row = self.running(name)
        for number in range(1, numbers + 1):
            self.commit(row, number)
        return self.service.finish_stopped(row.operation_id, row.attempt, StopKind.USER)

    def resumed(self, operation: Operation, owner: Owner = OWNER) -> Operation:
        chosen = self.service.latest_checkpoint(operation.operation_id)
        assert chosen is not None
        source = ResumedFrom(chosen.checkpoint_type, WRITTEN, chosen.epoch, chosen.batch, True)
        request_id = f"resume-{operation.operation_id}-{operation.attempt}"
        resumption = Resumption(chosen.id, owner, request_id, source, operation.plan)
        return self.service.try_resume(operation.operation_id, operation.attempt, resumption)

    def store_model(self, operation: Operation) -> tuple[Result, tuple[str, int]]:
        """A durable model, its completion still to be written."""
        row = self.service.reserve_model(operation.operation_id, operation.attempt)
        path = write_model(self.storage, model_header(operation, row.version), FILES)
        result = Result(str(self.storage.at(path)), "ab" * 32, 4, 2, {"test_loss": 0.5})
        return result, (row.strategy_name, row.version)

    def complete(self, operation: Operation) -> Operation:
        """Complete it, as far as its driver's last transaction."""
        result, model = self.store_model(operation)
        name, attempt = operation.operation_id, operation.attempt
        return self.service.finish_completed(name, attempt, result, model)

    def supervise(self, drivers: SilentDrivers | None = None, owner: Owner = OWNER) -> Supervision:
        """A new owner process: reconciled, and everything swept that can be."""
        supervision = Supervision(self.service, owner, drivers or SilentDrivers())
        supervision.pass_time(5.0)
        return supervision

    def names(self) -> set[str]:
        """Every folder and file below the storage's operations and models, relative to it."""
        return {
            path.relative_to(self.storage.root).as_posix()
            for part in ("operations", "models")
            for path in (self.storage.root / part).rglob("*")
        }


class SilentDrivers:
    """Drivers that live until they are killed, and do nothing."""

    def __init__(self, *alive: AttemptKey) -> None:
        self.alive = set(alive)
        self.killed: list[AttemptKey] = []

    def room(self) -> int:
        return 100

    def choose(self, key: AttemptKey) -> str:
        return driver_name(key)

    def launch(self, key: AttemptKey, name: str) -> None:
        assert name == driver_name(key)
        self.alive.add(key)

    def attach(self, named: Mapping[str, AttemptKey]) -> set[AttemptKey]:  # noqa: ARG002
        return set(self.alive)

    def lost(self, key: AttemptKey) -> Lost | None:
        return None if key in self.alive else Lost(FailureReason.DRIVER_LOST, "it ended")

    def pulse(self, key: AttemptKey) -> Heartbeat | None:  # noqa: ARG002
        return None

    def unplaced(self, key: AttemptKey) -> bool:  # noqa: ARG002
        return False

    def stacks(self, key: AttemptKey) -> str | None:
        raise AssertionError(f"{key} was asked what it does")

    def outside(self, key: AttemptKey) -> str:
        raise AssertionError(f"{key} was looked at from outside")

    def stop(self, key: AttemptKey, kind: StopKind) -> None:
        raise AssertionError(f"{key} was told to stop: {kind}")

    def kill(self, key: AttemptKey) -> None:
        self.alive.discard(key)
        self.killed.append(key)


@contextmanager
def opened(folder: Path, files: Files = DISK) -> Iterator[Bench]:
    """A bench with a store in memory and a storage, marked as the store's, below `folder`."""
    store = open_store("sqlite://")
    storage = Storage(folder / "storage", files)
    storage.claim(store.store_id())
    yield Bench(store, storage)
    store.close()


def header(operation: Operation, number: int, **changes: Any) -> Header:
    digest = hashlib.sha256(f"{operation.attempt} {number}".encode()).hexdigest()
    fields: dict[str, Any] = {
        "operation_id": operation.operation_id,
        "attempt": operation.attempt,
        "number": number,
        "epoch": number,
        "batch": 0,
        "checkpoint_type": CheckpointType.PERIODIC,
        "weights_digest": digest,
        "is_best": False,
        "created_at": WRITTEN,
    }
    return Header(**PROVENANCE.model_dump(), **(fields | changes))


def model_header(operation: Operation, version: int) -> ModelHeader:
    return ModelHeader(
        strategy_name=operation.request.strategy_name,
        version=version,
        operation_id=operation.operation_id,
        attempt=operation.attempt,
        weights_digest="ab" * 32,
        epochs=4,
        best_epoch=2,
        metrics={"test_loss": 0.5},
        input_names=["x"],
        class_names=["BUY", "HOLD", "SELL"],
        strategy_fingerprint="s" * 64,
        data_fingerprint="d" * 64,
        dataset_digest="f" * 64,
        environment={"torch": "2.13.0"},
        created_at=WRITTEN,
    )
