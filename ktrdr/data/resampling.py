"""Resampling of bars to a higher timeframe, closed bars only.

A bucket is the span of one higher bar. Buckets of minutes, hours and days are counted from
1970-01-01 00:00 UTC, weeks from a Monday 00:00 UTC. A bucket is given once nothing can change it:

- the last one only if its last lower bar closes with it, else more bars may belong to it;
- the first one only if its first lower bar opens with it, else earlier bars may be missing;
- any other one as it is: a feed is silent at night and on weekends, and later bars prove its end.

So appended bars add buckets and never change one that was given.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from ktrdr.data.bars import Bars, IntArray, check_timeframe, format_us, timeframe_us
from ktrdr.errors import InvalidData, Usage

# 1970-01-05, the first Monday after the epoch.
_MONDAY_US = 4 * 86_400 * 1_000_000


def can_resample(source_timeframe: str, timeframe: str) -> bool:
    """Whether bars of `timeframe` consist of whole bars of the (lower) source timeframe.

    Raises Usage where one of them is no timeframe.
    """
    source, target = check_timeframe(source_timeframe), check_timeframe(timeframe)
    step, width = timeframe_us(source), timeframe_us(target)
    return width > step and width % step == 0 and (_anchor(target) - _anchor(source)) % step == 0


def resample(bars: Bars, timeframe: str) -> Bars:
    """The closed bars of the higher timeframe: open first, high max, low min, close last, volume
    sum, stamped with the bucket's open. There may be none.

    Raises Usage where the timeframe does not consist of whole source bars, InvalidData where a bar
    lies across a bucket's close: its prices would be known too early.
    """
    if not can_resample(bars.timeframe, timeframe):
        raise Usage(
            f"{bars.symbol}: {timeframe} bars cannot be made of {bars.timeframe} bars: "
            f"{timeframe} is not a whole multiple of {bars.timeframe} above it; import a lower "
            "timeframe that divides it",
            symbol=bars.symbol,
            source_timeframe=bars.timeframe,
            timeframe=timeframe,
        )
    if len(bars) == 0:
        return replace(bars, timeframe=timeframe)
    width = timeframe_us(timeframe)
    anchor = _anchor(timeframe)
    opens = (bars.timestamps - anchor) // width * width + anchor
    ends = bars.timestamps + timeframe_us(bars.timeframe)
    _refuse_bars_across(bars, timeframe, ends > opens + width)
    starts_inside = bars.first > opens[0]
    ends_inside = ends[-1] < opens[-1] + width
    buckets = _aggregate(bars, timeframe, opens)
    return buckets.rows(int(starts_inside), len(buckets) - int(ends_inside))


def _anchor(timeframe: str) -> int:
    return _MONDAY_US if timeframe.endswith("w") else 0


def _refuse_bars_across(bars: Bars, timeframe: str, across: NDArray[np.bool_]) -> None:
    count = int(across.sum())
    if count == 0:
        return
    first = format_us(int(bars.timestamps[int(across.argmax())]))
    raise InvalidData(
        f"{bars.symbol} {bars.timeframe}: {count:,} of {len(bars):,} bars lie across the close of "
        f"a {timeframe} bar, the first opens at {first}; import {timeframe} bars, or a lower "
        "timeframe whose bars end with them",
        symbol=bars.symbol,
        source_timeframe=bars.timeframe,
        timeframe=timeframe,
        count=count,
        first=first,
    )


def _aggregate(bars: Bars, timeframe: str, opens: IntArray) -> Bars:
    """One bar per run of equal bucket opens."""
    starts = np.concatenate([[0], np.flatnonzero(np.diff(opens)) + 1])
    lasts = np.append(starts[1:], len(bars)) - 1
    return Bars(
        symbol=bars.symbol,
        timeframe=timeframe,
        timestamps=opens[starts],
        open=bars.open[starts],
        high=np.maximum.reduceat(bars.high, starts),
        low=np.minimum.reduceat(bars.low, starts),
        close=bars.close[lasts],
        volume=np.add.reduceat(bars.volume, starts),
    )
