"""A training to be killed: says each batch that it is about to do, and saves all the time.

However slow the disk is, it does not go far before something beyond its start is durable.
Arguments: storage root, attempt, strategy.
"""

from __future__ import annotations

import sys
import threading
from pathlib import Path

from tiny_training import BATCHES, OPERATION, make_dataset, make_job

from ktrdr.operations.types import NewCheckpoint, StopKind
from ktrdr.storage.root import Storage
from ktrdr.strategy.schema import Strategy
from ktrdr.training.context import LocalContext
from ktrdr.training.resume import restore_from_checkpoint
from ktrdr.training.trainer import fit

DEADLINE_S = 60.0


class Talking(LocalContext):
    first: int | None = None
    wrote = threading.Event()
    moved_on = threading.Event()

    @property
    def stop_requested(self) -> StopKind | None:
        step = self.progress.step
        self.first = step if self.first is None else self.first
        # The writer takes one at a time: when the first is through, the next begins in a batch.
        for ahead, durable in ((50, self.wrote), (60, self.moved_on)):
            if step > self.first + ahead and not durable.wait(DEADLINE_S):
                raise TimeoutError("no checkpoint became durable")
        sys.stdout.write(f"{step}\n")
        sys.stdout.flush()
        return None

    def commit(self, checkpoint: NewCheckpoint) -> None:
        super().commit(checkpoint)
        self.wrote.set()
        if self.first is not None and checkpoint.epoch * BATCHES + checkpoint.batch > self.first:
            self.moved_on.set()


def main(root: str, attempt: str, strategy: str) -> None:
    config = Strategy.model_validate_json(strategy)
    dataset = make_dataset(regression=config.is_regression)
    context = Talking(Storage(Path(root)), OPERATION, int(attempt))
    latest = context.latest_checkpoint()
    resume = restore_from_checkpoint(latest) if latest else None
    fit(make_job(config, dataset), dataset, context, resume)


if __name__ == "__main__":
    main(*sys.argv[1:])
