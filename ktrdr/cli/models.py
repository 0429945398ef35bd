"""`ktrdr models ...`."""

from __future__ import annotations

import re
from typing import Annotated

import typer

from ktrdr.cli import render, views
from ktrdr.cli.command import Call, command, group
from ktrdr.errors import InvalidId

_NAME = re.compile(r"([A-Za-z0-9][A-Za-z0-9_-]{0,63})(?:@v([1-9][0-9]{0,8}))?")


def add_to(app: typer.Typer) -> None:
    family = group(app, "models", "Look at trained models.")
    command(family, "list")(list_models)
    command(family, "show")(show)


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
    name, version = _parse(model)
    with call.client() as client:
        info = client.model_info(name, version)
    return call.answer(info, lambda: render.fields(views.nested(info)))


def _parse(model: str) -> tuple[str, int | None]:
    match = _NAME.fullmatch(model)
    if match is None:
        raise InvalidId(
            f"{model[:60]!a} is not the name of a model: write NAME or NAME@vN; see"
            " `ktrdr models list`"
        )
    return match[1], None if match[2] is None else int(match[2])
