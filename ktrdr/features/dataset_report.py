"""A report on a dataset: labels, splits, columns, and warnings."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ktrdr.data.bars import format_us
from ktrdr.features.cuts import SPLITS
from ktrdr.features.dataset import Dataset
from ktrdr.features.leaks.pipeline_run import Fold, PipelineRun, SymbolRows
from ktrdr.features.memberships import grade
from ktrdr.strategy.input_names import InputGroup, input_groups

MUCH_ALIKE = 0.99  # share of rows with one same value from which a column is nearly constant
MANY = 0.05  # of the rows
RARE = 0.01

FloatColumn = NDArray[np.float32]


@dataclass(frozen=True)
class LabelFacts:
    """`horizon`: bars ahead that a label may need, as the strategy says; None where that is up to
    the market. `longest`: what the samples needed. `embargo` in bars, on top of that."""

    source: str
    horizon: int | None
    longest: int
    embargo: int
    samples: int


@dataclass(frozen=True)
class SplitFacts:
    """A split of a symbol in a fold.

    `rows` are left of it, `purged` samples are purged for a split that evaluates it, or embargoed
    behind one. `samples` are those with enough rows before them for a sequence. `classes` counts
    their labels; where those are values, `mean` and `deviation` describe them.
    """

    fold: int
    split: str
    symbol: str
    rows: int
    purged: int
    samples: int
    first: int | None
    last: int | None
    classes: dict[str, int] | None
    mean: float | None
    deviation: float | None

    def as_json(self) -> dict[str, Any]:
        moments = {"first": self.first, "last": self.last}
        return asdict(self) | {k: None if v is None else format_us(v) for k, v in moments.items()}


@dataclass(frozen=True)
class FeatureFacts:
    """A column in the first fold's training rows, as shares of rows.

    `alike`: those that hold one same value, where it is the majority, else 0. `outside`: rows of
    validation and test beyond what training saw. `uncovered`: rows of all splits at which every
    membership of the fuzzy set is 0; None for a raw input. `same_as`: an earlier column that is
    equal in all rows.
    """

    feature: str
    source: str
    timeframe: str
    fuzzy_set: str | None
    minimum: float
    maximum: float
    alike: float
    outside: float
    uncovered: float | None
    same_as: str | None


@dataclass(frozen=True)
class DatasetReport:
    labels: LabelFacts
    splits: tuple[SplitFacts, ...]
    features: tuple[FeatureFacts, ...]

    @property
    def warnings(self) -> tuple[str, ...]:
        """Warnings before training; look-ahead is not among them."""
        return (
            *_label_warnings(self.labels),
            *_split_warnings(self.splits),
            *_feature_warnings(self.features),
        )


def report_dataset(run: PipelineRun) -> DatasetReport:
    return DatasetReport(
        _labels(run),
        tuple(facts for fold in run.folds for facts in _splits(run, fold)),
        tuple(_features(run)),
    )


def _labels(run: PipelineRun) -> LabelFacts:
    spec = run.strategy.training
    ahead = [(one.rows.known_at - one.rows.bars)[one.rows.is_sample] for one in run.symbols]
    return LabelFacts(
        source=spec.labels.source,
        horizon=spec.labels.horizon,
        longest=max(int(bars.max()) for bars in ahead if len(bars)),
        embargo=spec.data_split.embargo,
        samples=sum(map(len, ahead)),
    )


def _splits(run: PipelineRun, fold: Fold) -> Iterator[SplitFacts]:
    for name in SPLITS:
        for place in range(len(run.symbols)):
            if any(piece.split == name for piece in fold.stretches):
                yield _split(run, fold, name, place)


def _split(run: PipelineRun, fold: Fold, name: str, place: int) -> SplitFacts:
    one, data = run.symbols[place], fold.dataset
    rows = _rows_of(data, name, one.symbol)
    inside = data.samples(getattr(data.splits, name), run.strategy.model.sequence_length)
    samples = np.intersect1d(inside, rows, assume_unique=True)
    labels, stamps = data.labels[samples], data.timestamps[rows]
    names = data.class_names
    counts = {name: int((labels == number).sum()) for number, name in enumerate(names)}
    values = not names and len(labels) > 0
    return SplitFacts(
        fold=fold.number,
        split=name,
        symbol=one.symbol,
        rows=len(rows),
        purged=_purged(one, fold, name, place),
        samples=len(samples),
        first=int(stamps.min()) if len(stamps) else None,
        last=int(stamps.max()) if len(stamps) else None,
        classes=counts or None,
        mean=float(labels.mean(dtype=np.float64)) if values else None,
        deviation=float(labels.std(dtype=np.float64)) if values else None,
    )


def _rows_of(dataset: Dataset, split: str, symbol: str) -> NDArray[np.int64]:
    rows: range = getattr(dataset.splits, split)
    found = [
        np.arange(max(part.start, rows.start), min(part.stop, rows.stop))
        for part in dataset.segments
        if part.symbol == symbol
    ]
    return np.concatenate([np.empty(0, np.int64), *found])


def _purged(one: SymbolRows, fold: Fold, name: str, place: int) -> int:
    """Samples within the split's stretches of time that are not in its rows."""
    opened, count = one.series.base.timestamps[one.rows.bars], 0
    for piece, (_, kept) in zip(fold.stretches, fold.cuts[place], strict=True):
        if piece.split == name:
            inside = (opened >= piece.start) & one.rows.is_sample
            inside &= True if piece.stop is None else opened < piece.stop
            count += int(inside.sum()) - int(one.rows.is_sample[kept.start : kept.stop].sum())
    return count


