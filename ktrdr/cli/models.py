"""`ktrdr models ...`."""

from __future__ import annotations

from typing import Annotated

import typer

from ktrdr.cli import evaluating, predicting, render, views
from ktrdr.cli.command import Call, command, group
from ktrdr.operations.guards import parse_model_name


def add_to(app: typer.Typer) -> None:
    family = group(app, "models", "Look at trained models and use them.")
    command(family, "list")(list_models)
    command(family, "show")(show)
    predicting.add_to(family)
    evaluating.add_to(family)


def list_models(call: Call) -> int:
    """List the models of completed trainings."""
    with call.client() as client:
        found = client.models()
    return call.answer_list("models", found, lambda: views.models(found))


def show(
    call: Call,
    model: Annotated[
        str, typer.Argument(metavar="NAME[@vN]", help="A strategy's name; its newest version.")
    ],
) -> int:
    """Show a model: where it lies, what it was trained on, how good it is."""
    name, version = parse_model_name(model)
    with call.client() as client:
        info = client.model_info(name, version)
    return call.answer(info, lambda: render.fields(views.nested(info)))
