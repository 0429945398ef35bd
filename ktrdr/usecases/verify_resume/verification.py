"""Train straight and interrupted, in child processes, and compare.

Everything happens below a temporary folder that is removed at the end, however that comes.
Of the user's storage only the cached features are read and, where missing, added.
"""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ktrdr.checkpoints.layout import attempt_folder
from ktrdr.errors import KtrdrError
from ktrdr.operations.types import Plan, Request
from ktrdr.storage.posix import io_errors
from ktrdr.storage.root import Storage
from ktrdr.usecases.verify_resume.comparison import StateDifference, first_difference
from ktrdr.usecases.verify_resume.interruptions import (
    Extent,
    Interruption,
    KillTrigger,
    PlannedKill,
    sample,
)
from ktrdr.usecases.verify_resume.shared_counters import (
    OPERATION_ID,
    AttemptPlan,
    SharedCounters,
    TrainingRecord,
    counters_path,
    errors_path,
    has_outcome,
    open_counters,
    read_training,
    write_job,
)

PROGRAM = (sys.executable, "-P", "-m", "ktrdr.usecases.verify_resume.attempt")
STRAIGHT, INTERRUPTED = "straight", "interrupted"

_POLL_S = 0.0005
_SHOW_EVERY_S = 0.1
_STALLED_S = 600.0


class VerificationFailed(KtrdrError):
    """One of the trainings failed: there is nothing to compare."""

    code = "VERIFICATION_FAILED"


@dataclass(frozen=True)
class PastInterruption:
    """An interruption as it happened: after `epoch` whole epochs and `batch` batches."""

    kind: str
    """`stop` or `kill`."""
    epoch: int
    batch: int
    saving: bool
    """Whether it left a checkpoint half written or half removed."""


@dataclass(frozen=True)
class Verification:
    """The result; equal when there is no first difference."""

    seed: int
    """Of the sampled interruptions."""
    epochs: int
    interruptions: tuple[PastInterruption, ...]
    first_difference: StateDifference | None
    digests: dict[str, str]
    """Of the final weights, by training."""

    @property
    def equal(self) -> bool:
        return self.first_difference is None

    def document(self) -> dict[str, Any]:
        return {"equal": self.equal, **asdict(self)}


@dataclass(frozen=True)
class VerificationProgress:
    """The position of the attempt that runs."""

    training: str
    attempt: int
    epoch: int
    epochs: int


@dataclass(frozen=True)
class Observer:
    """Callbacks: `show` is called many times a second, and may raise to end all."""

    show: Callable[[VerificationProgress], None]
    say: Callable[[str], None]


def verify(request: Request, plan: Plan, kills: int, seed: int, observer: Observer) -> Verification:
    """Train what `submit.prepare` made twice, the second time with `kills` interruptions.

    Raises:
        VerificationFailed: a training failed. StorageUnavailable: the temporary folder's disk
        refuses. And whatever the observer raises.
    """
    with _temporary_folder() as temporary:
        folders = {training: temporary / training for training in (STRAIGHT, INTERRUPTED)}
        for folder in folders.values():
            _set_up(folder, request, plan)
        again = [(folders[INTERRUPTED], number) for number in range(1, kills + 2)]
        with _children([(folders[STRAIGHT], 1), *again]) as children:
            runner = _Runner(children, observer)
            straight, steps, batches = runner.straight()
            every_epochs = plan.config["training"]["checkpoint"]["every_epochs"]
            extent = Extent(steps, batches, every_epochs)
            interruptions, interrupted = runner.interrupted(sample(seed, kills, extent))
    return Verification(
        seed=seed,
        epochs=straight.outcome["epochs"],
        interruptions=tuple(interruptions),
        first_difference=first_difference(straight, interrupted),
        digests={
            STRAIGHT: straight.outcome["weights_digest"],
            INTERRUPTED: interrupted.outcome["weights_digest"],
        },
    )


