"""`ktrdr data check`: are stored bars fit to train on."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from ktrdr.cli import render
from ktrdr.cli.command import Call, command

_SHOWN = 3

Finding = dict[str, Any]


def add_to(family: typer.Typer) -> None:
    command(family, "check")(check)


def check(
    call: Call,
    symbol: Annotated[str, typer.Argument(metavar="SYMBOL", help="Symbol, such as EURUSD.")],
    timeframe: Annotated[str, typer.Argument(metavar="TF", help="Timeframe, such as 5m.")],
) -> int:
    """Examine stored bars for gaps, wild prices, standstills, clock changes and splits.

    The verdict is good, usable or bad. This is a report: its exit status is 0 whatever it says.
    """
    from ktrdr.data.health.report import examine

    with call.client() as client:
        bars = client.bars.read(symbol, timeframe)
    found = examine(bars).document()
    return call.answer(found, lambda: _say(found))


def _say(found: dict[str, Any]) -> str:
    why = f": {'; '.join(found['reasons'])}" if found["reasons"] else ""
    lines = [
        f"{found['verdict']}{why}",
        f"{found['symbol']} {found['timeframe']}: {found['rows']:,} bars, "
        f"{found['first']} .. {found['last']}",
    ]
    findings = found["findings"]
    lines += [f"{name.replace('_', ' ')}: {say(findings[name])}" for name, say in _SAYINGS.items()]
    return "\n".join(map(render.one_line, lines))


def _gaps(finding: Finding) -> str:
    if not finding["pattern_known"]:
        return "unknown, there is no weekly pattern to learn"
    said = "none"
    if finding["count"]:
        said = f"{finding['count']:,}, {finding['missing']:,} bars missing ({finding['share']:.2%})"
        said += _largest(finding, lambda g: f"{g['start']} .. {g['end']} ({g['missing']:,} bars)")
    if finding["closures"]:
        said += f"; {finding['closures']:,} holidays or half days"
    if finding["scattered"]:
        said += f"; {finding['scattered']:,} bars missing here and there, as where nothing traded"
    return said


def _outliers(finding: Finding) -> str:
    if finding["count"] == 0:
        return "none"
    return f"{finding['count']:,}" + _largest(
        finding, lambda o: f"{o['kind']} at {o['at']} ({o['deviations']:g} deviations)"
    )


def _ticks(finding: Finding) -> str:
    if finding["count"] == 0:
        return "none"
    return f"{finding['count']:,}" + _largest(
        finding, lambda t: f"{t['close']:g} at {t['at']} between {t['before']:g} and {t['after']:g}"
    )


def _runs(finding: Finding) -> str:
    said = f"{finding['share']:.2%} of the bars"
    if finding["count"] == 0:
        return f"{said}, no unusual run"
    runs = _largest(finding, lambda r: f"{r['start']} .. {r['end']} ({r['bars']:,} bars)")
    return f"{said}, {finding['count']:,} unusual run(s){runs}"


def _zero_volume(finding: Finding) -> str:
    return _runs(finding) if finding["has_volume"] else "this feed has no volume at all"


def _clock(finding: Finding) -> str:
    said = f"{finding['follows'] or 'not known'} ({finding['why']})"
    for shift in finding["shifts"]:
        date = "a clock change" if shift["on_dst_date"] else "no clock change"
        said += f"; sessions shift by {shift['hours']:+g} h at {shift['at']}, the date of {date}"
    return said


def _splits(finding: Finding) -> str:
    if finding["count"] == 0:
        return "none"
    return f"{finding['count']:,}" + _largest(finding, _split)


def _split(split: Finding) -> str:
    volume = split["volume_ratio"]
    said = f"{split['split']} at {split['at']} (price x {split['price_ratio']:.3f}"
    return f"{said}, volume x {volume:.2f})" if volume is not None else f"{said})"


def _largest(finding: Finding, say: Any) -> str:
    """The largest few, after a colon."""
    shown = finding["largest"][:_SHOWN]
    more = ", ..." if finding["count"] > len(shown) else ""
    return f": {', '.join(map(say, shown))}{more}"


_SAYINGS = {
    "gaps": _gaps,
    "outliers": _outliers,
    "bad_ticks": _ticks,
    "stale": _runs,
    "zero_volume": _zero_volume,
    "clock": _clock,
    "splits": _splits,
}
