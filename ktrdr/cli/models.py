"""`ktrdr models ...`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import typer

from ktrdr.cli import model_evaluate, model_predict, render
from ktrdr.cli.command import Call, Model, command, group
from ktrdr.operations.ids import short_id
from ktrdr.operations.validation import parse_model_name


def add_to(app: typer.Typer) -> None:
    family = group(app, "models", "Look at trained models and use them.")
    command(family, "list")(list_models)
    command(family, "show")(show)
    command(family, "rules")(rules)
    model_predict.add_to(family)
    model_evaluate.add_to(family)


def list_models(call: Call) -> int:
    """List the models of completed trainings."""
    with call.client() as client:
        found = client.models()
    return call.answer_list("models", found, lambda: _models(found))


def show(call: Call, model: Model) -> int:
    """Show a model: where it lies, what it was trained on, how good it is."""
    name, version = parse_model_name(model)
    with call.client() as client:
        info = client.model_info(name, version)
    return call.answer(info, lambda: render.fields(render.nested(info)))


def rules(
    call: Call,
    model: Model,
    top: Annotated[
        int | None, typer.Option(min=1, help="Only so many, the weightiest.", show_default=False)
    ] = None,
    plot: Annotated[
        str | None,
        typer.Option(
            metavar="FILE.png",
            help="Draw the memberships as the strategy says and as training left them.",
            show_default=False,
        ),
    ] = None,
) -> int:
    """Print the rules of a neuro_fuzzy model, the weightiest first.

    WEIGHT: what a rule counts beside the others, 1 before training. SUPPORT: its mean share of the
    answers on the training rows, before training. STRONGEST INPUTS: how the conclusion changes per
    standard deviation of an input.
    """
    from ktrdr.reports import plots

    path = None if plot is None else plots.png_path(plot)
    name, version = parse_model_name(model)
    with call.client() as client:
        loaded = client.load_model(name, version)
        from ktrdr.inference.rules import inputs_of, rules_of

        found = rules_of(loaded)
        if path is not None:
            plots.draw_memberships(inputs_of(loaded), path)
            render.say(f"memberships drawn to {path}")
    shown = [rule.as_json() for rule in found[:top]]
    answer = {"rules": shown, "total": len(found)}
    return call.answer(answer, lambda: _rules(shown, len(found)))


def _models(items: Sequence[dict[str, Any]]) -> str:
    headers = ("MODEL", "OPERATION", "COMPLETED", "WEIGHTS", "PATH")
    rows = [
        (
            f"{m['name']}@v{m['version']}",
            short_id(m["operation_id"]),
            render.day_and_time(m["completed_at"]),
            str(m["weights_digest"])[:12],
            m["path"],
        )
        for m in items
    ]
    if not rows:
        return "no models; make one with: ktrdr train"
    return render.table(headers, rows, cut=("MODEL",), drop=("PATH", "WEIGHTS"))


def _rules(items: Sequence[dict[str, Any]], total: int) -> str:
    headers = ("WEIGHT", "SUPPORT", "RULE", "STRONGEST INPUTS")
    rows = [
        (
            f"{r['weight']:.3f}",
            f"{r['support']:.1%}",
            r["text"],
            ", ".join(f"{name} {change:+.3g}" for name, change in r["strongest"].items()),
        )
        for r in items
    ]
    table = render.table(headers, rows)
    return table if len(rows) == total else f"{table}\n{len(rows)} of {total} rules"
