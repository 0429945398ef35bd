"""The data quality report of bars: findings and a verdict.

The verdict is the worst that a rule gives; each rule that speaks is a reason:

  bad     more than 5 % of the usual bars missing, more than 5 % of the bars in stale runs, a
          split-like jump, sessions that shift by whole hours, more than 0.1 % bad ticks (3 or more)
  usable  more than 0.2 % missing, more than 10 % missing here and there as where nothing traded,
          any bad tick, more than 0.1 % in stale runs, more than 0.1 % outliers (3 or more), zero
          volume in more than 10 % of the bars of a feed that has volume, fewer than 4 weeks of bars
  good    none of these

It needs at least 2 bars to say anything; the same bars always give the same answer.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ktrdr.data.bars import Bars, IntArray, format_us, timeframe_us
from ktrdr.data.health.anomalies import (
    Moves,
    Runs,
    find_moves,
    find_silent,
    find_stale,
    split_name,
    volume_ratio,
)
from ktrdr.data.health.gaps import FEWEST_WEEKS, Gaps, find_gaps
from ktrdr.data.health.session_timezone import SessionTimezone, find_clock
from ktrdr.errors import InvalidData

VERDICTS = ("good", "usable", "bad")

_LISTED = 10
_MISSING = {"usable": 0.002, "bad": 0.05}
_SCATTERED = 0.10
_STALE = {"usable": 0.001, "bad": 0.05}
_BAD_TICKS = 0.001
_OUTLIERS = 0.001
_ZERO_VOLUME = 0.10
_FEW = 3  # of one kind say nothing about a feed, however short it is

Reason = tuple[str, str]  # verdict, why


@dataclass(frozen=True)
class Health:
    """`findings` are plain JSON values, times as ISO 8601, always with the same keys; `reasons`
    say why the verdict is not `good`."""

    symbol: str
    timeframe: str
    rows: int
    first: str
    last: str
    verdict: str
    reasons: tuple[str, ...]
    findings: dict[str, Any]

    def document(self) -> dict[str, Any]:
        """Return the report as one JSON document."""
        return {
            "symbol": self.symbol,
            "timeframe": self.timeframe,
            "rows": self.rows,
            "first": self.first,
            "last": self.last,
            "verdict": self.verdict,
            "reasons": list(self.reasons),
            "findings": self.findings,
        }


def examine(bars: Bars) -> Health:
    """Look for every kind of defect; raises InvalidData where there are fewer than 2 bars."""
    if len(bars) < 2:
        raise InvalidData(
            f"{bars.symbol} {bars.timeframe}: {len(bars)} bars are too few to examine; import 2 "
            "or more",
            symbol=bars.symbol,
            timeframe=bars.timeframe,
        )
    clock = find_clock(bars)
    gaps = find_gaps(bars, clock)
    moves = find_moves(bars)
    findings = {
        "gaps": _say_gaps(gaps),
        "outliers": _say_outliers(bars, moves),
        "bad_ticks": _say_ticks(bars, moves),
        "stale": _say_runs(bars, find_stale(bars)),
        "zero_volume": _say_volume(bars),
        "clock": _say_clock(clock),
        "splits": _say_splits(bars, moves),
    }
    reasons = _judge(findings, len(bars))
    return Health(
        symbol=bars.symbol,
        timeframe=bars.timeframe,
        rows=len(bars),
        first=format_us(bars.first),
        last=format_us(bars.last),
        verdict=max((verdict for verdict, _ in reasons), key=VERDICTS.index, default="good"),
        reasons=tuple(reason for _, reason in reasons),
        findings=findings,
    )


def _say_gaps(gaps: Gaps) -> dict[str, Any]:
    missing = int(gaps.missing.sum())
    known = gaps.expected is not None
    return {
        "pattern_known": known,
        "open_share": gaps.open_share,
        "expected": gaps.expected,
        "closures": gaps.closures,
        "shortest": gaps.shortest,
        "scattered": gaps.scattered,
        "count": len(gaps.missing) if known else None,
        "missing": missing if known else None,
        "share": missing / gaps.expected if gaps.expected else None,
        "largest": [
            {
                "start": format_us(int(gaps.start[i])),
                "end": format_us(int(gaps.end[i])),
                "missing": int(gaps.missing[i]),
            }
            for i in _largest(gaps.missing)
        ],
    }


def _say_outliers(bars: Bars, moves: Moves) -> dict[str, Any]:
    places = np.concatenate([moves.moves, moves.ranges])
    kinds = ["move"] * len(moves.moves) + ["range"] * len(moves.ranges)
    size = np.concatenate([np.abs(moves.deviations[moves.moves]), moves.stretch[moves.ranges]])
    return {
        "count": len(places),
        "largest": [
            {
                "at": format_us(int(bars.timestamps[places[i]])),
                "kind": kinds[i],
                "deviations": round(float(size[i]), 1),
            }
            for i in _largest(size)
        ],
    }


def _say_ticks(bars: Bars, moves: Moves) -> dict[str, Any]:
    return {
        "count": len(moves.ticks),
        "largest": [
            {
                "at": format_us(int(bars.timestamps[place])),
                "close": float(bars.close[place]),
                "before": float(bars.close[place - 1]),
                "after": float(bars.close[place + 1]),
                "deviations": round(abs(float(moves.deviations[place])), 1),
            }
            for place in moves.ticks[_largest(np.abs(moves.deviations[moves.ticks]))].tolist()
        ],
    }


def _say_runs(bars: Bars, runs: Runs) -> dict[str, Any]:
    step = timeframe_us(bars.timeframe)
    return {
        "share": runs.share,
        "shortest": runs.shortest,
        "count": len(runs.start),
        "bars": int(runs.length.sum()),
        "largest": [
            {
                "start": format_us(int(bars.timestamps[runs.start[i]])),
                "end": format_us(int(bars.timestamps[runs.start[i] + runs.length[i] - 1]) + step),
                "bars": int(runs.length[i]),
            }
            for i in _largest(runs.length)
        ],
    }


def _say_volume(bars: Bars) -> dict[str, Any]:
    has_volume = bool((bars.volume > 0).any())
    nothing: dict[str, Any] = {"shortest": None, "count": 0, "bars": 0, "largest": []}
    found = _say_runs(bars, find_silent(bars)) if has_volume else {"share": 1.0, **nothing}
    return {"has_volume": has_volume, **found}


def _say_clock(clock: SessionTimezone) -> dict[str, Any]:
    return {
        "follows": clock.name,
        "why": clock.why,
        "shifts": [
            {"at": format_us(s.at), "hours": s.minutes / 60, "on_dst_date": s.on_dst_date}
            for s in clock.shifts
        ],
    }


def _say_splits(bars: Bars, moves: Moves) -> dict[str, Any]:
    found = []
    for place in moves.splits.tolist():
        ratio = float(bars.open[place] / bars.close[place - 1])
        found.append(
            {
                "at": format_us(int(bars.timestamps[place])),
                "split": split_name(ratio),
                "price_ratio": ratio,
                "volume_ratio": volume_ratio(bars.volume, place),
            }
        )
    return {"count": len(found), "largest": found[:_LISTED]}


def _largest(sizes: Any) -> IntArray:
    """Places of the largest, largest first, earlier ones first among equals."""
    return np.argsort(-np.asarray(sizes), kind="stable")[:_LISTED]


def _judge(findings: dict[str, Any], rows: int) -> list[Reason]:
    """Return every rule that applies, by its verdict."""
    reasons = [
        _judge_gaps(findings["gaps"]),
        _judge_ticks(findings["bad_ticks"]["count"], rows),
        _judge_stale(findings["stale"]["bars"] / rows),
        _judge_outliers(findings["outliers"]["count"], rows),
        _judge_volume(findings["zero_volume"]),
        _judge_count("split-like jump(s)", findings["splits"]["count"]),
        _judge_count("shift(s) of the sessions by whole hours", len(findings["clock"]["shifts"])),
    ]
    return [reason for reason in reasons if reason is not None]


def _judge_gaps(gaps: dict[str, Any]) -> Reason | None:
    if not gaps["pattern_known"]:
        return "usable", (
            f"no weekly pattern to learn (fewer than {FEWEST_WEEKS} weeks, or bars that do not "
            "divide a week): gaps are unknown"
        )
    scattered = gaps["scattered"] / max(gaps["expected"], 1)
    if scattered > _SCATTERED and gaps["share"] <= _MISSING["bad"]:
        return "usable", f"{scattered:.2%} of the usual bars are missing here and there"
    return _by_share("of the usual bars are missing", gaps["share"] or 0.0, _MISSING)


def _judge_stale(share: float) -> Reason | None:
    return _by_share("of the bars stand still in unusual runs", share, _STALE)


def _by_share(what: str, share: float, limits: dict[str, float]) -> Reason | None:
    if share <= limits["usable"]:
        return None
    return "bad" if share > limits["bad"] else "usable", f"{share:.2%} {what}"


def _judge_ticks(count: int, rows: int) -> Reason | None:
    if count == 0:
        return None
    verdict = "bad" if _many(count, _BAD_TICKS, rows) else "usable"
    return verdict, f"{count:,} bad tick{'s' * (count > 1)}"


def _judge_outliers(count: int, rows: int) -> Reason | None:
    if not _many(count, _OUTLIERS, rows):
        return None
    return "usable", f"{count:,} bars are outliers ({count / rows:.2%})"


def _many(count: int, share: float, rows: int) -> bool:
    return count >= _FEW and count > share * rows


def _judge_volume(volume: dict[str, Any]) -> Reason | None:
    if not volume["has_volume"] or volume["share"] <= _ZERO_VOLUME:
        return None
    return "usable", f"{volume['share']:.2%} of the bars have no volume"


def _judge_count(what: str, count: int) -> Reason | None:
    return None if count == 0 else ("bad", f"{count:,} {what}")
