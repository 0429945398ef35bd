"""Markets with another future: the same bars up to a moment, then others or none.

A moment is the close of a base bar, in microseconds UTC. Bars are known once they have closed,
whatever their timeframe; one that is still open belongs to the future. What is resampled is
resampled anew.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np

from ktrdr.data.bars import Bars, FloatArray, timeframe_us
from ktrdr.data.market import Market, gather
from ktrdr.data.resampling import can_resample

Moments = Mapping[str, int]
"""By symbol."""

Change = Callable[[Bars, np.random.Generator], Bars]


def num_closed(bars: Bars, moment: int) -> int:
    """How many of these bars have closed at a moment."""
    return int(np.searchsorted(bars.timestamps, moment - timeframe_us(bars.timeframe), "right"))


def without_future(market: Market, moments: Moments) -> Market:
    """Only the bars that have closed; every timeframe must have one by then."""
    return _remade(market, lambda bars: bars.rows(0, num_closed(bars, moments[bars.symbol])))


def with_other_future(
    market: Market, moments: Moments, change: Change, random: np.random.Generator
) -> Market:
    """The same bars up to the moments, changed ones at the same times after them."""

    def altered(bars: Bars) -> Bars:
        known = num_closed(bars, moments[bars.symbol])
        return _joined(bars.rows(0, known), change(bars.rows(known, len(bars)), random))

    return _remade(market, altered)


def one_symbol(market: Market, symbol: str, timeframes: set[str]) -> Market:
    """What of a market concerns a symbol at some of its timeframes and at the base one."""
    wanted = tuple(t for t in market.timeframes if t in timeframes | {market.base_timeframe})
    return Market(
        (symbol,),
        wanted,
        market.base_timeframe,
        {(symbol, timeframe): market.series[symbol, timeframe] for timeframe in wanted},
        tuple(bars for bars in market.sources if bars.symbol == symbol),
    )


def is_told_by_bars(market: Market, moment: int) -> bool:
    """Whether every resampled bar that has closed by a moment is proven to be whole by then.

    Where the last lower bars of one are missing, only the clock says that it is over.
    """
    stored = {(bars.symbol, bars.timeframe) for bars in market.sources}
    return all(
        _last_close(bars, moment) <= _last_close(_source_of(bars, market), moment)
        for key, bars in market.series.items()
        if key not in stored
    )


def scaled(bars: Bars, random: np.random.Generator) -> Bars:
    """Each bar times a factor of its own; volume too, and more where there was none."""
    count = len(bars)
    volume = bars.volume * random.uniform(0.2, 3.0, count) + random.uniform(0.0, 10.0, count)
    return replace(_times(bars, random.uniform(0.6, 1.6, count)), volume=volume)


def shuffled(bars: Bars, random: np.random.Generator) -> Bars:
    """The same bars in another order."""
    order = random.permutation(len(bars))
    return replace(
        bars,
        open=bars.open[order],
        high=bars.high[order],
        low=bars.low[order],
        close=bars.close[order],
        volume=bars.volume[order],
    )


def spiked(bars: Bars, random: np.random.Generator) -> Bars:
    """The first bar, and about one in ten of the others, at three times or a third of its price,
    with ten times the volume and a little more."""
    count = len(bars)
    hit = random.random(count) < 0.1
    hit[:1] = True
    factors = np.where(random.random(count) < 0.5, 3.0, 1 / 3)
    volume = np.where(hit, 10.0 * bars.volume + 1.0, bars.volume)
    return replace(_times(bars, np.where(hit, factors, 1.0)), volume=volume)


def backwards(bars: Bars, random: np.random.Generator) -> Bars:
    """The same market run backwards at other prices: it trends and rests as long as before."""
    turned = replace(
        bars,
        open=bars.close[::-1],
        high=bars.high[::-1],
        low=bars.low[::-1],
        close=bars.open[::-1],
        volume=bars.volume[::-1] + 1.0,
    )
    return _times(turned, np.full(len(bars), random.uniform(1.2, 1.5)))


CHANGES: tuple[Change, ...] = (scaled, spiked, shuffled, backwards)


def _remade(market: Market, alter: Callable[[Bars], Bars]) -> Market:
    sources = {(bars.symbol, bars.timeframe): alter(bars) for bars in market.sources}

    def read(symbol: str, timeframe: str) -> Bars | None:
        return sources.get((symbol, timeframe))

    def stored(symbol: str) -> list[str]:
        return [timeframe for name, timeframe in sources if name == symbol]

    return gather(market.symbols, market.timeframes, market.base_timeframe, read, stored)


def _source_of(made: Bars, market: Market) -> Bars:
    """The longest lower bars of the same symbol: see `gather`."""
    lower = [
        bars
        for bars in market.sources
        if bars.symbol == made.symbol and can_resample(bars.timeframe, made.timeframe)
    ]
    return max(lower, key=lambda bars: timeframe_us(bars.timeframe))


def _last_close(bars: Bars, moment: int) -> int:
    """When the last of these bars that has closed by a moment did; -1 where none has."""
    count = num_closed(bars, moment)
    return int(bars.timestamps[count - 1]) + timeframe_us(bars.timeframe) if count else -1


def _times(bars: Bars, factors: FloatArray) -> Bars:
    """All prices of a bar times its factor, which keeps their order."""
    return replace(
        bars,
        open=bars.open * factors,
        high=bars.high * factors,
        low=bars.low * factors,
        close=bars.close * factors,
    )


def _joined(before: Bars, after: Bars) -> Bars:
    return replace(
        before,
        timestamps=np.concatenate([before.timestamps, after.timestamps]),
        open=np.concatenate([before.open, after.open]),
        high=np.concatenate([before.high, after.high]),
        low=np.concatenate([before.low, after.low]),
        close=np.concatenate([before.close, after.close]),
        volume=np.concatenate([before.volume, after.volume]),
    )
