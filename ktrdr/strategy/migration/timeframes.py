"""Timeframes in other notations: `1H`, `M5`, `15min`, `60m`."""

from __future__ import annotations

import re

from ktrdr.strategy.field_types import canonical_timeframe

_UNITS = {
    **dict.fromkeys(("m", "t", "min", "mins", "minute", "minutes"), "m"),
    **dict.fromkeys(("h", "hr", "hour", "hours"), "h"),
    **dict.fromkeys(("d", "day", "days"), "d"),
    **dict.fromkeys(("w", "week", "weeks"), "w"),
}
_WORDS = {"hourly": "1h", "daily": "1d", "weekly": "1w"}


def timeframe(name: str) -> str:
    """A timeframe in the grammar's one spelling; what is not surely one, as it was.

    `5M` stays: it may mean months.
    """
    match = re.fullmatch(r"(?:([0-9]{1,4}) ?([A-Za-z]+)|([MHDW])([0-9]{1,4}))", name.strip())
    if match is None:
        return _WORDS.get(name.strip().lower(), name)
    count, unit = (match[1], match[2]) if match[1] else (match[4], match[3])
    short = _UNITS.get(unit.lower())
    if short is None or int(count) == 0 or (unit == "M" and match[1]):
        return name
    return canonical_timeframe(f"{int(count)}{short}")
