"""`ktrdr models evaluate`: evaluate a model on stored bars, beside simple baselines."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from ktrdr.cli import render
from ktrdr.cli.command import Call, Model, command

Report = dict[str, Any]

_CLASS_METRICS = ("accuracy", "log_loss", "brier_score", "expected_calibration_error")
_VALUE_METRICS = ("mae", "rmse", "r2", "sign_agreement", "correlation")
_CLASS_BASELINES = ("majority", "persistence")
_VALUE_BASELINES = ("zero", "mean", "persistence")
_RETURNS = ("total_return", "mean_return", "sharpe_per_bar", "max_drawdown")


def add_to(family: typer.Typer) -> None:
    command(family, "evaluate")(evaluate)


def evaluate(
    call: Call,
    model: Model,
    symbol: Annotated[
        str | None,
        typer.Option(
            help="Only this symbol; one that it was not trained on, too.", show_default=False
        ),
    ] = None,
    start: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="DATE",
            help="First day, YYYY-MM-DD; default: its test split.",
            show_default=False,
        ),
    ] = None,
    end: Annotated[
        str | None,
        typer.Option("--to", metavar="DATE", help="Last day, included.", show_default=False),
    ] = None,
    plot: Annotated[
        str | None,
        typer.Option(
            metavar="FILE.png", help="Draw calibration and equity curves.", show_default=False
        ),
    ] = None,
) -> int:
    """Judge a model on stored bars, beside what costs nothing to say.

    Without dates on the rows that its training kept for testing.
    """
    from ktrdr.reports import plots

    path = None if plot is None else plots.png_path(plot)
    with call.client() as client:
        found = client.evaluate(model, symbol, start, end)
    if path is not None:
        from ktrdr.reports.evaluation_plot import draw_evaluation

        draw_evaluation(found, path)
        render.say(f"evaluation drawn to {path}")
    return call.answer(found.document, lambda: _told(found.document))


def _told(document: Report) -> str:
    overall = document["overall"]
    parts = [
        _headline(document, overall),
        _metrics(document, overall),
        *([_by_class(overall["metrics"])] if document["classes"] else []),
        _trading(overall["trading"], document["round_trip_cost"]),
        *([_by_symbol(document)] if len(document["symbols"]) > 1 else []),
        "\n".join(f"note: {render.one_line(note)}" for note in document["notes"]),
    ]
    return "\n\n".join(part for part in parts if part)


def _headline(document: Report, overall: Report) -> str:
    where = "its test split" if document["rows_from"] == "test split" else "bars"
    return (
        f"{document['model']} on {', '.join(document['symbols'])} {document['timeframe']}: "
        f"{overall['rows']:,} rows of {where}, {overall['first']} .. {overall['last']}"
    )


def _metrics(document: Report, overall: Report) -> str:
    classes = document["classes"] is not None
    names = _CLASS_METRICS if classes else _VALUE_METRICS
    others = _CLASS_BASELINES if classes else _VALUE_BASELINES
    baselines = overall["baselines"]
    titles = [
        f"{name.upper()} ({baselines[name]['class']})" if name == "majority" else name.upper()
        for name in others
    ]
    rows = [
        [
            _words(name),
            _number(overall["metrics"][name]),
            *(_number(baselines[other].get(name)) for other in others),
        ]
        for name in names
    ]
    return render.table(["", "MODEL", *titles], rows)


def _by_class(metrics: Report) -> str:
    figures = metrics["per_class"]
    columns = ("precision", "recall", "f1", "support", "predicted")
    rows = [
        [name, *(_number(own[column]) for column in columns), *counts]
        for (name, own), counts in zip(figures.items(), metrics["confusion_matrix"], strict=True)
    ]
    heads = [*(column.upper() for column in columns), *(f"AS {name}" for name in figures)]
    return render.table(["CLASS", *heads], rows)


def _trading(trading: Report | None, cost: float | None) -> str:
    if trading is None:
        return ""
    held = trading["buy_and_hold"]
    columns = (trading["gross"], trading["net"], held["gross"], held["net"])
    rows = [[_words(name), *(_number(one[name]) for one in columns)] for name in _RETURNS]
    followed, kept = _number(trading["turnover"]), _number(held["turnover"])
    rows += [
        ["turnover", followed, followed, kept, kept],
        ["exposure", _number(trading["exposure"]), None, "1", None],
        ["hit rate", _number(trading["hit_rate"]), None, None, None],
    ]
    after = f"AFTER COSTS ({cost or 0:g})"
    title = f"FOLLOWED FOR {trading['bars']:,} BARS"
    return render.table([title, "MODEL", after, "BUY AND HOLD", after], rows)


def _by_symbol(document: Report) -> str:
    name = "accuracy" if document["classes"] else "sign_agreement"
    other = "majority" if document["classes"] else "zero"
    rows = [
        [
            one["symbol"],
            f"{one['rows']:,}",
            _number(one["metrics"][name]),
            _number(one["baselines"][other][name]),
            _number(one["trading"] and one["trading"]["net"]["total_return"]),
            _number(one["trading"] and one["trading"]["buy_and_hold"]["net"]["total_return"]),
        ]
        for one in document["by_symbol"]
    ]
    heads = ("SYMBOL", "ROWS", _words(name).upper(), other.upper(), "NET RETURN", "BUY AND HOLD")
    return render.table(heads, rows)


def _words(name: str) -> str:
    return name.replace("_", " ")


def _number(value: float | None) -> str | None:
    if value is None:
        return None
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"
