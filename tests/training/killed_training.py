"""A training to be killed: says each batch that it is about to do, and saves all the time.

Arguments: storage root, attempt.
"""

from __future__ import annotations

import sys
from pathlib import Path

from tiny_training import OPERATION, make_dataset, make_job

from ktrdr.checkpoints.storage import Storage
from ktrdr.operations.model import StopKind
from ktrdr.strategy.schema import Strategy
from ktrdr.training.context import LocalContext
from ktrdr.training.resume import restore_from_checkpoint
from ktrdr.training.trainer import fit


class Talking(LocalContext):
    @property
    def stop_requested(self) -> StopKind | None:
        sys.stdout.write(f"{self.progress.step}\n")
        sys.stdout.flush()
        return None


def main(root: str, attempt: str, strategy: str) -> None:
    config = Strategy.model_validate_json(strategy)
    dataset = make_dataset(regression=config.is_regression)
    context = Talking(Storage(Path(root)), OPERATION, int(attempt))
    latest = context.latest_checkpoint()
    resume = restore_from_checkpoint(latest) if latest else None
    fit(make_job(config, dataset), dataset, context, resume)


if __name__ == "__main__":
    main(*sys.argv[1:])
