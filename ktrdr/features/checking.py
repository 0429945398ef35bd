"""What no training should begin with: refused before it does, with numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ktrdr.data.bars import SECOND_US, closing_time, format_us, timeframe_us
from ktrdr.data.market import Market
from ktrdr.errors import InvalidData
from ktrdr.features.labels import LabelArray, class_names
from ktrdr.features.splitting import Cut, LabelledRows
from ktrdr.strategy.schema import Strategy
from ktrdr.strategy.splits import PurgedKFold

if TYPE_CHECKING:
    from ktrdr.features.dataset import Dataset


_WEEK_US = 7 * 86_400 * SECOND_US  # longer than markets are closed


def check_overlap(market: Market) -> None:
    """Raise InvalidData unless there is a time at which every symbol has bars, at every
    timeframe."""
    spans = [(bars.first, bars.last, bars) for bars in market.series.values()]
    latest = max(spans, key=lambda span: span[0])
    earliest = min(spans, key=lambda span: span[1])
    if latest[0] <= earliest[1]:
        return
    listed = "; ".join(
        f"{bars.symbol} {bars.timeframe} {format_us(first)} .. {format_us(last)}"
        for first, last, bars in spans
    )
    raise InvalidData(
        f"{latest[2].symbol} {latest[2].timeframe} begins only after {earliest[2].symbol} "
        f"{earliest[2].timeframe} has ended ({listed}): use bars that overlap in time",
        spans=[
            {
                "symbol": bars.symbol,
                "timeframe": bars.timeframe,
                "first": format_us(first),
                "last": format_us(last),
                "rows": len(bars),
            }
            for first, last, bars in spans
        ],
    )


def check_freshness(market: Market) -> None:
    """Raise InvalidData where a timeframe ends so long before the base that its last bar would
    stand beside rows that it says nothing about."""
    for (symbol, timeframe), bars in market.series.items():
        base = market.base(symbol)
        ends, base_ends = closing_time(bars), closing_time(base)
        if base_ends - ends <= max(_WEEK_US, 2 * timeframe_us(timeframe)):
            continue
        raise InvalidData(
            f"the bars of {symbol} {timeframe} end at {format_us(ends)}, those of {base.timeframe} "
            f"go on until {format_us(base_ends)}: import newer {timeframe} bars, or set end_date",
            symbol=symbol,
            timeframe=timeframe,
            ends=format_us(ends),
            base_ends=format_us(base_ends),
        )


def check_cuts(
    strategy: Strategy, market: Market, labelled: Sequence[LabelledRows], cuts: Sequence[Cut]
) -> None:
    """Raise InvalidData where a split that is asked for has no sample, or none of a symbol."""
    before = (strategy.model.sequence_length or 1) - 1
    count = sum(int(rows.is_sample.sum()) for rows in labelled)
    for name in _wanted(strategy):
        for symbol, rows, parts in zip(market.symbols, labelled, cuts, strict=True):
            own = [part for split, part in parts if split == name]
            samples = sum(int(rows.is_sample[p.start + before : p.stop].sum()) for p in own)
            if samples == 0:
                raise _empty(name, symbol, sum(map(len, own)), market, strategy, count)


def _wanted(strategy: Strategy) -> list[str]:
    split = strategy.training.data_split
    names = ["train"]
    names += ["validation"] if split.validation else []
    names += ["test"] if isinstance(split, PurgedKFold) or split.test else []
    return names


def _empty(
    name: str, symbol: str, left: int, market: Market, strategy: Strategy, count: int
) -> InvalidData:
    base, needed = market.base(symbol), strategy.model.sequence_length or 1
    of_symbol = f" of {symbol}" if len(market.symbols) > 1 else ""
    if left == 0:
        what, shorter = f"the {name} split{of_symbol} is empty", "the labels' horizon"
    else:
        what = (
            f"the {name} split{of_symbol} has {left:,} rows, too few for one sequence of "
            f"{needed:,} (model.architecture.sequence_length)"
        )
        shorter = "the sequences"
    return InvalidData(
        f"{what}: {len(base):,} bars of {base.symbol} {base.timeframe} leave {count:,} "
        f"labelled rows before the purge{' in all symbols' if of_symbol else ''}; import more "
        f"bars, widen the dates, or shorten {shorter}",
        split=name,
        symbol=symbol,
        bars=len(base),
        rows=count,
    )


def check_labels(dataset: Dataset, strategy: Strategy) -> None:
    """Raise InvalidData where the labels of the training samples teach nothing."""
    samples = dataset.samples(dataset.splits.train, strategy.model.sequence_length)
    labels = dataset.labels[samples]
    names = class_names(strategy.training.labels)
    if names:
        _check_classes(np.bincount(labels, minlength=len(names)).tolist(), names, strategy)
    else:
        _check_values(labels, strategy)


def _check_classes(counts: list[int], names: tuple[str, ...], strategy: Strategy) -> None:
    missing = [name for name, n in zip(names, counts, strict=True) if n == 0]
    if missing:
        shown = ", ".join(f"{name} {n:,}" for name, n in zip(names, counts, strict=True))
        raise InvalidData(
            f"no {' and no '.join(missing)} among the {sum(counts):,} training rows ({shown}): "
            f"change training.labels ({strategy.training.labels.source}), or use more bars",
            counts=dict(zip(names, counts, strict=True)),
        )


def _check_values(values: LabelArray, strategy: Strategy) -> None:
    source = strategy.training.labels.source
    if values.min() == values.max():
        raise InvalidData(
            f"training.labels ({source}) are {values[0]:g} in all {len(values):,} training rows: "
            "there is nothing to learn from a target that never changes; use other bars",
            rows=len(values),
        )
