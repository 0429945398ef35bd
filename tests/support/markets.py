"""What a strategy is computed from where bars of a single series are stored."""

from __future__ import annotations

from ktrdr.data.bars import Bars
from ktrdr.data.market import Market, gather
from ktrdr.strategy.schema import Strategy


def market_of(strategy: Strategy, bars: Bars) -> Market:
    """The bars, and whatever other timeframe is asked for made from them."""

    def read(_: str, timeframe: str) -> Bars | None:
        return bars if timeframe == bars.timeframe else None

    return gather(
        strategy.symbols,
        strategy.timeframes,
        strategy.base_timeframe,
        read,
        lambda _: [bars.timeframe],
    )
