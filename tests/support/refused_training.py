"""A training whose every checkpoint the operating system refuses: no file may pass 1 KiB.

Argument: storage root. Says what came of it.
"""

from __future__ import annotations

import json
import resource
import sys
from pathlib import Path

from tiny_training import OPERATION, make_dataset, make_job, make_strategy, outcome

from ktrdr.storage.root import Storage
from ktrdr.training import trainer
from ktrdr.training.checkpoint_writer import CheckpointWriter
from ktrdr.training.context import LocalContext
from ktrdr.training.learner import Learner
from ktrdr.training.trainer import Completed, fit


def main(root: str) -> None:
    save = trainer._save

    def settled(learner: Learner, writer: CheckpointWriter) -> None:
        writer.settle()
        save(learner, writer)

    trainer._save = settled
    strategy = make_strategy(checkpoint={"every_epochs": 1, "every_seconds": 300})
    context = LocalContext(Storage(Path(root)), OPERATION, 1)
    dataset = make_dataset()
    job = make_job(strategy, dataset)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1024, resource.RLIM_INFINITY))
    result = fit(job, dataset, context)
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
    assert isinstance(result, Completed)
    json.dump(
        {"outcome": outcome(result), "warnings": [said.message for said in context.warnings]},
        sys.stdout,
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
