"""Detection of the time zone of a feed's sessions, from the times of their openings.

A session that opens at 9:30 in New York opens at another UTC time in summer. The clock of a feed is
the one by which its openings move least. Where they move by whole hours even by that clock, and the
closings with them, the times were likely converted from a wrong zone.
"""

from __future__ import annotations

import datetime as dt
import itertools
from dataclasses import dataclass
from zoneinfo import ZoneInfo

import numpy as np

from ktrdr.data.bars import Bars, IntArray, timeframe_us

MINUTE_US = 60_000_000
HOUR_US = 60 * MINUTE_US
DAY_US = 24 * HOUR_US
WEEK_US = 7 * DAY_US

# Zones with clock changes of their own; where several fit, the first. New York is also the clock of
# Toronto, Chicago and currencies, London that of Frankfurt and Zurich.
_ZONES = {
    "UTC": None,
    "New York": "America/New_York",
    "London": "Europe/London",
    "Sydney": "Australia/Sydney",
    "Auckland": "Pacific/Auckland",
    "Sao Paulo": "America/Sao_Paulo",
    "Santiago": "America/Santiago",
    "Mexico City": "America/Mexico_City",
    "Jerusalem": "Asia/Jerusalem",
    "Istanbul": "Europe/Istanbul",
    "Moscow": "Europe/Moscow",
}
_COMMON = ("New York", "London")
_SILENCE_US = 5 * HOUR_US  # a silence of at least this long ends a session
_FEWEST_OPENINGS = 4
_SETTLED = 3  # openings in a row that show a lasting change
_NEAR_US = 7 * DAY_US


@dataclass(frozen=True)
class Shift:
    """From `at` on (microseconds UTC) sessions stand `minutes` later than before."""

    at: int
    minutes: int
    on_dst_date: bool


@dataclass(frozen=True, eq=False)
class SessionTimezone:
    """`name` is UTC, New York, London ..., or None where the bars do not tell.

    `offsets` are what to add to UTC from the moments `moments` on.
    """

    name: str | None
    why: str
    shifts: tuple[Shift, ...]
    moments: IntArray
    offsets: IntArray

    def local(self, stamps: IntArray) -> IntArray:
        """UTC times by this clock, with the shifts taken back."""
        local = stamps + _at(self.moments, self.offsets, stamps)
        for shift in self.shifts:
            local = local - np.where(stamps >= shift.at, shift.minutes * MINUTE_US, 0)
        return local


def find_clock(bars: Bars) -> SessionTimezone:
    """The clock by which the sessions open at the same time of day."""
    first, last = bars.first, bars.last
    zones = {name: _transitions(zone, first, last) for name, zone in _ZONES.items()}
    openings, closings = _sessions(bars)
    weeks = (last - first) / WEEK_US
    step = timeframe_us(bars.timeframe)
    if len(openings) < max(_FEWEST_OPENINGS, weeks / 2):
        return SessionTimezone(None, "it never closes, or the bars are few", (), *zones["UTC"])
    candidates = zones if step <= HOUR_US or step >= DAY_US else {"UTC": zones["UTC"]}
    minutes = {name: _minutes(openings, zone) for name, zone in candidates.items()}
    best = min(candidates, key=lambda name: len(_runs(minutes[name], 2)))  # the first of equals
    dst_dates = np.concatenate([zone[0][1:] for zone in map(zones.__getitem__, _COMMON)])
    shifts = _shifts(minutes[best], _minutes(closings, zones[best]), openings, dst_dates)
    if len(candidates) == 1:
        return SessionTimezone(None, "its bars are too long to show an hour", shifts, *zones[best])
    if best == "UTC" and len(dst_dates) == 0:
        return SessionTimezone(None, "no clock change lies within its bars", shifts, *zones[best])
    return SessionTimezone(
        best, "its sessions open at the same time of day by it", shifts, *zones[best]
    )