def _features(run: PipelineRun) -> Iterator[FeatureFacts]:
    data = run.folds[0].dataset
    seen, column = dict[bytes, str](), 0
    for group, transform in zip(input_groups(run.strategy), data.transforms, strict=True):
        width = len(transform.columns)
        block = np.ascontiguousarray(data.inputs[:, column : column + width].T)
        uncovered = _uncovered(group, data, block, column)
        for values, own in zip(block, transform.columns, strict=True):
            same = seen.setdefault(values.tobytes(), own.name)
            yield _feature(own.name, group, values, data, (uncovered, same))
        column += width


def _feature(
    name: str,
    group: InputGroup,
    values: FloatColumn,
    data: Dataset,
    told: tuple[float | None, str],
) -> FeatureFacts:
    train = values[data.splits.train.start : data.splits.train.stop]
    later = values[data.splits.validation.start : data.splits.test.stop]
    low, high = float(train.min()), float(train.max())
    uncovered, same = told
    return FeatureFacts(
        feature=name,
        source=group.reference,
        timeframe=group.timeframe,
        fuzzy_set=group.entry.fuzzy_set,
        minimum=low,
        maximum=high,
        alike=_majority(train),
        outside=float(((later < low) | (later > high)).mean()) if len(later) else 0.0,
        uncovered=uncovered,
        same_as=None if same == name else same,
    )


def _majority(values: FloatColumn) -> float:
    """The share of a value that most of these are: it would stand in their middle."""
    middle = np.partition(values, len(values) // 2)[len(values) // 2]
    share = float((values == middle).mean())
    return share if share > 0.5 else 0.0


def _uncovered(group: InputGroup, data: Dataset, block: FloatColumn, column: int) -> float | None:
    if group.fuzzy_set is None:
        return None
    curves = data.columns[column].memberships
    grades = [grade(curve, block[0].astype(np.float64)) for _, curve in curves] or list(block)
    return float((np.max(grades, axis=0) == 0).mean())


def _label_warnings(labels: LabelFacts) -> Iterator[str]:
    if labels.horizon is not None and labels.longest > labels.horizon:
        yield (
            f"labels: {labels.source} looks {labels.longest:,} bars ahead,"
            f" more than its horizon of {labels.horizon:,}"
        )


def _split_warnings(splits: tuple[SplitFacts, ...]) -> Iterator[str]:
    if {facts.split for facts in splits} == {"train"}:
        yield "splits: there is neither validation nor test to evaluate the training"
    for facts in splits:
        rare = [
            f"{name} {count:,}"
            for name, count in (facts.classes or {}).items()
            if count < RARE * facts.samples
        ]
        if rare:
            yield (
                f"{facts.split} of {facts.symbol}, fold {facts.fold}: less than {RARE:.0%} of"
                f" {facts.samples:,} samples are {', '.join(rare)}"
            )


def _feature_warnings(features: tuple[FeatureFacts, ...]) -> Iterator[str]:
    for facts in features:
        if facts.minimum == facts.maximum:
            yield f"{facts.feature}: dead, {facts.minimum:g} in every training row"
        elif facts.alike > MUCH_ALIKE:
            yield f"{facts.feature}: nearly constant, one value in {facts.alike:.2%} of training"
        if facts.same_as is not None and facts.minimum < facts.maximum:
            yield f"{facts.feature}: the same as {facts.same_as} in every row"
        if facts.outside > RARE:
            yield (
                f"{facts.feature}: {facts.outside:.1%} of validation and test lie outside"
                f" {facts.minimum:g} .. {facts.maximum:g}, all that training saw"
            )
    sets = {(f.timeframe, f.fuzzy_set): f.uncovered or 0.0 for f in features}
    for (timeframe, name), share in sets.items():
        if share > MANY:
            yield f"{timeframe}_{name}: all of its memberships are 0 in {share:.1%} of the rows"
