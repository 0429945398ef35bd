"""A supervisor on the real service, drivers that do as a test says, and a clock that it moves."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from sqlalchemy import text

from ktrdr.driver.heartbeat import Heartbeat
from ktrdr.driver.names import AttemptKey, driver_name
from ktrdr.operations.service import OperationsService
from ktrdr.operations.types import (
    CheckpointType,
    FailureReason,
    NewCheckpoint,
    Operation,
    Owner,
    OwnerKind,
    Phase,
    Plan,
    Progress,
    Report,
    Request,
    Result,
    ResumedFrom,
    Resumption,
    StopKind,
)
from ktrdr.storage.root import Storage
from ktrdr.store import SqlStore, open_store
from ktrdr.supervisor.drivers import Drivers, Lost
from ktrdr.supervisor.liveness import LivenessLimits
from ktrdr.supervisor.supervisor import Supervisor
from ktrdr.supervisor.sweeper import StorageWorker

OWNER = Owner("owner-1", OwnerKind.EMBEDDED, "host", 4242, 1000.5)
STRANGER = Owner("owner-2", OwnerKind.EMBEDDED, "host", 4243, 1001.5)
LIMITS = LivenessLimits(training_s=60.0, otherwise_s=300.0)
BATCHES = 10
TICKS = 5
"""In every step of time: what storage answers is seen by a later tick."""


class Supervision:
    """A supervisor without threads: its storage work is done after each of its ticks."""

    def __init__(
        self,
        service: OperationsService,
        owner: Owner,
        drivers: Drivers,
        limits: LivenessLimits | None = None,
    ) -> None:
        self.now = 1000.0
        self.storage = StorageWorker(service, clock=lambda: self.now)
        self.storage_answers = True
        self.supervisor = Supervisor(
            service, owner, drivers, self.storage, limits=limits, clock=lambda: self.now
        )
        self.supervisor.reconcile()

    def pass_time(self, seconds: float) -> None:
        """Let time pass in ticks."""
        for _ in range(TICKS):
            self.now += seconds / TICKS
            self.supervisor.tick()
            while self.storage_answers and self.storage.run_next():
                pass


@dataclass
class ScriptedDrivers:
    """Every driver that is launched lives until it is killed, and answers or not."""

    alive: set[AttemptKey] = field(default_factory=set)
    cpus: int = 100
    """Each driver that lives has one, or waits for one that is not there."""
    pulses: dict[AttemptKey, Heartbeat] = field(default_factory=dict)
    """Of those that answer, at every look."""
    without_place: set[AttemptKey] = field(default_factory=set)
    undying: set[AttemptKey] = field(default_factory=set)
    threads: str | None = None
    reason: FailureReason = FailureReason.DRIVER_LOST
    """Of those that die."""
    broken: set[str] = field(default_factory=set)
    """Operations whose drivers nobody can reach without an error."""
    chosen: int = 0
    names: dict[AttemptKey, str] = field(default_factory=dict)
    launched: list[AttemptKey] = field(default_factory=list)
    stopped: list[tuple[AttemptKey, StopKind]] = field(default_factory=list)
    killed: list[AttemptKey] = field(default_factory=list)

    def room(self) -> int:
        return self.cpus - len(self.alive)

    def choose(self, key: AttemptKey) -> str:
        self.chosen += 1
        return f"{driver_name(key)}, choice {self.chosen}"

    def launch(self, key: AttemptKey, name: str) -> None:
        self.names[key] = name
        self.launched.append(key)
        self.alive.add(key)

    def attach(self, named: Mapping[str, AttemptKey]) -> set[AttemptKey]:
        for key in tuple(self.alive):
            if self.names[key] not in named:
                self.kill(key)
        return set(self.alive)

    def lost(self, key: AttemptKey) -> Lost | None:
        if key[0] in self.broken:
            raise RuntimeError("out of order")
        return None if key in self.alive else Lost(self.reason, "it died")

    def pulse(self, key: AttemptKey) -> Heartbeat | None:
        return self.pulses.get(key)

    def unplaced(self, key: AttemptKey) -> bool:
        return key in self.without_place

    def stop(self, key: AttemptKey, kind: StopKind) -> None:
        self.stopped.append((key, kind))

    def stacks(self, key: AttemptKey) -> str | None:  # noqa: ARG002
        return self.threads

    def outside(self, key: AttemptKey) -> str:
        return f"{key[0]} does not answer"

    def kill(self, key: AttemptKey) -> None:
        self.killed.append(key)
        if key not in self.undying:
            self.alive.discard(key)


class World:
    """One owner with its operations, its drivers and its clock."""

    def __init__(self, store: SqlStore, storage: Storage) -> None:
        self.store = store
        self.storage = storage
        self.service = OperationsService(store)
        self.drivers = ScriptedDrivers()
        self.restart()

    def restart(self) -> None:
        """The operations actor dies and comes back."""
        self.supervision = Supervision(self.service, OWNER, self.drivers, LIMITS)

    def run(self, seconds: float = 0.0) -> None:
        """Let time pass, or just look."""
        step = 0.5 if seconds < 100 else 1.0
        for _ in range(max(1, round(seconds / step))):
            self.supervision.pass_time(min(step, seconds))

    def submit(self, request_id: str = "r") -> str:
        request = Request("/w/demo.yaml", "demo", ("EURUSD",), ("5m",), None, None, 40, 42, 1)
        digest = "f" * 64
        plan = Plan(
            {"name": "demo"}, {}, digest, digest, digest, [],
            str(self.storage.root),
        )  # fmt: skip
        return self.service.submit(request, plan, OWNER, request_id).operation_id

    def running(self, request_id: str = "r") -> AttemptKey:
        """An operation whose driver has begun and answers."""
        name = self.submit(request_id)
        self.run()
        key = (name, self.row(name).attempt)
        self.answer(key, Phase.PREPARING_DATA)
        self.report(key, 1, Phase.PREPARING_DATA)
        self.run()
        return key

    def training(self, request_id: str = "r", batch_s: float = 0.5) -> AttemptKey:
        """One that is in its second epoch."""
        key = self.running(request_id)
        self.train(key, range(BATCHES + 2), batch_s)
        return key

    def train(self, key: AttemptKey, steps: range, batch_s: float) -> None:
        for step in steps:
            self.answer(key, Phase.TRAINING, step)
            self.run(batch_s)

    def answer(self, key: AttemptKey, phase: Phase, step: int = 0) -> None:
        self.drivers.pulses[key] = Heartbeat("host", 7, 1.0, phase, step, BATCHES)

    def report(self, key: AttemptKey, sequence: int, phase: Phase) -> None:
        self.service.report(*key, Report(sequence, phase, Progress(0, 40, 3, 10, 1.0, None)))

    def commit(self, key: AttemptKey) -> None:
        path = f"operations/{key[0]}/attempt-{key[1]:04d}/checkpoint-000001"
        at = self.service.now()
        kind = CheckpointType.PERIODIC
        new = NewCheckpoint(1, path, 1, 0, kind, at, 100, "ab" * 32)
        self.service.commit_checkpoint(*key, new)

    def complete(self, key: AttemptKey) -> None:
        model = self.service.reserve_model(*key)
        result = Result("/storage/models/demo/v1", "ab" * 32, 4, 2, {})
        self.service.finish_completed(*key, result, (model.strategy_name, model.version))

    def cancel(self, name: str, request_id: str = "r-cancel") -> None:
        self.service.request_cancel(name, self.row(name).attempt, request_id)

    def take_over(self, key: AttemptKey) -> None:
        """Another process resumes it after the lease has expired."""
        self.execute("UPDATE operations SET lease_expires_at = '2000-01-01 00:00:00'")
        chosen = self.service.latest_checkpoint(key[0])
        assert chosen is not None
        source = ResumedFrom(chosen.checkpoint_type, chosen.created_at, 1, 0, True)
        plan = self.row(key[0]).plan
        resumption = Resumption(chosen.id, STRANGER, "r-resume", source, plan)
        self.service.try_resume(*key, resumption)

    def row(self, name: str) -> Operation:
        return self.service.get(name)

    def events(self, name: str) -> list[str]:
        return [event.event for event in self.service.events(name)]

    def last_message(self, name: str) -> str:
        losses = [e for e in self.service.events(name) if e.event == "attempt_lost"]
        return str(losses[-1].details["message"])

    def execute(self, sql: str) -> None:
        with self.store._writer.begin() as connection:
            connection.execute(text(sql))


@contextmanager
def opened(folder: Path) -> Iterator[World]:
    """Make a world whose storage is below `folder`."""
    store = open_store("sqlite://")
    storage = Storage(folder / "storage")
    storage.claim(store.store_id())
    yield World(store, storage)
    store.close()
