"""Missing bars, told from closures by the symbol's own weekly pattern.

The pattern is the set of bars of the week that exist in at least half of the weeks, by the clock of
the feed's sessions. Only such bars can be missing. A market that closes has holidays and half days
too: a session, or its end, that is absent up to the next regular opening is a closure.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ktrdr.data.bars import Bars, IntArray, timeframe_us
from ktrdr.data.clocks import DAY_US, HOUR_US, WEEK_US, Clock

FEWEST_WEEKS = 4

_MONDAY_US = 4 * DAY_US
_USUAL = 0.5  # of the weeks
_NEVER_CLOSES = 0.98  # of the week
_EARLY_CLOSE_US = 4 * HOUR_US
_HOLIDAY_US = 48 * HOUR_US
_LONGEST_CLOSURE = 1.5  # sessions: a half day and a holiday
_MOST_CLOSURES = 0.12  # of the sessions; more is a feed with holes
_SPARSE = 0.005  # holes per bar; beyond, bars without a trade are left out by the feed


@dataclass(frozen=True, eq=False)
class Pattern:
    """The bars of a week from Monday 00:00 local on: `open` says which usually exist."""

    step: int
    open: NDArray[np.bool_]

    def ordinal(self, local: IntArray) -> IntArray:
        """How many usual bars open before each moment's bar, counted from a fixed Monday."""
        before = np.concatenate([[0], np.cumsum(self.open)])
        ordinals: IntArray = (local - _MONDAY_US) // WEEK_US * before[-1] + before[self.slot(local)]
        return ordinals

    def slot(self, local: IntArray) -> IntArray:
        """The bar of the week in which moments lie."""
        slots: IntArray = (local - _MONDAY_US) % WEEK_US // self.step
        return slots


@dataclass(frozen=True, eq=False)
class Gaps:
    """Missing bars: each gap's end of the bar before, next open, and number of missing bars.

    `expected` bars between first and last; `shortest` is the least number of missing bars that
    counts as a gap, `scattered` the bars missing in shorter holes, which a feed has that leaves out
    bars without a trade. All None where the bars are too few to learn a pattern.
    """

    expected: int | None
    open_share: float | None
    shortest: int | None
    closures: int | None
    scattered: int | None
    start: IntArray
    end: IntArray
    missing: IntArray


def find_gaps(bars: Bars, clock: Clock) -> Gaps:
    """The gaps, in the order of time."""
    nothing = np.empty(0, np.int64)
    pattern = _learn(bars, clock)
    if pattern is None:
        return Gaps(None, None, None, None, None, nothing, nothing, nothing)
    local = clock.local(bars.timestamps)
    ordinals = pattern.ordinal(local)
    usual = pattern.open[pattern.slot(local)]
    missing = np.diff(ordinals) - usual[:-1]
    holes = np.flatnonzero((missing > 0) & (np.diff(bars.timestamps) > pattern.step))
    closed = _closures(pattern, local, holes, missing[holes])
    sizes = missing[holes][~closed]
    shortest = 1 if pattern.step >= DAY_US else _shortest(sizes, len(bars))
    told = np.flatnonzero(~closed)[sizes >= shortest]
    return Gaps(
        expected=int(ordinals[-1] - ordinals[0]) + int(usual[-1]),
        open_share=float(pattern.open.mean()),
        shortest=shortest,
        closures=int(closed.sum()),
        scattered=int(sizes[sizes < shortest].sum()),
        start=bars.timestamps[holes[told]] + pattern.step,
        end=bars.timestamps[holes[told] + 1],
        missing=missing[holes[told]],
    )


