"""The stops and kills of an interrupted training, sampled at random from a seed."""

from __future__ import annotations

import itertools
import random
from dataclasses import dataclass

from ktrdr.usecases.verify_resume.shared_counters import AttemptPlan, SharedCounters

_LONGEST_DELAY_S = 0.02
_CALLS_OF_A_SAVE = 20
"""About as many as change the disk from the temporary folder to the last superseded file."""


@dataclass(frozen=True)
class PlannedStop:
    """Ask for a stop once `step` batches are done."""

    step: int

    @property
    def plan(self) -> AttemptPlan:
        return AttemptPlan(stop_at=self.step)


@dataclass(frozen=True)
class PlannedKill:
    """SIGKILL once `step` batches are done, and a little later.

    With `disk_calls`, wait further until the storage was changed that often from then on, which
    is in the middle of a save, but not past batch `until`.
    """

    step: int
    disk_calls: int
    until: int
    delay_s: float

    @property
    def plan(self) -> AttemptPlan:
        return AttemptPlan(hold=True)


Interruption = PlannedStop | PlannedKill


@dataclass(frozen=True)
class Extent:
    """How long the straight training was."""

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


def sample(seed: int, count: int, extent: Extent) -> list[Interruption]:
    """Return interruptions in their order: kills, stops, and kills in the middle of a save."""
    chosen = random.Random(seed)
    kinds = itertools.islice(itertools.cycle((_kill, _stop, _kill_in_a_save)), count)
    return sorted(
        (kind(chosen, extent) for kind in kinds), key=lambda interruption: interruption.step
    )


class KillTrigger:
    """Tells from the counters of a training when it is to be killed."""

    def __init__(self, kill: PlannedKill, counters: memoryview[int]) -> None:
        self._kill = kill
        self._counters = counters
        self._calls_before: int | None = None
        self.delay_s = kill.delay_s
        """Time to wait once it is due."""

    @property
    def due(self) -> bool:
        kill, counters = self._kill, self._counters
        if counters[SharedCounters.HELD]:
            return True
        if counters[SharedCounters.STEP] < kill.step:
            return False
        if self._calls_before is None:
            self._calls_before = counters[SharedCounters.DISK_CALLS]
        saved = counters[SharedCounters.DISK_CALLS] - self._calls_before
        return saved >= kill.disk_calls or counters[SharedCounters.STEP] >= kill.until


def _stop(chosen: random.Random, extent: Extent) -> Interruption:
    return PlannedStop(chosen.randrange(extent.steps))


def _kill(chosen: random.Random, extent: Extent) -> Interruption:
    step = chosen.randrange(extent.steps)
    return PlannedKill(step, disk_calls=0, until=step, delay_s=chosen.uniform(0, _LONGEST_DELAY_S))


def _kill_in_a_save(chosen: random.Random, extent: Extent) -> Interruption:
    save = chosen.choice(extent.saves)
    return PlannedKill(
        step=max(0, save - 1),  # the counter is one behind: the save comes before the next batch
        disk_calls=chosen.randint(1, _CALLS_OF_A_SAVE),
        until=min(extent.steps, save + extent.batches),
        delay_s=chosen.uniform(0, _LONGEST_DELAY_S / 10),
    )
