"""`ktrdr data ...`: market bars in the storage."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ktrdr.cli import data_check, render
from ktrdr.cli.command import Call, command, group

if TYPE_CHECKING:
    from ktrdr.data.bars import Bars
    from ktrdr.data.store import BarsSummary, Range

_SHOWN_ROWS = 3


def add_to(app: typer.Typer) -> None:
    family = group(app, "data", "Import market bars and look at them.")
    command(family, "import")(import_bars)
    command(family, "list")(list_bars)
    command(family, "show")(show)
    command(family, "sample")(sample)
    data_check.add_to(family)


def import_bars(
    call: Call,
    file: Annotated[
        str,
        typer.Argument(metavar="FILE", help="CSV or JSON (also .gz, .zip), Parquet or Feather."),
    ],
    symbol: Annotated[str, typer.Option(help="Symbol, such as EURUSD.")],
    timeframe: Annotated[str, typer.Option(help="Timeframe, such as 5m, 1h or 1d.")],
    format_name: Annotated[
        str, typer.Option("--format", help="Whose export it is; auto recognises it.")
    ] = "auto",
    timezone: Annotated[
        str | None, typer.Option(help="Time zone of times without an offset.")
    ] = None,
    price_scale: Annotated[
        float | None, typer.Option(help="What one unit of its prices is worth, such as 0.00001.")
    ] = None,
    fix: Annotated[
        bool, typer.Option("--fix", help="Drop unusable rows and sort, instead of refusing.")
    ] = False,
) -> int:
    """Import a file of bars; what was stored of this symbol and timeframe is replaced."""
    from ktrdr.data.importing.importer import import_file

    report = import_file(
        *(Path(file), symbol, timeframe),
        format=format_name,
        timezone=timezone,
        price_scale=price_scale,
        fix=fix,
    )
    with call.client() as client:
        old, new = client.bars.write(report.bars, imported_from=str(Path(file).absolute()))
    answer = {
        **_imported(report.bars, old, new),
        "format": report.format,
        "timezone": report.timezone,
        "columns": report.columns,
        "dropped": report.dropped,
        "moved": report.moved,
        "notes": list(report.notes),
    }
    return call.answer(answer, lambda: _say_imported(answer))


def list_bars(call: Call) -> int:
    """List the stored bars."""
    with call.client() as client:
        found = [_summary(s) for s in client.bars.summaries()]
    return call.answer_list("bars", found, lambda: _bars(found))


def show(
    call: Call,
    symbol: Annotated[str, typer.Argument(metavar="SYMBOL", help="Symbol, such as EURUSD.")],
    timeframe: Annotated[str, typer.Argument(metavar="TF", help="Timeframe, such as 5m.")],
) -> int:
    """Show what is stored of one symbol and timeframe, with its first and last rows."""
    from ktrdr.data.bars import fingerprint

    with call.client() as client:
        summary = client.bars.summary(symbol, timeframe)
        bars = client.bars.read(symbol, timeframe)
    facts = {**_summary(summary), "fingerprint": fingerprint(bars)}
    head, tail = _rows(bars.rows(0, _SHOWN_ROWS)), _rows(bars.rows(-_SHOWN_ROWS, len(bars)))
    return call.answer(
        {**facts, "head": head, "tail": tail},
        lambda: render.fields(list(facts.items())) + "\n\n" + _row_table(head, tail),
    )


def sample(call: Call) -> int:
    """Store synthetic bars, always the same ones, to try everything without market data."""
    from ktrdr.data.sample import sample_bars
    from ktrdr.data.store import SYNTHETIC

    bars = sample_bars()
    with call.client() as client:
        old, new = client.bars.write(bars, source=SYNTHETIC)
    answer = {**_imported(bars, old, new), "source": SYNTHETIC}
    return call.answer(answer, lambda: _say_imported(answer) + "; synthetic, no market data")


def _imported(bars: Bars, old: Range | None, new: Range) -> dict[str, Any]:
    return {
        "symbol": bars.symbol,
        "timeframe": bars.timeframe,
        "rows": len(bars),
        "old_range": _range(old),
        "new_range": _range(new),
    }


def _say_imported(answer: dict[str, Any]) -> str:
    new, old = answer["new_range"], answer["old_range"]
    said = f"{answer['symbol']} {answer['timeframe']}: {answer['rows']:,} bars,"
    said += f" {new['first']} .. {new['last']}"
    said += (
        f"; they replace {old['first']} .. {old['last']}" if old else "; none were stored before"
    )
    dropped = answer.get("dropped") or {}
    said += "".join(f"; dropped {n:,} {kind.replace('_', ' ')}" for kind, n in dropped.items())
    if answer.get("moved"):
        said += f"; sorted {answer['moved']:,}"
    taken = [f"read as {answer['format']}"] if "format" in answer else []
    return "\n".join(map(render.one_line, [said, *taken, *answer.get("notes", ())]))


def _summary(summary: BarsSummary) -> dict[str, Any]:
    from ktrdr.data.bars import format_us

    return {
        "symbol": summary.symbol,
        "timeframe": summary.timeframe,
        "rows": summary.rows,
        "first": None if summary.first is None else format_us(summary.first),
        "last": None if summary.last is None else format_us(summary.last),
        "source": summary.source,
        "imported_from": summary.imported_from,
        "problem": summary.problem,
    }


def _range(span: Range | None) -> dict[str, str] | None:
    from ktrdr.data.bars import format_us

    return None if span is None else {"first": format_us(span[0]), "last": format_us(span[1])}


def _rows(bars: Bars) -> list[dict[str, Any]]:
    from ktrdr.data.bars import columns, format_us

    names = ("open", "high", "low", "close", "volume")
    return [
        {"timestamp": format_us(int(row[0])), **dict(zip(names, map(float, row[1:]), strict=True))}
        for row in zip(*columns(bars), strict=True)
    ]


def _row_table(head: list[dict[str, Any]], tail: list[dict[str, Any]]) -> str:
    rows = [list(row.values()) for row in (*head, *tail)]
    return render.table([name.upper() for name in head[0]], rows)


def _bars(items: Sequence[dict[str, Any]]) -> str:
    headers = ("SYMBOL", "TIMEFRAME", "ROWS", "FIRST", "LAST", "SOURCE", "REMARK")
    rows = [
        (
            b["symbol"],
            b["timeframe"],
            f"{b['rows']:,}",
            b["first"],
            b["last"],
            b["source"],
            b["problem"] or b["imported_from"],
        )
        for b in items
    ]
    return render.table(headers, rows) if rows else "no bars; import some with: ktrdr data import"
