"""A simple backtest of a model's predictions, one bar at a time, as JSON values.

At the close of t a position of +1, 0 or -1 is taken for the move close[t] -> close[t + 1]. No
slippage, no interest, no limit: a view of the predictions, not a backtest.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ktrdr.data.bars import FloatArray, IntArray
from ktrdr.inference.evaluation.rows import EvaluatedRows
from ktrdr.inference.evaluation.scores import ratio

_POSITIONS = {
    "BUY": 1.0,
    "BULLISH": 1.0,
    "TREND_UP": 1.0,
    "SELL": -1.0,
    "BEARISH": -1.0,
    "TREND_DOWN": -1.0,
}
"""By the name of the likeliest class; any other one stays out of the market."""


@dataclass(frozen=True, eq=False)
class Book:
    """Positions held for a bar each, and what they earn; arrays over the bars, in time.

    `turnover` sums the changes of position, from 0 to the first one and from the last one to 0
    included. `net` is `gross` less half a round trip per unit of change, charged to the bar that
    begins with it, and the last one to the last bar.
    """

    timestamps: IntArray
    positions: FloatArray
    gross: FloatArray
    net: FloatArray
    turnover: float


@dataclass(frozen=True, eq=False)
class Equity:
    """What one unit becomes, after each bar, with a share as large in every symbol of the bar."""

    timestamps: IntArray
    gross: FloatArray
    net: FloatArray
    held: FloatArray


def trading(
    parts: Sequence[EvaluatedRows], class_names: Sequence[str], cost: float
) -> tuple[dict[str, Any] | None, Equity | None]:
    """Return metrics and curves of following the predictions, beside buying and holding.

    `cost` is of a round trip, as a fraction. None where no bar has a next one. With several symbols
    the return of a moment is the mean over those that have a bar then.
    """
    followed, held = [], []
    for part in parts:
        usable = np.isfinite(part.moves)
        stamps, moves = part.timestamps[usable], part.moves[usable]
        if len(moves):
            positions = positions_of(part.outputs[usable], class_names)
            followed.append(keep_book(stamps, moves, positions, cost))
            held.append(keep_book(stamps, moves, np.ones(len(moves)), cost))
    if not followed:
        return None, None
    all_in = np.concatenate([book.positions for book in followed])
    earned = np.concatenate([book.gross for book in followed])[all_in != 0]
    stamps, gross, net = _together(followed)
    _, held_gross, held_net = _together(held)
    figures = {
        "bars": len(all_in),
        "exposure": float(np.abs(all_in).mean()),
        "hit_rate": ratio(float((earned > 0).sum()), len(earned)),
        "turnover": sum(book.turnover for book in followed),
        "gross": returns_of(gross),
        "net": returns_of(net),
        "buy_and_hold": {
            "turnover": sum(book.turnover for book in held),
            "gross": returns_of(held_gross),
            "net": returns_of(held_net),
        },
    }
    return figures, Equity(stamps, equity(gross), equity(net), equity(held_gross))


def positions_of(outputs: FloatArray, class_names: Sequence[str]) -> FloatArray:
    """+1, 0 or -1 by the likeliest class, or by the sign of the value."""
    if not class_names:
        signs: FloatArray = np.sign(outputs[:, 0])
        return signs
    of_class = np.array([_POSITIONS.get(name, 0.0) for name in class_names])
    positions: FloatArray = of_class[outputs.argmax(axis=1)]
    return positions


def keep_book(timestamps: IntArray, moves: FloatArray, positions: FloatArray, cost: float) -> Book:
    """Hold each position for its bar's move; at least one bar."""
    changes = np.abs(np.diff(positions, prepend=0.0))
    end = abs(float(positions[-1]))
    gross = positions * moves
    net = gross - changes * (cost / 2)
    net[-1] -= end * (cost / 2)
    return Book(timestamps, positions, gross, net, float(changes.sum()) + end)


def returns_of(returns: FloatArray) -> dict[str, float | None]:
    """Figures of returns per bar, compounded; at least one.

    `sharpe_per_bar` is their mean by their sample standard deviation; times the square root of the
    bars in a year it would be annual. `max_drawdown` is the
    largest fall from a peak, as a fraction of it, the start included. What leaves the numbers on
    the way is None.
    """
    curve = np.append(1.0, equity(returns))
    with np.errstate(invalid="ignore"):
        falls = 1.0 - curve / np.maximum.accumulate(curve)
    deviation = float(returns.std(ddof=1)) if len(returns) > 1 else 0.0
    varies = bool((returns != returns[0]).any())
    return {
        "total_return": _number(curve[-1] - 1.0),
        "mean_return": float(returns.mean()),
        "sharpe_per_bar": ratio(float(returns.mean()), deviation) if varies else None,
        "max_drawdown": _number(falls.max()),
    }


def equity(returns: FloatArray) -> FloatArray:
    """What one unit becomes; what is lost once stays lost."""
    with np.errstate(over="ignore", invalid="ignore"):
        curve: FloatArray = np.multiply.accumulate(np.maximum(1.0 + returns, 0.0))
    return curve


def _number(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def _together(books: Sequence[Book]) -> tuple[IntArray, FloatArray, FloatArray]:
    """Moments, and the mean gross and net return of the books that have a bar then."""
    if len(books) == 1:
        return books[0].timestamps, books[0].gross, books[0].net
    stamps, places = np.unique(
        np.concatenate([book.timestamps for book in books]), return_inverse=True
    )
    gross = _mean_by(places, np.concatenate([book.gross for book in books]))
    net = _mean_by(places, np.concatenate([book.net for book in books]))
    return stamps, gross, net


def _mean_by(places: IntArray, values: FloatArray) -> FloatArray:
    sums: FloatArray = np.bincount(places, values).astype(np.float64)
    return sums / np.bincount(places)
