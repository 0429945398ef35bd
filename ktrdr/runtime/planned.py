"""What a plan trains on, and what its checkpoints say of it: all that needs neither row nor Ray."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from ktrdr.checkpoints.manifest import Provenance
from ktrdr.data.bars import Bars, fingerprint, format_us
from ktrdr.data.store import BarStore
from ktrdr.errors import DataChanged, DataNotFound
from ktrdr.features.cache import cached_dataset
from ktrdr.features.dataset import Dataset
from ktrdr.operations.model import Plan, Request
from ktrdr.strategy.schema import Strategy
from ktrdr.training.environment import environment
from ktrdr.training.trainer import TrainingJob

DEVICE, WORKERS, THREADS = "cpu", 1, 1


def planned_dataset(request: Request, plan: Plan, strategy: Strategy) -> Dataset:
    """The very rows that the operation was submitted with.

    Raises:
        DataNotFound, DataChanged: they are not there any more.
    """
    root = Path(plan.storage)
    bars = BarStore(root).read(request.symbols[0], request.timeframes[0])
    bars = bars.between(plan.span["first"], plan.span["last"])
    if fingerprint(bars) != plan.data_fingerprint:
        raise _revised(bars, plan)
    dataset = cached_dataset(root, strategy, bars)
    if dataset.digest != plan.dataset_digest:
        raise DataChanged(
            f"the same bars of {bars.symbol} {bars.timeframe} and the same strategy give other"
            " features or labels than when the operation began: resume with the versions of ktrdr"
            " and its libraries that it began with, or train anew",
            symbol=bars.symbol,
            timeframe=bars.timeframe,
        )
    return dataset


def planned_job(request: Request, plan: Plan, strategy: Strategy, dataset: Dataset) -> TrainingJob:
    """The training of a plan, with the provenance of every checkpoint that it writes."""
    asked = asdict(request)
    provenance = Provenance(
        request={k: list(v) if isinstance(v, tuple) else v for k, v in asked.items()},
        strategy_path=request.strategy_path,
        strategy_fingerprint=plan.strategy_fingerprint,
        data_fingerprint=plan.data_fingerprint,
        dataset_digest=dataset.digest,
        environment=environment(DEVICE, WORKERS, THREADS),
    )
    return TrainingJob(strategy, provenance, DEVICE, THREADS)


def _revised(bars: Bars, plan: Plan) -> DataChanged | DataNotFound:
    """What can be said of it: the old rows are not kept."""
    first, last, before = plan.span["first"], plan.span["last"], plan.span["rows"]
    span = f"the bars of {bars.symbol} {bars.timeframe} from {format_us(first)} to"
    span = f"{span} {format_us(last)}"
    advice = "import the old ones again to resume, or train anew"
    if not len(bars):
        return DataNotFound(f"{span} are gone: {advice}")
    same = "the same number, but other values or times"
    told = same if len(bars) == before else f"{len(bars):,} bars instead of {before:,}"
    return DataChanged(
        f"{span} were revised since the operation began ({told}): {advice}",
        symbol=bars.symbol,
        timeframe=bars.timeframe,
        first=format_us(first),
        last=format_us(last),
        rows=len(bars),
        rows_before=before,
    )
