"""The stores that the tests run on, and short forms of what they ask of them."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from multiprocessing.connection import Connection as PipeEnd
from pathlib import Path
from typing import Any

from postgres_server import schema
from sqlalchemy import text

from ktrdr.errors import KtrdrError
from ktrdr.operations.service import OperationsService
from ktrdr.operations.types import (
    CheckpointType,
    NewCheckpoint,
    Operation,
    Owner,
    OwnerKind,
    Plan,
    Request,
    Result,
    ResumedFrom,
    Resumption,
)
from ktrdr.store import SqlStore, open_store

FORK = multiprocessing.get_context("fork")
DEADLINE_S = 30.0
DIGEST = "ab" * 32
OWNER = Owner("owner-1", OwnerKind.EMBEDDED, "host", 4242, 1000.5)
WRITTEN = datetime(2026, 1, 2, 3, 4, 5, 600_000, tzinfo=UTC)


@dataclass
class Bench:
    """A service on a store, and short forms of what tests ask of it."""

    store: SqlStore
    service: OperationsService
    url: str

    def submit(self, request_id: str = "r-submit", owner: Owner = OWNER) -> Operation:
        return self.service.submit(request(), plan(), owner, request_id)

    def running(self, request_id: str = "r-submit", owner: Owner = OWNER) -> Operation:
        return self.service.start(self.submit(request_id, owner).operation_id, owner.id)

    def commit(self, operation: Operation, number: int, **changes: Any) -> int:
        """Commit a checkpoint and return its row's id."""
        new = checkpoint(operation, number, **changes)
        self.service.commit_checkpoint(operation.operation_id, operation.attempt, new)
        rows = self.service.checkpoints(operation.operation_id)
        return next(c.id for c in rows if c.key == (operation.attempt, number))

    def expire_lease(self, operation_id: str) -> None:
        """Move the lease into the past: what twenty seconds without an owner do."""
        change = "UPDATE operations SET lease_expires_at = '2000-01-01 00:00:00' WHERE"
        self.execute(f"{change} operation_id = '{operation_id}'")

    def execute(self, sql: str) -> None:
        with self.store._writer.begin() as connection:
            connection.execute(text(sql))


def request() -> Request:
    return Request("/w/demo.yaml", "demo", ("EURUSD", "GBPUSD"), ("5m",), None, None, 4, 42, 1)


def plan() -> Plan:
    return Plan(
        config={"name": "demo", "rate": 0.1},
        overrides={"epochs": 4},
        strategy_fingerprint="s" * 64,
        data_fingerprint="d" * 64,
        dataset_digest="f" * 64,
        spans=[{"symbol": "EURUSD", "timeframe": "5m", "first": 1, "last": 2, "rows": 2}],
        storage="/storage",
    )


def result() -> Result:
    return Result("/storage/models/demo/v1", DIGEST, 4, 2, {"test_loss": 0.1 + 0.2})


def checkpoint(operation: Operation, number: int, **changes: Any) -> NewCheckpoint:
    folder = f"operations/{operation.operation_id}/attempt-{operation.attempt:04d}"
    kind = CheckpointType.PERIODIC
    path = f"{folder}/checkpoint-{number:06d}"
    return replace(NewCheckpoint(number, path, 1, 5, kind, WRITTEN, 2**40, DIGEST), **changes)


def resumption(checkpoint_id: int, request_id: str, owner_id: str = "owner-2") -> Resumption:
    owner = Owner(owner_id, OwnerKind.EMBEDDED, "host", 4243, 1001.0)
    found = ResumedFrom(CheckpointType.PERIODIC, WRITTEN, 1, 5, False, ("torch 2.6 -> 2.13",))
    return Resumption(checkpoint_id, owner, request_id, found, plan())


STORES = ("memory", "sqlite", "postgres")
SHARED_STORES = ("sqlite", "postgres")
"""Those that several processes can open."""


@contextmanager
def database(name: str, folder: Path) -> Iterator[str]:
    """The URL of an empty database of that kind."""
    if name == "postgres":
        with schema() as url:
            yield url
    else:
        yield "sqlite://" if name == "memory" else f"sqlite:///{folder}/home/ktrdr.db"


@contextmanager
def opened(name: str, folder: Path) -> Iterator[Bench]:
    """Open a new store of that kind."""
    with database(name, folder) as url:
        store = open_store(url)
        try:
            yield Bench(store, OperationsService(store), url)
        finally:
            store.close()


def in_processes(n: int, work: Callable[[int], str]) -> list[str]:
    """Return what `work(0..n-1)` returned in as many processes started at once."""

    def child(pipe: PipeEnd, index: int) -> None:
        try:
            pipe.send(work(index))
        except KtrdrError as error:
            pipe.send(error.code)

    pairs = [FORK.Pipe(duplex=False) for _ in range(n)]
    processes = [FORK.Process(target=child, args=(p[1], i)) for i, p in enumerate(pairs)]
    for process in processes:
        process.start()
    answers = [p[0].recv() if p[0].poll(DEADLINE_S) else "no answer" for p in pairs]
    for process in processes:
        process.join(DEADLINE_S)
    return answers
