"""The parent of a rehearsal: trains straight, then interrupted, in children, and compares.

Everything happens below a temporary folder that goes when the rehearsal is over, however it ends.
Only the features cache of the user's storage is read and, where it lacks them, filled.
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
from ktrdr.usecases.verify_resume.interruptions import Course, Fuse, Interruption, Kill, draw
from ktrdr.usecases.verify_resume.shared_counters import (
    OPERATION_ID,
    AttemptPlan,
    SharedCounters,
    Training,
    board_path,
    errors_path,
    has_outcome,
    open_board,
    read_training,
    write_job,
)

PROGRAM = (sys.executable, "-P", "-m", "ktrdr.usecases.verify_resume.attempt")
STRAIGHT, INTERRUPTED = "straight", "interrupted"

_POLL_S = 0.0005
_SHOW_EVERY_S = 0.1
_STALLED_S = 600.0


class RehearsalFailed(KtrdrError):
    """One of the trainings failed, so that there is nothing to compare."""

    code = "REHEARSAL_FAILED"


@dataclass(frozen=True)
class Hit:
    """An interruption as it happened: after `epoch` whole epochs and `batch` batches."""

    kind: str
    """`stop` or `kill`."""
    epoch: int
    batch: int
    saving: bool
    """Whether it left a checkpoint half written or half removed."""


@dataclass(frozen=True)
class Rehearsal:
    """What came out; equal when there is no first difference."""

    seed: int
    """Of the random choices."""
    epochs: int
    interruptions: tuple[Hit, ...]
    first_difference: StateDifference | None
    digests: dict[str, str]
    """Of the final weights, by training."""

    @property
    def equal(self) -> bool:
        return self.first_difference is None

    def document(self) -> dict[str, Any]:
        return {"equal": self.equal, **asdict(self)}


@dataclass(frozen=True)
class Glance:
    """Where a rehearsal stands."""

    training: str
    attempt: int
    epoch: int
    epochs: int


@dataclass(frozen=True)
class Audience:
    """Who follows a rehearsal; `show` is called all the time and may raise to end it."""

    show: Callable[[Glance], None]
    say: Callable[[str], None]


def rehearse(request: Request, plan: Plan, kills: int, seed: int, audience: Audience) -> Rehearsal:
    """Train what `submitting.prepare` made twice, the second time with `kills` interruptions.

    Raises:
        RehearsalFailed: a training failed. StorageUnavailable: the temporary folder's disk
        refuses. And whatever the audience raises.
    """
    with _temporary_folder() as temporary:
        folders = {training: temporary / training for training in (STRAIGHT, INTERRUPTED)}
        for folder in folders.values():
            _set_up(folder, request, plan)
        again = [(folders[INTERRUPTED], number) for number in range(1, kills + 2)]
        with _children([(folders[STRAIGHT], 1), *again]) as children:
            stage = _Stage(children, audience)
            straight, steps, batches = stage.straight()
            every_epochs = plan.config["training"]["checkpoint"]["every_epochs"]
            course = Course(steps, batches, every_epochs)
            hits, interrupted = stage.interrupted(draw(seed, kills, course))
    return Rehearsal(
        seed=seed,
        epochs=straight.outcome["epochs"],
        interruptions=tuple(hits),
        first_difference=first_difference(straight, interrupted),
        digests={
            STRAIGHT: straight.outcome["weights_digest"],
            INTERRUPTED: interrupted.outcome["weights_digest"],
        },
    )


class _Stage:
    """Where the children play, one after the other."""

    def __init__(self, children: Iterator[_Child], audience: Audience) -> None:
        self._children = children
        self._audience = audience
        self._said: set[str] = set()

    def straight(self) -> tuple[Training, int, int]:
        """The undisturbed training, and its batches: in all, and of an epoch."""
        child = next(self._children)
        self._play(child, AttemptPlan())
        return (
            read_training(child.folder, 1),
            child.board[SharedCounters.STEP],
            child.board[SharedCounters.BATCHES],
        )

    def interrupted(self, interruptions: list[Interruption]) -> tuple[list[Hit], Training]:
        """The same one, interrupted, gone on with, and at last brought to its end."""
        hits: list[Hit] = []
        for interruption in interruptions:
            child = next(self._children)
            fuse = Fuse(interruption, child.board) if isinstance(interruption, Kill) else None
            self._play(child, interruption.order, fuse)
            if has_outcome(child.folder):  # it differs: what the straight one does takes longer
                return hits, read_training(child.folder, child.number)
            hits.append(child.hit("kill" if fuse else "stop"))
            self._audience.say(describe(hits[-1]))
        child = next(self._children)
        self._play(child, AttemptPlan())
        return hits, read_training(child.folder, child.number)

    def _play(self, child: _Child, order: AttemptPlan, fuse: Fuse | None = None) -> None:
        """Follow a child to its end, or to its kill."""
        child.give(order)
        show_at = 0.0
        while child.alive and not (fuse and fuse.burnt):
            if time.monotonic() >= show_at:
                self._audience.show(child.glance())
                child.check_that_it_moves()
                show_at = time.monotonic() + _SHOW_EVERY_S
            time.sleep(_POLL_S)
        if fuse and child.alive:
            time.sleep(fuse.delay_s)
            child.kill()
        self._report(child, killed=fuse is not None)

    def _report(self, child: _Child, killed: bool) -> None:
        complaints = child.complaints()
        if child.wait() != (-signal.SIGKILL if killed else 0):
            why = complaints[-1] if complaints else f"exit status {child.wait()}"
            raise RehearsalFailed(f"{child} failed: {why}")
        for line in complaints:
            if line not in self._said:
                self._said.add(line)
                self._audience.say(line)


class _Child:
    """A process that gets ready at once, and trains when it is told how far."""

    def __init__(self, folder: Path, number: int) -> None:
        self.folder = folder
        self.number = number
        self.board = open_board(board_path(folder, number))
        self._seen = bytes(self.board)
        self._moved_at = time.monotonic()
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

    def check_that_it_moves(self) -> None:
        """Raise RehearsalFailed when nothing on its board has changed for very long."""
        before, self._seen = self._seen, bytes(self.board)
        now = time.monotonic()
        if self._seen != before:
            self._moved_at = now
        elif now - self._moved_at > _STALLED_S:
            raise RehearsalFailed(f"{self} has not moved for {_STALLED_S:.0f} s")

    def give(self, order: AttemptPlan) -> None:
        self._moved_at = time.monotonic()
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it failed already: its exit status says so
            self._process.stdin.write(f"{json.dumps(asdict(order))}\n".encode())
            self._process.stdin.flush()

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def wait(self) -> int:
        return self._process.wait()

    def end(self) -> None:
        """Leave nothing of it, whatever it is doing."""
        self.kill()
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()

    def complaints(self) -> list[str]:
        text = errors_path(self.folder, self.number).read_text(encoding="utf-8", errors="replace")
        return [line for line in text.splitlines() if line.strip()]

    def glance(self) -> Glance:
        epoch, _ = self._position()
        return Glance(self.folder.name, self.number, epoch, self.board[SharedCounters.EPOCHS])

    def hit(self, kind: str) -> Hit:
        epoch, batch = self._position()
        attempt = attempt_folder(Storage(self.folder / "storage"), OPERATION_ID, self.number)
        names = [path.name for path in attempt.iterdir()] if attempt.is_dir() else []
        hidden = any(name.startswith(".") for name in names)  # until whole, and once doomed
        return Hit(kind, epoch, batch, saving=hidden)

    def _position(self) -> tuple[int, int]:
        return divmod(self.board[SharedCounters.STEP], max(1, self.board[SharedCounters.BATCHES]))


@contextlib.contextmanager
def _children(places: Sequence[tuple[Path, int]]) -> Iterator[Iterator[_Child]]:
    """Children for these (folder, number); while one trains, the next one gets ready.

    None of them outlives the block.
    """
    with contextlib.ExitStack() as started:

        def start() -> Iterator[_Child]:
            ready: list[_Child] = []
            for folder, number in places:
                ready.append(_Child(folder, number))
                started.callback(ready[-1].end)
                if len(ready) > 1:
                    yield ready.pop(0)
            yield from ready

        yield start()


@contextlib.contextmanager
def _temporary_folder() -> Iterator[Path]:
    """Where everything happens; StorageUnavailable when the disk there refuses."""
    with (
        io_errors("rehearse in", Path(tempfile.gettempdir())),
        tempfile.TemporaryDirectory(prefix="ktrdr-verify-resume-") as name,
    ):
        yield Path(name)


def _set_up(folder: Path, request: Request, plan: Plan) -> None:
    folder.mkdir()
    Storage(folder / "storage").claim("rehearsal")
    write_job(folder, request, plan)


def describe(hit: Hit) -> str:
    """A hit in a few words."""
    where = f"{hit.kind} after epoch {hit.epoch}, batch {hit.batch}"
    return f"{where}, in the middle of a save" if hit.saving else where
