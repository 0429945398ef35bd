"""Field types of a strategy: names and numbers with bounds, closed mappings."""

from __future__ import annotations

import datetime
import math
import re
from collections.abc import Callable, Mapping
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field
from pydantic_core import PydanticCustomError

NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$"
SYMBOL_PATTERN = r"^[A-Za-z0-9^][A-Za-z0-9._=^-]{0,31}$"
TIMEFRAME_PATTERN = r"^[1-9][0-9]{0,3}[mhdw]$"

_UNIT_SECONDS = {"m": 60, "h": 3600, "d": 86_400, "w": 604_800}


def _no_boolean(value: Any) -> Any:
    """YAML's `true` is no number, though Python would count it as 1."""
    if isinstance(value, bool):
        raise PydanticCustomError("number_type", "a number is expected, not true or false")
    return value


def _written_as_a_day(value: Any) -> Any:
    """Numbers and moments are no days, though pydantic would read some as one."""
    is_day = isinstance(value, datetime.date) and not isinstance(value, datetime.datetime)
    is_text = isinstance(value, str) and re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", value)
    if value is None or is_day or is_text:
        return value
    raise PydanticCustomError("date_type", "a date is expected, written as 2020-01-31")


def _plain(value: Any) -> Any:
    """What JSON can hold, days and moments written out; sets and bytes have no one spelling."""
    if isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
        return {key: _plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    if isinstance(value, datetime.date):
        return value.isoformat()
    if (
        value is None
        or isinstance(value, str | int)
        or (isinstance(value, float) and math.isfinite(value))
    ):
        return value
    raise PydanticCustomError(
        "plain",
        "only texts, finite numbers, true, false, dates, lists and mappings by name may stand here",
    )


def _no_dots(value: str) -> str:
    if ".." in value:
        raise PydanticCustomError("symbol", "a symbol must not contain '..'")
    return value


def timeframe_seconds(timeframe: str) -> int:
    """The length of a timeframe that matches the pattern."""
    return int(timeframe[:-1]) * _UNIT_SECONDS[timeframe[-1]]


def canonical_timeframe(timeframe: str) -> str:
    """The one spelling of a timeframe that matches the pattern: 60m is 1h."""
    seconds = timeframe_seconds(timeframe)
    unit = next(u for u in "wdhm" if seconds % _UNIT_SECONDS[u] == 0)
    return f"{seconds // _UNIT_SECONDS[unit]}{unit}"


def _canonical_only(value: str) -> str:
    if re.fullmatch(TIMEFRAME_PATTERN, value) and canonical_timeframe(value) != value:
        raise PydanticCustomError(
            "timeframe",
            "{given} is written {canonical}",
            {"given": value, "canonical": canonical_timeframe(value)},
        )
    return value


Name = Annotated[str, Field(pattern=NAME_PATTERN)]
Symbol = Annotated[str, Field(pattern=SYMBOL_PATTERN), AfterValidator(_no_dots)]
Timeframe = Annotated[str, Field(pattern=TIMEFRAME_PATTERN), AfterValidator(_canonical_only)]
Count = Annotated[int, Field(strict=True, ge=1, le=1_000_000_000)]
Number = Annotated[float, BeforeValidator(_no_boolean)]
Share = Annotated[Number, Field(ge=0, le=1)]
Positive = Annotated[Number, Field(gt=0)]
NonNegative = Annotated[Number, Field(ge=0)]
Flag = Annotated[bool, Field(strict=True)]
Day = Annotated[datetime.date, BeforeValidator(_written_as_a_day)]
Plain = Annotated[dict[str, Any], BeforeValidator(_plain)]
"""A mapping that is kept as it is and means nothing here."""
Seed = Annotated[int, Field(strict=True, ge=0, lt=2**32)]  # numpy's seeds are 32 bits wide


class Closed(BaseModel):
    """Frozen, with no room for unknown keys, and no NaN or infinity in any number."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, str_max_length=4096)


def tag_by(key: str, default: str | None = None) -> Callable[[Any], str | None]:
    """Which of several kinds a mapping is, by one of its keys.

    Tags are written <so>, to be told from the user's own keys in the path of an error.
    """

    def tag(data: Any) -> str | None:
        value = data.get(key, default) if isinstance(data, Mapping) else getattr(data, key, None)
        return f"<{value}>" if isinstance(value, str) else None

    return tag
