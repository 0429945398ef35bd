"""Evaluation of a stored model on stored bars: its own test rows, or any others."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ktrdr.data.bars import format_us, parse_date_range
from ktrdr.data.store import BarStore
from ktrdr.errors import InvalidData
from ktrdr.inference.evaluation.baselines import THESE_ROWS, baselines, joined
from ktrdr.inference.evaluation.rows import EvaluatedRows, evaluated_rows
from ktrdr.inference.evaluation.scores import class_scores, value_scores
from ktrdr.inference.evaluation.trading import Equity, trading
from ktrdr.inference.model import LoadedModel
from ktrdr.inference.prediction import model_inputs, rows_between, stored_market

Within = tuple[int | None, int | None]

_EVERYTHING: Within = (None, None)


@dataclass(frozen=True, eq=False)
class Evaluation:
    """`document` is the report as plain JSON; `equity` what following the predictions makes of one
    unit over all symbols, None where no bar has a next one."""

    document: dict[str, Any]
    equity: Equity | None


def evaluate(
    model: LoadedModel, store: BarStore, symbol: str | None = None, within: Within = _EVERYTHING
) -> Evaluation:
    """Judge a model on stored bars.

    Without dates: on the test rows of its own symbols, or of the one given; on all rows of a symbol
    that it was not trained on. With dates (`within`, open times in microseconds UTC, both included;
    None leaves an end open): on every row between them.

    Raises:
        DataNotFound: bars are missing.
        InvalidData: no row can be answered, or none has a label; with numbers.
        Usage: what is given is no symbol.
    """
    symbols = model.strategy.symbols if symbol is None else (symbol,)
    parts = [_rows_of(model, store, name, within) for name in symbols]
    for part in parts:
        _check_labelled(part, model)
    cost_model = model.strategy.decisions.cost_model
    cost = None if cost_model is None else cost_model.round_trip_cost
    overall, equity = _judge(model, parts, cost or 0.0)
    by_symbol = [_judge(model, [part], cost or 0.0)[0] for part in parts]
    first, last = (None if edge is None else format_us(edge) for edge in within)
    document = {
        "model": model.name,
        "symbols": list(symbols),
        "timeframe": model.strategy.base_timeframe,
        "rows_from": "test split" if _on_test_rows(model, symbols, within) else "bars",
        "from": first,
        "to": last,
        "output_format": model.strategy.decisions.output_format,
        "classes": list(model.class_names) or None,
        "round_trip_cost": cost,
        "overall": overall,
        "by_symbol": by_symbol,
        "notes": list(_notes(model, overall, symbols, cost)),
    }
    return Evaluation(document, equity)


def _on_test_rows(model: LoadedModel, symbols: Sequence[str], within: Within) -> bool:
    return within == _EVERYTHING and all(name in model.strategy.symbols for name in symbols)


def _rows_of(model: LoadedModel, store: BarStore, symbol: str, within: Within) -> EvaluatedRows:
    if not _on_test_rows(model, (symbol,), within):
        made = model_inputs(model, stored_market(model, store, symbol))
        return evaluated_rows(model, made, *rows_between(made, *within))
    # As in training: what is computed from bars can depend on where they begin.
    data = model.strategy.training_data
    days = parse_date_range(data.start_date, data.end_date)
    tested = [s for s in model.input_schema.seen if (s.symbol, s.split) == (symbol, "test")]
    if not tested:
        raise InvalidData(
            f"{model.name} has no test rows of {symbol}: say which rows to evaluate it on with "
            "--from and --to",
            symbol=symbol,
        )
    made = model_inputs(model, stored_market(model, store, symbol, within=days))
    edges = min(part.first for part in tested), max(part.last for part in tested)
    start, stop = rows_between(made, *edges)
    # Training keeps the first rows of a split as history: no sequence reaches over its edge.
    history = (model.strategy.model.sequence_length or 1) - 1
    opens = int(np.searchsorted(made.base.timestamps, edges[0]))
    return evaluated_rows(model, made, min(max(start, opens + history), stop), stop)


def _check_labelled(part: EvaluatedRows, model: LoadedModel) -> None:
    count = len(part.timestamps)
    if part.labelled.any():
        return
    span = ""
    if count:
        span = (
            f" from {format_us(int(part.timestamps[0]))} to {format_us(int(part.timestamps[-1]))}"
        )
    horizon = model.strategy.training.labels.horizon
    needs = "the end of a swing" if horizon is None else f"{horizon:,} later bars"
    raise InvalidData(
        f"none of the {count:,} rows of {part.symbol} {model.strategy.base_timeframe}{span} has a "
        f"label, which needs {needs}: widen the dates or import later bars",
        symbol=part.symbol,
        rows=count,
    )


def _judge(
    model: LoadedModel, parts: Sequence[EvaluatedRows], cost: float
) -> tuple[dict[str, Any], Equity | None]:
    """The figures of one symbol, or of several together."""
    outputs = np.concatenate([part.outputs[part.labelled] for part in parts])
    labels = joined(part.labels[part.labelled] for part in parts)
    if model.class_names:
        metrics = class_scores(outputs, labels.astype(np.int64), model.class_names)
    else:
        metrics = value_scores(outputs[:, 0], labels.astype(np.float64))
    figures, equity = trading(parts, model.class_names, cost)
    report = {
        "symbol": parts[0].symbol if len(parts) == 1 else None,
        "rows": len(labels),
        "first": format_us(min(_edge(part, 0) for part in parts)),
        "last": format_us(max(_edge(part, -1) for part in parts)),
        "seen": _seen(parts),
        "metrics": metrics,
        "baselines": baselines(parts, model.class_names),
        "trading": figures,
    }
    return report, equity


def _edge(part: EvaluatedRows, place: int) -> int:
    return int(part.timestamps[part.labelled][place])


def _seen(parts: Sequence[EvaluatedRows]) -> dict[str, int]:
    """Count the evaluated rows in each split of the training."""
    counts = {
        name: sum(int((part.splits[name] & part.labelled).sum()) for part in parts)
        for name in ("train", "validation", "test")
    }
    rows = sum(int(part.labelled.sum()) for part in parts)
    return {**counts, "unseen": rows - sum(counts.values())}


def _notes(
    model: LoadedModel, overall: dict[str, Any], symbols: Sequence[str], cost: float | None
) -> Iterator[str]:
    rows, seen = overall["rows"], overall["seen"]
    if seen["train"]:
        yield (
            f"{seen['train']:,} of the {rows:,} rows are rows that it was trained on: the figures"
            " do not say how it does on new ones"
        )
    if seen["validation"]:
        yield f"{seen['validation']:,} of the {rows:,} rows chose its best epoch (validation)"
    foreign = [name for name in symbols if name not in model.strategy.symbols]
    if foreign:
        yield f"it was not trained on {', '.join(foreign)}"
    if not model.input_schema.seen:
        yield "it was stored by an earlier version that did not keep which rows it was trained on"
    known = [b["known_from"] for b in overall["baselines"].values() if b and "known_from" in b]
    if THESE_ROWS in known:
        yield "majority or mean are those of the evaluated rows themselves, which is hindsight"
    if cost is None:
        yield "its strategy has no decisions.cost_model: net is gross"
