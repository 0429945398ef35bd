"""`ktrdr models predict`: what a model says to stored bars."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from ktrdr.cli import render
from ktrdr.cli.command import Call, Model, command

if TYPE_CHECKING:
    import polars as pl

_SHOWN_ROWS = 10


def add_to(family: typer.Typer) -> None:
    command(family, "predict")(predict)


def predict(
    call: Call,
    model: Model,
    symbol: Annotated[str, typer.Option(help="Symbol, such as EURUSD.", show_default=False)],
    timeframe: Annotated[
        str | None,
        typer.Option(
            help="Answer at bars of another timeframe; only where the model has just one.",
            show_default=False,
        ),
    ] = None,
    start: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="DATE",
            help="First day to predict at, YYYY-MM-DD.",
            show_default=False,
        ),
    ] = None,
    end: Annotated[
        str | None,
        typer.Option(
            "--to", metavar="DATE", help="Last day to predict at, inclusive.", show_default=False
        ),
    ] = None,
    out: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="Write all rows to this file, .csv or .parquet.",
            show_default=False,
        ),
    ] = None,
) -> int:
    """Say what a model foresees at each stored bar of a symbol.

    One row per bar that has enough history: the probability of each class, or the value. Bars
    before --from serve as history.
    """
    from ktrdr.data import frames
    from ktrdr.data.bars import parse_date_range
    from ktrdr.inference import prediction

    path = None if out is None else frames.output_path(out)
    within = parse_date_range(start, end)
    with call.client() as client:
        loaded = client.load_model(model)
        market = prediction.stored_market(loaded, client.bars, symbol, timeframe)
        found = prediction.predict(loaded, market, *within)
    summary = {
        "model": loaded.name,
        "symbol": symbol,
        "timeframe": market.base_timeframe,
        "rows": len(found),
        "columns": found.columns,
        **_ends(found),
    }
    if market.base_timeframe != loaded.strategy.base_timeframe:
        render.say(f"note: {loaded.name} was trained on {loaded.strategy.base_timeframe} bars")
    if path is not None:
        frames.write_frame(found, path)
        return call.answer({**summary, "out": str(path)}, lambda: f"{_told(summary)} -> {path}")
    if not call.as_json:
        return call.answer({}, lambda: f"{_told(summary)}\n\n{_table(found)}")
    rows = frames.with_plain_values(found).to_dicts()
    return call.answer({**summary, "out": None, "predictions": rows}, str)


def _ends(found: pl.DataFrame) -> dict[str, str]:
    from ktrdr.data.frames import with_plain_values

    first, last = with_plain_values(found[[0, -1]])["timestamp"]
    return {"first": first, "last": last}


def _told(summary: dict[str, Any]) -> str:
    return (
        f"{summary['model']} on {summary['symbol']} {summary['timeframe']}: "
        f"{summary['rows']:,} bars, {summary['first']} .. {summary['last']}"
    )


def _table(found: pl.DataFrame) -> str:
    """The last rows."""
    from ktrdr.data.frames import with_plain_values

    rows = with_plain_values(found.tail(_SHOWN_ROWS)).rows()
    shown = [[row[0], *(f"{value:.4f}" for value in row[1:])] for row in rows]
    if "value" in found.columns:
        shown = [[row[0], f"{row[1]:.4g}"] for row in rows]
    return render.table(["TIMESTAMP", *found.columns[1:]], shown)