def _sessions(bars: Bars) -> tuple[IntArray, IntArray]:
    """The first bar of each session and the last one of the session before; of daily and longer
    bars their stamps, whose time of day follows the same clock."""
    step = timeframe_us(bars.timeframe)
    stamps = bars.timestamps
    if step >= DAY_US:
        return stamps, stamps
    silent = np.flatnonzero(np.diff(stamps) >= step + _SILENCE_US)
    return stamps[silent + 1], stamps[silent]


def _minutes(stamps: IntArray, zone: tuple[IntArray, IntArray]) -> IntArray:
    """The minute of the day by a zone."""
    minutes: IntArray = (stamps + _at(*zone, stamps)) // MINUTE_US % 1440
    return minutes


def _runs(values: IntArray, shortest: int) -> list[tuple[int, int]]:
    """Start and stop of the stretches of one value, those shorter than `shortest` left out and
    equal neighbours joined."""
    edges = np.concatenate([[0], np.flatnonzero(np.diff(values)) + 1, [len(values)]])
    runs: list[tuple[int, int]] = []
    for start, stop in itertools.pairwise(edges.tolist()):
        if stop - start < shortest:
            continue
        if runs and values[runs[-1][0]] == values[start]:
            runs[-1] = (runs[-1][0], stop)
        else:
            runs.append((start, stop))
    return runs


def _shifts(
    opens: IntArray, closes: IntArray, openings: IntArray, dst_dates: IntArray
) -> tuple[Shift, ...]:
    """Lasting changes by whole hours that openings and closings share."""
    runs = _runs(opens, _SETTLED)
    found: list[Shift] = []
    for (start, stop), (begin, end) in itertools.pairwise(runs):
        moved = _around(int(opens[begin]) - int(opens[start]))
        # A run's first closing belongs to the session before it.
        closed = _around(_usual(closes[begin + 1 : end]) - _usual(closes[start + 1 : stop]))
        if moved == closed and moved % 60 == 0:
            at = int(openings[begin])
            near = bool((np.abs(dst_dates - at) < _NEAR_US).any())
            found.append(Shift(at, moved, near))
    return tuple(found)


def _usual(minutes: IntArray) -> int:
    values, counts = np.unique(minutes, return_counts=True)
    return int(values[counts.argmax()])


def _around(minutes: int) -> int:
    """A difference of times of day within half a day."""
    return (minutes + 720) % 1440 - 720


def _at(moments: IntArray, offsets: IntArray, stamps: IntArray) -> IntArray:
    if len(moments) == 1:
        return np.broadcast_to(offsets, stamps.shape)
    found: IntArray = offsets[np.maximum(np.searchsorted(moments, stamps, "right") - 1, 0)]
    return found


def _transitions(zone: str | None, first: int, last: int) -> tuple[IntArray, IntArray]:
    """The moments from which a zone's offset to UTC holds, the first at or before `first`."""
    if zone is None:
        return np.array([first]), np.array([0])
    info = ZoneInfo(zone)
    moments, offsets = [first], [_offset(info, first)]
    for probe in range(first + 28 * DAY_US, last + 28 * DAY_US, 28 * DAY_US):
        probe = min(probe, last)
        if _offset(info, probe) != offsets[-1]:
            moments.append(_bisect(info, moments[-1], probe))
            offsets.append(_offset(info, probe))
    return np.array(moments), np.array(offsets)


def _bisect(info: ZoneInfo, before: int, after: int) -> int:
    """The first minute of the offset that holds at `after`; it changed once since `before`."""
    wanted = _offset(info, after)
    before = max(before, after - 28 * DAY_US)
    while after - before > MINUTE_US:
        middle = (before + after) // 2
        before, after = (before, middle) if _offset(info, middle) == wanted else (middle, after)
    return after // MINUTE_US * MINUTE_US


def _offset(info: ZoneInfo, at: int) -> int:
    moment = dt.datetime(1970, 1, 1, tzinfo=dt.UTC) + dt.timedelta(microseconds=at)
    offset = moment.astimezone(info).utcoffset()
    assert offset is not None
    return offset // dt.timedelta(microseconds=1)
