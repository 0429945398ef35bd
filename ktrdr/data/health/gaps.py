"""Detection of missing bars, by the symbol's own weekly trading pattern.

The pattern is the set of bars of the week that exist in at least half of the weeks of a quarter, by
the clock of the feed's sessions. Only such bars can be missing. A market that closes has holidays
and half days too: a session, or its end, that is absent up to the next regular opening is a
closure.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ktrdr.data.bars import Bars, IntArray, timeframe_us
from ktrdr.data.health.session_timezone import DAY_US, HOUR_US, WEEK_US, SessionTimezone

FEWEST_WEEKS = 4

_MONDAY_US = 4 * DAY_US
_SEASON_WEEKS = 12
_USUAL = 0.5  # of the weeks
_NEVER_CLOSES = 0.98  # of the week
_EARLY_CLOSE_US = 4 * HOUR_US
_HOLIDAY_US = 48 * HOUR_US
_LONGEST_CLOSURE = 1.5  # sessions: a half day and a holiday
_MOST_CLOSURES = 0.12  # of the sessions; more is a feed with holes
_SPARSE = 0.005  # holes per bar; beyond, bars without a trade are left out by the feed


@dataclass(frozen=True, eq=False)
class Pattern:
    """The bars of a week from Monday 00:00 local on that usually exist, `open[season, bar]`.

    Hours of trade change over the years, so each season (about a quarter) has a pattern of its own.
    """

    step: int
    open: NDArray[np.bool_]

    def slot(self, local: IntArray) -> IntArray:
        """The bar of the week in which moments lie."""
        slots: IntArray = (local - _MONDAY_US) % WEEK_US // self.step
        return slots

    def usual_between(self, season: IntArray, start: IntArray, end: IntArray) -> IntArray:
        """How many usual bars open after the bar of `start` and before that of `end`."""
        before = np.zeros((len(self.open), self.open.shape[1] + 1), np.int64)
        np.cumsum(self.open, axis=1, out=before[:, 1:])
        weeks = (end - _MONDAY_US) // WEEK_US - (start - _MONDAY_US) // WEEK_US
        until = before[season, self.slot(end)]
        usual: IntArray = weeks * before[season, -1] + until - before[season, self.slot(start) + 1]
        return usual


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


def find_gaps(bars: Bars, clock: SessionTimezone) -> Gaps:
    """The gaps, in the order of time."""
    step = timeframe_us(bars.timeframe)
    local = clock.local(bars.timestamps)
    weeks = np.cumsum(np.diff((local - _MONDAY_US) // WEEK_US, prepend=0) != 0)
    weeks -= weeks[0]
    if WEEK_US % step != 0 or weeks[-1] + 1 < FEWEST_WEEKS:
        nothing = np.empty(0, np.int64)
        return Gaps(None, None, None, None, None, nothing, nothing, nothing)
    pattern, season = _learn(local, weeks, step)
    holes = np.flatnonzero(np.diff(bars.timestamps) > step)
    missing = pattern.usual_between(season[holes], local[holes], local[holes + 1])
    holes, missing = holes[missing > 0], missing[missing > 0]
    closed = _closures(pattern, season[holes], local, holes, missing)
    holes, missing = holes[~closed], missing[~closed]
    shortest = 1 if step >= DAY_US else _shortest(missing, len(bars))
    told = missing >= shortest
    return Gaps(
        expected=int(pattern.open[season, pattern.slot(local)].sum() + missing.sum()),
        open_share=float(pattern.open.mean()),
        shortest=shortest,
        closures=int(closed.sum()),
        scattered=int(missing[~told].sum()),
        start=bars.timestamps[holes[told]] + step,
        end=bars.timestamps[holes[told] + 1],
        missing=missing[told],
    )


def _learn(local: IntArray, weeks: IntArray, step: int) -> tuple[Pattern, IntArray]:
    """The pattern and each bar's season; `weeks` counts those that have bars."""
    slots, total = WEEK_US // step, int(weeks[-1]) + 1
    seasons = max(1, min(total // _SEASON_WEEKS, 8 * len(local) // slots))
    season = weeks * seasons // total
    bar = (local - _MONDAY_US) % WEEK_US // step
    counts = np.bincount(season * slots + bar, minlength=seasons * slots).reshape(seasons, slots)
    lengths = np.bincount((np.arange(total) * seasons) // total, minlength=seasons)
    # Relative to a usual bar of this feed: a sparse one has none in every week.
    typical = np.array([np.percentile(row[row > 0], 75) for row in counts])
    return Pattern(step, counts >= _USUAL * np.minimum(typical, lengths)[:, None]), season


def _closures(
    pattern: Pattern, season: IntArray, local: IntArray, holes: IntArray, missing: IntArray
) -> NDArray[np.bool_]:
    """Which holes are holidays and half days of a market that closes."""
    closed = np.zeros(len(holes), bool)
    for one in np.unique(season).tolist():
        if pattern.open[one].mean() < _NEVER_CLOSES:
            of = np.flatnonzero(season == one)
            ends = local[holes[of]], local[holes[of] + 1]
            closed[of] = _closed(pattern.step, pattern.open[one], *ends, missing[of])
    many = closed.sum() > 4 + _MOST_CLOSURES * _sessions(pattern, local)
    return np.zeros(len(holes), bool) if many else closed


def _closed(
    step: int, open_: NDArray[np.bool_], before: IntArray, after: IntArray, missing: IntArray
) -> NDArray[np.bool_]:
    """The same for holes of one season, between the bars `before` and `after` (local)."""
    lost = missing * step
    holiday = _at_turn_of_year(before, after) & (lost <= _HOLIDAY_US)
    if step >= DAY_US:
        days: NDArray[np.bool_] = holiday | (missing == 1)
        return days
    slots = (after - _MONDAY_US) % WEEK_US // step
    session = _session_lengths(open_)[_last_open(open_)[slots - 1]]
    short = np.where(
        session * step < DAY_US, missing <= _LONGEST_CLOSURE * session, lost <= _EARLY_CLOSE_US
    )
    result: NDArray[np.bool_] = holiday | (~open_[slots - 1] & short)
    return result


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
    starts = pattern.open & ~np.roll(pattern.open, 1, axis=1)
    counted = pattern.open if pattern.step >= DAY_US else starts
    per_week = float(counted.sum()) / len(counted)
    return per_week * (float(local[-1]) - float(local[0])) / WEEK_US


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
