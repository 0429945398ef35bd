"""Validation of a dataset before training: refusals with numbers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ktrdr.data.bars import Bars, closing_time, format_us, timeframe_us
from ktrdr.data.market import Market
from ktrdr.errors import InvalidData
from ktrdr.features.cuts import Cut, LabelledRows
from ktrdr.features.labels import LabelArray, class_names
from ktrdr.strategy.schema import Strategy
from ktrdr.strategy.splits import PurgedKFold


def check_overlap(market: Market) -> None:
    """Raise InvalidData unless there is a time at which every symbol has bars, at every
    timeframe, and the higher ones reach as far as the bars that are the rows."""
    latest = max(market.series.values(), key=lambda bars: bars.first)
    earliest = min(market.series.values(), key=closing_time)
    if latest.first >= closing_time(earliest):
        raise _apart(market, latest, earliest)
    for symbol in market.symbols:
        for timeframe in market.timeframes:
            _check_reach(market.series[symbol, timeframe], market.base(symbol))


def _apart(market: Market, latest: Bars, earliest: Bars) -> InvalidData:
    return InvalidData(
        f"{_named(latest)} begins only at {format_us(latest.first)}, after {_named(earliest)} has "
        f"ended at {format_us(closing_time(earliest))}: use bars that overlap in time",
        spans=[
            {
                "symbol": bars.symbol,
                "timeframe": bars.timeframe,
                "first": format_us(bars.first),
                "last": format_us(bars.last),
                "rows": len(bars),
            }
            for bars in market.series.values()
        ],
    )


def _check_reach(bars: Bars, base: Bars) -> None:
    """Refuse bars that end long before the rows do, whose last one would stand for ever after.

    Long is twice as long as they ever were silent before.
    """
    longest = max(timeframe_us(bars.timeframe), int(np.diff(bars.timestamps).max(initial=0)))
    rows = len(base) - int(np.searchsorted(base.timestamps, closing_time(bars) + 2 * longest))
    if rows > 0:
        raise InvalidData(
            f"{_named(bars)} ends at {format_us(closing_time(bars))}, long before {_named(base)} "
            f"at {format_us(closing_time(base))}: {rows:,} of {len(base):,} rows would see an old "
            f"bar only; import more bars of {_named(bars)}, or end the dates there",
            symbol=bars.symbol,
            timeframe=bars.timeframe,
            rows=rows,
        )


def _named(bars: Bars) -> str:
    return f"{bars.symbol} {bars.timeframe}"


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
        if strategy.training.data_split.embargo:
            shorter += " or training.data_split.embargo"
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


def check_labels(labels: LabelArray, strategy: Strategy) -> None:
    """Raise InvalidData where these labels, of the training samples, teach nothing."""
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