class _Runner:
    """Runs the child processes in turn."""

    def __init__(self, children: Iterator[_Child], observer: Observer) -> None:
        self._children = children
        self._observer = observer
        self._said: set[str] = set()

    def straight(self) -> tuple[TrainingRecord, int, int]:
        """Return the straight training, and its batches: in all, and of an epoch."""
        child = next(self._children)
        self._follow(child, AttemptPlan())
        return (
            read_training(child.folder, 1),
            child.counters[SharedCounters.STEP],
            child.counters[SharedCounters.BATCHES],
        )

    def interrupted(
        self, planned: list[Interruption]
    ) -> tuple[list[PastInterruption], TrainingRecord]:
        """Return the interruptions as they happened, and the training resumed after each."""
        past: list[PastInterruption] = []
        for interruption in planned:
            child = next(self._children)
            trigger = (
                KillTrigger(interruption, child.counters)
                if isinstance(interruption, PlannedKill)
                else None
            )
            self._follow(child, interruption.plan, trigger)
            if has_outcome(child.folder):  # it differs: what the straight one does takes longer
                return past, read_training(child.folder, child.number)
            past.append(child.interruption("kill" if trigger else "stop"))
            self._observer.say(describe(past[-1]))
        child = next(self._children)
        self._follow(child, AttemptPlan())
        return past, read_training(child.folder, child.number)

    def _follow(self, child: _Child, plan: AttemptPlan, trigger: KillTrigger | None = None) -> None:
        """Follow a child to its end, or kill it when that is due."""
        child.start(plan)
        show_at = 0.0
        while child.alive and not (trigger and trigger.due):
            if time.monotonic() >= show_at:
                self._observer.show(child.progress())
                child.check_progress()
                show_at = time.monotonic() + _SHOW_EVERY_S
            time.sleep(_POLL_S)
        if trigger and child.alive:
            time.sleep(trigger.delay_s)
            child.kill()
        self._report(child, killed=trigger is not None)

    def _report(self, child: _Child, killed: bool) -> None:
        errors = child.errors()
        if child.wait() != (-signal.SIGKILL if killed else 0):
            why = errors[-1] if errors else f"exit status {child.wait()}"
            raise VerificationFailed(f"{child} failed: {why}")
        for line in errors:
            if line not in self._said:
                self._said.add(line)
                self._observer.say(line)


class _Child:
    """A process that loads everything at once, and trains when it is given its plan."""

    def __init__(self, folder: Path, number: int) -> None:
        self.folder = folder
        self.number = number
        self.counters = open_counters(counters_path(folder, number))
        self._seen = bytes(self.counters)
        self._progress_at = time.monotonic()
        with errors_path(folder, number).open("wb") as errors:
            self._process = subprocess.Popen(
                [*PROGRAM, str(folder), str(number)],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=errors,
                start_new_session=True,  # a Ctrl-C is for the parent, which ends its children
            )

    def __str__(self) -> str:
        return f"attempt {self.number} of the {self.folder.name} training"

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def check_progress(self) -> None:
        """Raise VerificationFailed when its counters have not changed for very long."""
        before, self._seen = self._seen, bytes(self.counters)
        now = time.monotonic()
        if self._seen != before:
            self._progress_at = now
        elif now - self._progress_at > _STALLED_S:
            raise VerificationFailed(f"{self} has made no progress for {_STALLED_S:.0f} s")

    def start(self, plan: AttemptPlan) -> None:
        self._progress_at = time.monotonic()
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it failed already: its exit status says so
            self._process.stdin.write(f"{json.dumps(asdict(plan))}\n".encode())
            self._process.stdin.flush()

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def wait(self) -> int:
        return self._process.wait()

    def end(self) -> None:
        """End the process, whatever it is doing."""
        self.kill()
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()

    def errors(self) -> list[str]:
        text = errors_path(self.folder, self.number).read_text(encoding="utf-8", errors="replace")
        return [line for line in text.splitlines() if line.strip()]

    def progress(self) -> VerificationProgress:
        epoch, _ = self._position()
        return VerificationProgress(
            self.folder.name, self.number, epoch, self.counters[SharedCounters.EPOCHS]
        )

    def interruption(self, kind: str) -> PastInterruption:
        epoch, batch = self._position()
        attempt = attempt_folder(Storage(self.folder / "storage"), OPERATION_ID, self.number)
        names = [path.name for path in attempt.iterdir()] if attempt.is_dir() else []
        hidden = any(name.startswith(".") for name in names)  # until whole, and once doomed
        return PastInterruption(kind, epoch, batch, saving=hidden)

    def _position(self) -> tuple[int, int]:
        return divmod(
            self.counters[SharedCounters.STEP], max(1, self.counters[SharedCounters.BATCHES])
        )


@contextlib.contextmanager
def _children(numbers: Sequence[tuple[Path, int]]) -> Iterator[Iterator[_Child]]:
    """Start children for these (folder, number); while one trains, the next one loads.

    None of them outlives the block.
    """
    with contextlib.ExitStack() as started:

        def start() -> Iterator[_Child]:
            ready: list[_Child] = []
            for folder, number in numbers:
                ready.append(_Child(folder, number))
                started.callback(ready[-1].end)
                if len(ready) > 1:
                    yield ready.pop(0)
            yield from ready

        yield start()


@contextlib.contextmanager
def _temporary_folder() -> Iterator[Path]:
    """Make the folder for everything; StorageUnavailable when its disk refuses."""
    with (
        io_errors("train in", Path(tempfile.gettempdir())),
        tempfile.TemporaryDirectory(prefix="ktrdr-verify-resume-") as name,
    ):
        yield Path(name)


def _set_up(folder: Path, request: Request, plan: Plan) -> None:
    folder.mkdir()
    Storage(folder / "storage").claim("verify-resume")
    write_job(folder, request, plan)


def describe(interruption: PastInterruption) -> str:
    """Describe an interruption in a few words."""
    where = f"{interruption.kind} after epoch {interruption.epoch}, batch {interruption.batch}"
    return f"{where}, in the middle of a save" if interruption.saving else where
