"""`ktrdr strategies check`: does a strategy look at the future, and what is it trained on."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ktrdr.cli import render
from ktrdr.cli.command import Call, command
from ktrdr.cli.training_options import BarArguments

if TYPE_CHECKING:
    from ktrdr.features.leaks import PipelineRun

_LEAKS = 1

Found = Mapping[str, Any]


def add_to(family: typer.Typer) -> None:
    command(family, "check")(check)


def check(
    call: Call,
    file: Annotated[str, typer.Argument(metavar="FILE", help="A strategy's YAML file.")],
    bars: BarArguments,
    points: Annotated[
        int, typer.Option(min=1, max=10_000, help="At how many points of each symbol to look.")
    ] = 8,
    seed: Annotated[
        int | None, typer.Option(min=0, max=2**32 - 1, help="Draw the points of an earlier check.")
    ] = None,
) -> int:
    """Look for leaks: cut off and change the future of the stored bars, and compute again.

    Names every input, label, split and fitted value that knows the future, and shows what the
    strategy would be trained on. Nothing is trained or written. Exit status: 0 clean, whatever
    the warnings say, 1 a leak was found.
    """
    run = _pipeline_run(call, Path(file), bars.options().checked())
    sampled_from = secrets.randbelow(2**32) if seed is None else seed
    found = _examine(run, sampled_from, points)
    call.answer(found, lambda: _say(found))
    return 0 if found["clean"] else _LEAKS


def _pipeline_run(call: Call, path: Path, overrides: Mapping[str, Any]) -> PipelineRun:
    from ktrdr.features.leaks import run_pipeline
    from ktrdr.storage.root import Storage
    from ktrdr.strategy.loading import load_strategy, with_overrides
    from ktrdr.usecases.submit import selected_bars

    strategy = with_overrides(load_strategy(path), overrides)
    return run_pipeline(strategy, selected_bars(strategy, Storage(call.settings().storage)))


def _examine(run: PipelineRun, seed: int, points: int) -> dict[str, Any]:
    from ktrdr.data.bars import format_us
    from ktrdr.features.dataset_report import report_dataset
    from ktrdr.features.leaks import find_leaks

    findings, report = find_leaks(run, seed, points), report_dataset(run)
    strategy = run.strategy
    return {
        "strategy": strategy.name,
        "symbols": list(strategy.symbols),
        "timeframes": list(strategy.timeframes),
        "folds": [fold.number for fold in run.folds],
        "seed": seed,
        "points": [
            {"symbol": point.symbol, "at": format_us(point.moment), "place": point.place}
            for point in findings.points
        ],
        "clean": not findings.leaks,
        "leaks": [leak.as_json() for leak in findings.leaks],
        "labels": asdict(report.labels),
        "splits": [facts.as_json() for facts in report.splits],
        "features": [asdict(facts) for facts in report.features],
        "warnings": [*report.warnings, *findings.notes],
    }


def _say(found: Found) -> str:
    parts = [_verdict(found)]
    parts += [_leaks(found["leaks"])] if found["leaks"] else []
    parts += [_facts(found), _splits(found["splits"])]
    parts += ["\n".join(f"warning: {render.one_line(text)}" for text in found["warnings"])]
    return "\n\n".join(part for part in parts if part)


def _verdict(found: Found) -> str:
    leaks = dict.fromkeys(leak["feature"] for leak in found["leaks"])
    if leaks:
        return f"LEAK: knows the future: {render.one_line(', '.join(leaks))}"
    return f"clean: nothing changed with the future, at {len(found['points']):,} points"


def _leaks(leaks: list[dict[str, Any]]) -> str:
    headers = ("FEATURE", "MADE OF", "KIND", "SYMBOL", "ROWS", "FIRST", "CHANGE", "KNOWN UNTIL")
    rows = [
        (
            leak["feature"],
            leak["source"],
            leak["kind"],
            leak["symbol"],
            f"{leak['rows']:,}" if leak["rows"] else None,
            leak["first"],
            None if leak["largest_change"] is None else f"{leak['largest_change']:.4g}",
            leak["at"],
        )
        for leak in leaks
    ]
    return render.table(headers, rows)


def _facts(found: Found) -> str:
    labels, folds = found["labels"], found["folds"]
    horizon = labels["horizon"]
    told = "up to the market" if horizon is None else f"{horizon:,} bars"
    return render.fields(
        [
            ("strategy", f"{found['strategy']}, {len(found['features'])} inputs"),
            ("bars", f"{', '.join(found['symbols'])} at {', '.join(found['timeframes'])}"),
            ("labels", f"{labels['source']}, {labels['samples']:,} before the purge"),
            ("horizon", f"{told}; the longest label took {labels['longest']:,} bars"),
            ("embargo", f"{labels['embargo']:,} bars"),
            ("folds checked", ", ".join(map(str, folds)) if len(folds) > 1 else None),
            ("sampled from", f"--seed {found['seed']}"),
        ]
    )


def _splits(splits: list[dict[str, Any]]) -> str:
    headers = ("SPLIT", "SYMBOL", "FOLD", "ROWS", "PURGED", "SAMPLES", "FIRST", "LAST", "LABELS")
    rows = [
        (
            facts["split"],
            facts["symbol"],
            facts["fold"],
            f"{facts['rows']:,}",
            f"{facts['purged']:,}",
            f"{facts['samples']:,}",
            facts["first"],
            facts["last"],
            _labels(facts),
        )
        for facts in splits
    ]
    return render.table(headers, rows)


def _labels(facts: Found) -> str | None:
    count = facts["samples"]
    if facts["classes"] is not None:
        return ", ".join(f"{name} {n / max(count, 1):.1%}" for name, n in facts["classes"].items())
    if facts["mean"] is None:
        return None
    return f"mean {facts['mean']:.4g}, deviation {facts['deviation']:.4g}"
