"""The dataset and the checkpoint provenance of a plan; to load it needs no torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from ktrdr.checkpoints.manifest import Provenance
from ktrdr.data.bars import Bars, format_us
from ktrdr.data.market import Market, Span, fingerprint_of, gather, span_of
from ktrdr.data.store import BarStore
from ktrdr.errors import DataChanged, DataNotFound
from ktrdr.features.cache import cached_dataset, prepare_dataset, stored_dataset
from ktrdr.features.dataset import Dataset
from ktrdr.operations.types import Plan, Request
from ktrdr.strategy.schema import Strategy
from ktrdr.training.environment import environment

DEVICE, WORKERS, THREADS = "cpu", 1, 1
_ADVICE = "import the old ones again to resume, or train anew"


@dataclass(frozen=True)
class TrainingJob:
    """What to train, and what its checkpoints say about it."""

    strategy: Strategy
    """The effective one: epochs and seed are those of the request."""
    provenance: Provenance
    device: str
    threads: int
    """Intra-op threads of torch."""


def planned_dataset(request: Request, plan: Plan, strategy: Strategy) -> Dataset:
    """Return the very dataset that the operation was submitted with, its bytes verified.

    The bars are read only where the cache no longer has it.

    Raises:
        DataNotFound, DataChanged: it cannot be computed again, or comes out otherwise.
        StorageUnavailable.
    """
    root, fold = Path(plan.storage), request.fold or 1
    dataset = stored_dataset(root, strategy, plan.data_fingerprint, fold)
    if dataset is None:
        dataset = cached_dataset(root, strategy, planned_market(plan, strategy), fold)
    _check_digest(dataset.digest, request, plan)
    return dataset


def check_planned_data(request: Request, plan: Plan, strategy: Strategy) -> None:
    """Check that bars, features and labels are those that the operation was submitted with.

    The features are computed only where the cache has lost them, and not read.

    Raises:
        DataNotFound, DataChanged, StorageUnavailable.
    """
    market = planned_market(plan, strategy)
    digest = prepare_dataset(Path(plan.storage), strategy, market, request.fold or 1)
    _check_digest(digest, request, plan)


def _check_digest(digest: str, request: Request, plan: Plan) -> None:
    if digest != plan.dataset_digest:
        raise DataChanged(
            f"the same bars of {', '.join(request.symbols)} and the same strategy give other"
            " features or labels than when the operation began: resume with the versions of ktrdr"
            " and its libraries that it began with, or train anew",
            symbols=list(request.symbols),
            timeframes=list(request.timeframes),
        )


def planned_market(plan: Plan, strategy: Strategy) -> Market:
    """Return the stored bars of a plan's spans, as they were.

    Raises:
        DataNotFound, DataChanged: they are not.
    """
    store = BarStore(Path(plan.storage))
    spans = [Span(**span) for span in plan.spans]
    sources = [_within(span, store.read(span.symbol, span.timeframe)) for span in spans]
    if fingerprint_of(sources) != plan.data_fingerprint:
        raise _revised(sources, spans)
    found = {(bars.symbol, bars.timeframe): bars for bars in sources}

    def read(symbol: str, timeframe: str) -> Bars | None:
        return found.get((symbol, timeframe))

    def stored(symbol: str) -> list[str]:
        return [timeframe for name, timeframe in found if name == symbol]

    return gather(strategy.symbols, strategy.timeframes, strategy.base_timeframe, read, stored)


def _within(span: Span, stored: Bars) -> Bars:
    bars = stored.between(span.first, span.last)
    if len(bars):
        return bars
    raise DataNotFound(f"the bars of {span} are gone: {_ADVICE}")


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


def _revised(sources: Sequence[Bars], before: Sequence[Span]) -> DataChanged:
    """Describe the change as far as spans tell it: the old rows are not kept."""
    changed = [(span, now) for span, now in zip(before, sources, strict=True)]
    differing = [(span, now) for span, now in changed if span_of(now) != span] or changed
    span, now = differing[0]
    same = "the same number, but other values or times"
    told = same if len(now) == span.rows else f"{len(now):,} bars instead of {span.rows:,}"
    others = f" or of {', '.join(str(s) for s, _ in differing[1:])}" if len(differing) > 1 else ""
    return DataChanged(
        f"the bars of {span}{others} were revised since the operation began ({told}): {_ADVICE}",
        symbol=span.symbol,
        timeframe=span.timeframe,
        first=format_us(span.first),
        last=format_us(span.last),
        rows=len(now),
        rows_before=span.rows,
    )
