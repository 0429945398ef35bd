"""When an interrupted training is stopped or killed: drawn at random, repeatable by a seed."""

from __future__ import annotations

import itertools
import random
from dataclasses import dataclass

from ktrdr.usecases.verify_resume.shared_counters import AttemptPlan, SharedCounters

_LONGEST_DELAY_S = 0.02
_CALLS_OF_A_SAVE = 20
"""About as many as change the disk from the temporary folder to the last superseded file."""


@dataclass(frozen=True)
class Stop:
    """Ask for a stop once `step` batches are done."""

    step: int

    @property
    def order(self) -> AttemptPlan:
        return AttemptPlan(stop_at=self.step)


@dataclass(frozen=True)
class Kill:
    """SIGKILL once `step` batches are done, and a little later.

    With `disk_calls`, wait further until the storage was changed that often from then on, which
    is in the middle of a save, but not past batch `until`.
    """

    step: int
    disk_calls: int
    until: int
    delay_s: float

    @property
    def order(self) -> AttemptPlan:
        return AttemptPlan(hold=True)


Interruption = Stop | Kill


@dataclass(frozen=True)
class Course:
    """What the interruptions are thrown at, as the straight training ran it."""

    steps: int
    """Batches of all epochs."""
    batches: int
    """Batches of one."""
    save_every: int
    """Epochs from one save to the next."""

    @property
    def saves(self) -> range:
        """The steps after which a save begins: the initial one, and those of the epochs."""
        return range(0, self.steps, self.save_every * self.batches)


def draw(seed: int, count: int, course: Course) -> list[Interruption]:
    """Interruptions in their order: kills at any time, stops, and kills in the middle of a save."""
    chosen = random.Random(seed)
    kinds = itertools.islice(itertools.cycle((_kill, _stop, _kill_in_a_save)), count)
    return sorted((kind(chosen, course) for kind in kinds), key=lambda drawn: drawn.step)


class Fuse:
    """Watches a board for the moment of a kill."""

    def __init__(self, kill: Kill, board: memoryview[int]) -> None:
        self._kill = kill
        self._board = board
        self._calls_before: int | None = None
        self.delay_s = kill.delay_s
        """To wait once it is burnt."""

    @property
    def burnt(self) -> bool:
        kill, board = self._kill, self._board
        if board[SharedCounters.HELD]:
            return True
        if board[SharedCounters.STEP] < kill.step:
            return False
        if self._calls_before is None:
            self._calls_before = board[SharedCounters.DISK_CALLS]
        saved = board[SharedCounters.DISK_CALLS] - self._calls_before
        return saved >= kill.disk_calls or board[SharedCounters.STEP] >= kill.until


def _stop(chosen: random.Random, course: Course) -> Interruption:
    return Stop(chosen.randrange(course.steps))


def _kill(chosen: random.Random, course: Course) -> Interruption:
    step = chosen.randrange(course.steps)
    return Kill(step, disk_calls=0, until=step, delay_s=chosen.uniform(0, _LONGEST_DELAY_S))


def _kill_in_a_save(chosen: random.Random, course: Course) -> Interruption:
    save = chosen.choice(course.saves)
    return Kill(
        step=max(0, save - 1),  # a board shows the batch before: the save comes before the next
        disk_calls=chosen.randint(1, _CALLS_OF_A_SAVE),
        until=min(course.steps, save + course.batches),
        delay_s=chosen.uniform(0, _LONGEST_DELAY_S / 10),
    )
