"""Train again what an operation trained, with the same settings, from the beginning."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from ktrdr.errors import Usage
from ktrdr.operations.types import Operation, Plan, Request
from ktrdr.storage.root import Storage
from ktrdr.usecases import submit


def prepare(
    row: Operation, storage: Storage, cache_bytes: int | None = None
) -> tuple[Request, Plan]:
    """Return the request and plan of a new operation like `row`, of the same fold alone.

    The strategy's file is read again, as it is now, and so are the bars.

    Raises:
        StrategyNotFound, InvalidStrategy, DataNotFound, InvalidData: as for a first training.
        Usage: the strategy no longer has the fold.
    """
    fold, plan = row.request.fold, row.plan
    overrides = submit.Overrides(**plan.overrides)
    places = [Path(place) for place in (row.request.strategy_path, plan.strategy_given) if place]
    path = next((place for place in places if place.is_file()), places[0])
    found = submit.prepare(path, overrides, storage, cache_bytes, only_fold=fold or 1)
    if not found or found[0][0].fold != fold:
        raise Usage(
            f"the split of {path} was changed since {row.operation_id}, which trained"
            f" {f'fold {fold}' if fold else 'without folds'}: use `ktrdr train {path}`"
        )
    [(request, new_plan)] = found
    if path == places[0]:
        new_plan = replace(new_plan, strategy_given=plan.strategy_given)
    return request, new_plan
