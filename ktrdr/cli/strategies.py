"""`ktrdr strategies ...`: read strategy files and say what is in them. Needs no store."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ktrdr.cli import render, strategy_check
from ktrdr.cli.command import Call, command, group
from ktrdr.errors import KtrdrError

if TYPE_CHECKING:
    from ktrdr.strategy.schema import Strategy

FOLDER = Path("strategies")
StrategyFile = Annotated[str, typer.Argument(metavar="FILE", help="A strategy's YAML file.")]


def add_to(app: typer.Typer) -> None:
    family = group(app, "strategies", "Look at strategy files and check them.")
    command(family, "list")(list_strategies)
    command(family, "validate")(validate)
    command(family, "show")(show)
    command(family, "migrate")(migrate)
    strategy_check.add_to(family)


def list_strategies(call: Call) -> int:
    """List the files strategies/*.yaml below this folder."""
    paths = sorted([*FOLDER.glob("*.yaml"), *FOLDER.glob("*.yml")])
    found = [_summary(path) for path in paths]
    return call.answer_list("strategies", found, lambda: _strategies(found))


def validate(call: Call, file: StrategyFile) -> int:
    """Check a strategy file: every mistake is named at once."""
    from ktrdr.strategy.loading import load_strategy
    from ktrdr.strategy.warnings import notes

    strategy = load_strategy(Path(file))
    facts = {"valid": True, **_facts(file, strategy), "notes": notes(strategy)}
    lines = [f"{file}: valid", *facts["notes"]]
    return call.answer(facts, lambda: "\n".join(map(render.one_line, lines)))


def show(call: Call, file: StrategyFile) -> int:
    """Show a strategy with all defaults filled in."""
    from ktrdr.strategy.loading import config, load_strategy

    strategy = load_strategy(Path(file))
    effective = config(strategy)
    return call.answer(
        {**_facts(file, strategy), "config": effective}, lambda: _yaml(file, effective)
    )


def migrate(
    call: Call,
    file: StrategyFile,
    out: Annotated[
        str | None,
        typer.Option("--out", metavar="FILE", help="Write there; the file must not exist."),
    ] = None,
) -> int:
    """Rewrite an older strategy file: print it as it is written today, and say each change."""
    from ktrdr.errors import InvalidStrategy
    from ktrdr.strategy.migration import migration

    if out is not None:
        migration.refuse_taken(Path(out))
    migrated = migration.migrate(Path(file))
    said = [str(change) for change in migrated.changes] or ["nothing to change"]
    if not migrated.valid:
        for line in () if call.as_json else said:
            render.say(f"{file}: {line}")
        facts = {"path": file, "out": None, "valid": False, **migration.facts(migrated)}
        raise InvalidStrategy(migration.refusal(migrated, file), **facts)
    if out is not None:
        migration.write_new(Path(out), migrated.text)
    facts = {"path": file, "out": out, "valid": True, **migration.facts(migrated)}
    if call.as_json:
        render.document(facts)
    elif out is not None:
        render.text("\n".join(render.one_line(line) for line in (*said, f"{out}: written, valid")))
    else:
        for line in said:
            render.say(f"{file}: {line}")
        render.text(migrated.text, end="")
    return 0


def _summary(path: Path) -> dict[str, Any]:
    from ktrdr.strategy.loading import load_strategy

    nothing = dict.fromkeys(("name", "description", "symbols", "timeframes", "epochs"))
    try:
        facts = _facts(str(path), load_strategy(path))
        return {**facts, "error": None}
    except KtrdrError as error:
        return {"path": str(path), **nothing, "fingerprint": None, "error": error.message}


def _facts(file: str, strategy: Strategy) -> dict[str, Any]:
    from ktrdr.strategy.loading import fingerprint

    return {
        "path": file,
        "name": strategy.name,
        "description": strategy.description,
        "symbols": list(strategy.symbols),
        "timeframes": list(strategy.timeframes),
        "epochs": strategy.training.epochs,
        "fingerprint": fingerprint(strategy),
    }


def _yaml(file: str, effective: dict[str, Any]) -> str:
    import yaml

    return f"# {render.one_line(file)}\n" + yaml.safe_dump(effective, sort_keys=False).rstrip()


def _strategies(items: Sequence[dict[str, Any]]) -> str:
    rows = [(s["path"], s["name"], s["error"] or s["description"]) for s in items]
    if not rows:
        return "no strategies/*.yaml below this folder"
    return render.table(("FILE", "NAME", "REMARK"), rows)
