"""Submit an operation again with the same settings."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from ktrdr.errors import Usage
from ktrdr.operations.types import Operation
from ktrdr.storage.root import Storage
from ktrdr.usecases import submit
from ktrdr.usecases.submit import Choice


def choose(row: Operation, storage: Storage) -> Choice:
    """Choose what an operation trained, the same fold alone, to be trained from the beginning.

    The strategy's file is read again, as it is now, and so are the bars.

    Raises:
        StrategyNotFound, InvalidStrategy, DataNotFound, InvalidData: as for a first training.
        Usage: the strategy no longer has the fold.
    """
    fold, plan = row.request.fold, row.plan
    overrides = submit.TrainingOptions(**plan.overrides)
    paths = [Path(path) for path in (row.request.strategy_path, plan.strategy_given) if path]
    path = next((path for path in paths if path.is_file()), paths[0])
    choice = submit.choose(path, overrides, storage, only_fold=fold or 1)
    has_folds = choice.strategy.training.data_split.num_folds > 1
    if not choice.folds or has_folds != (fold is not None):
        raise Usage(
            f"the split of {path} was changed since {row.operation_id}, which trained"
            f" {f'fold {fold}' if fold else 'without folds'}: use `ktrdr train {path}`"
        )
    return replace(choice, strategy_given=plan.strategy_given) if path == paths[0] else choice