def _learn(bars: Bars, clock: Clock) -> Pattern | None:
    step = timeframe_us(bars.timeframe)
    if WEEK_US % step != 0:
        return None
    local = clock.local(bars.timestamps)
    weeks = 1 + int((np.diff((local - _MONDAY_US) // WEEK_US) > 0).sum())
    if weeks < FEWEST_WEEKS:
        return None
    slots = (local - _MONDAY_US) % WEEK_US // step
    counts = np.bincount(slots, minlength=WEEK_US // step)
    # Relative to a usual bar of this feed: a sparse one has none in every week.
    typical = min(float(np.percentile(counts[counts > 0], 75)), float(weeks))
    return Pattern(step, counts >= _USUAL * typical)


def _closures(
    pattern: Pattern, local: IntArray, holes: IntArray, missing: IntArray
) -> NDArray[np.bool_]:
    """Which holes are holidays and half days of a market that closes."""
    never = np.zeros(len(holes), bool)
    if len(holes) == 0 or pattern.open.mean() >= _NEVER_CLOSES:
        return never
    lost = missing * pattern.step
    turn_of_year = _at_turn_of_year(local[holes], local[holes + 1]) & (lost <= _HOLIDAY_US)
    if pattern.step >= DAY_US:
        closed = turn_of_year | (missing == 1)
    else:
        lengths = _session_lengths(pattern.open)
        slots = pattern.slot(local[holes + 1])
        opens = ~pattern.open[slots - 1]
        session = lengths[_last_open(pattern.open)[slots - 1]]
        daily = session * pattern.step < DAY_US
        closed = turn_of_year | (
            opens & np.where(daily, missing <= _LONGEST_CLOSURE * session, lost <= _EARLY_CLOSE_US)
        )
    return closed if closed.sum() <= 4 + _MOST_CLOSURES * _sessions(pattern, local) else never


def _at_turn_of_year(before: IntArray, after: IntArray) -> NDArray[np.bool_]:
    """Whether holes lie around Christmas or New Year: Dec 21 12:00 .. Jan 4 12:00 local."""
    moved = (before + 12 * HOUR_US).astype("M8[us]"), (after - 12 * HOUR_US).astype("M8[us]")
    months = [m.astype("M8[M]").astype(np.int64) % 12 for m in moved]
    days = [(m.astype("M8[D]") - m.astype("M8[M]")).astype(np.int64) for m in moved]
    ends = [
        ((m == 11) & (d >= 21)) | ((m == 0) & (d <= 2)) for m, d in zip(months, days, strict=True)
    ]
    short = after - before < 8 * DAY_US
    result: NDArray[np.bool_] = ends[0] & ends[1] & short
    return result


def _session_lengths(open_: NDArray[np.bool_]) -> IntArray:
    """For each bar of the week the length of its session in bars; sessions may span Sunday."""
    start = int(np.flatnonzero(~open_)[0])
    turned = np.roll(open_, -start)
    edges = np.concatenate([[0], np.flatnonzero(np.diff(turned)) + 1, [len(turned)]])
    lengths = np.repeat(np.diff(edges), np.diff(edges))
    return np.roll(np.where(turned, lengths, 0), start)


def _last_open(open_: NDArray[np.bool_]) -> IntArray:
    """For each bar of the week the last open one at or before it."""
    doubled = np.concatenate([open_, open_])
    latest = np.maximum.accumulate(np.where(doubled, np.arange(len(doubled)), -1))
    found: IntArray = latest[len(open_) :] % len(open_)
    return found


def _sessions(pattern: Pattern, local: IntArray) -> float:
    """How many sessions lie between the first and the last bar; days where bars are daily."""
    starts = pattern.open & ~np.roll(pattern.open, 1)
    per_week = pattern.open.sum() if pattern.step >= DAY_US else starts.sum()
    return float(per_week) * (float(local[-1]) - float(local[0])) / WEEK_US


def _shortest(missing: IntArray, rows: int) -> int:
    """The least number of missing bars that chance does not explain.

    Where many single bars are absent, one bar is absent with probability q, and a run of m of them
    occurs somewhere with probability of about rows * q^m: less than 1 in 100 from here on.
    """
    if len(missing) < _SPARSE * rows or len(missing) < 20:
        return 1
    small = missing[missing <= np.percentile(missing, 95)]
    q = min(float(small.sum()) / (rows + float(small.sum())), 0.95)
    return max(2, math.ceil(math.log(0.01 / rows) / math.log(q)))
