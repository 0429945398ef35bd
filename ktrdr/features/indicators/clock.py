"""Time of day and day of week as points on a circle, so that midnight is next to midnight.

Both are those at which the bar opens, in UTC, as (sine, cosine).
"""

from __future__ import annotations

import math

import numpy as np

from ktrdr.data.bars import Bars, FloatArray, IntArray
from ktrdr.features.indicators.definition import IndicatorDefinition, Outputs, Parameters

_MINUTE_US = 60_000_000
_MINUTES, _DAYS = 24 * 60, 7
_FIRST_WEEKDAY = 3  # 1970-01-01 was a Thursday; Monday is 0


def _hour(bars: Bars, _: FloatArray, __: Parameters) -> Outputs:
    """Of 24 hours; minutes count as parts of an hour."""
    return _on_circle(bars.timestamps // _MINUTE_US % _MINUTES, _MINUTES)


def _weekday(bars: Bars, _: FloatArray, __: Parameters) -> Outputs:
    """Of 7 whole days, from Monday."""
    days = bars.timestamps // (_MINUTE_US * _MINUTES)
    return _on_circle((days + _FIRST_WEEKDAY) % _DAYS, _DAYS)


def _on_circle(indices: IntArray, count: int) -> Outputs:
    angles = [2 * math.pi * place / count for place in range(count)]
    sines, cosines = (np.array([wave(a) for a in angles]) for wave in (math.sin, math.cos))
    return sines[indices], cosines[indices]


DEFINITIONS: dict[str, IndicatorDefinition] = {
    "hour_of_day": IndicatorDefinition(_hour, lambda _: (0, 0)),
    "day_of_week": IndicatorDefinition(_weekday, lambda _: (0, 0)),
}
