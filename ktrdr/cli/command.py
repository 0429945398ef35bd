"""What all commands share: the settings as options, `--json`, and how an answer is given."""

from __future__ import annotations

import contextlib
import functools
import inspect
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass
from inspect import Parameter
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ktrdr.cli import render
from ktrdr.errors import Usage

if TYPE_CHECKING:
    from ktrdr.client import Client
    from ktrdr.settings import Settings

Command = Callable[..., int]

Model = Annotated[
    str, typer.Argument(metavar="NAME[@vN]", help="A strategy's name; its newest version.")
]

OperationId = Annotated[
    str,
    typer.Argument(
        metavar="ID",
        help="An id, 4 or more characters of its beginning or end, @last, or @2 (newest first).",
    ),
]

SHARED = {
    "home": (
        "--home",
        str | None,
        None,
        "Folder of what this machine keeps. [KTRDR_HOME, default: ~/.ktrdr]",
    ),
    "database_url": (
        "--database-url",
        str | None,
        None,
        "Where operations are recorded. [KTRDR_DATABASE_URL, default: SQLite in the home]",
    ),
    "storage": (
        "--storage",
        str | None,
        None,
        "Folder of bars, checkpoints and models. [KTRDR_STORAGE, default: in the home]",
    ),
    "as_json": ("--json", bool, False, "Print exactly one JSON document to stdout."),
}


@dataclass(frozen=True)
class Call:
    """One call of a command: where its things lie and how it is answered."""

    home: str | None
    database_url: str | None
    storage: str | None
    as_json: bool

    def settings(self) -> Settings:
        from ktrdr.settings import read_settings

        return read_settings(
            os.environ, home=self.home, database_url=self.database_url, storage=self.storage
        )

    @contextlib.contextmanager
    def client(self) -> Iterator[Client]:
        """A client for the time of the command; stdout belongs to the answer meanwhile."""
        from ktrdr.client import Client

        settings = self.settings()
        with (
            render.stdout_is_ours(),
            Client(settings, on_notice=render.say) as client,
        ):
            yield client

    def answer(self, document: Mapping[str, Any], for_people: Callable[[], str]) -> int:
        """Print the one or the other; the status of success."""
        if self.as_json:
            render.document(document)
        else:
            render.text(for_people())
        return 0

    def answer_list(
        self, name: str, items: list[dict[str, Any]], for_people: Callable[[], str]
    ) -> int:
        return self.answer({name: items, "total": len(items)}, for_people)


def command(app: typer.Typer, name: str) -> Callable[[Command], Command]:
    """Register a function of (Call, its own parameters) that returns the exit status.

    Each field of a parameter that is a dataclass is an option of its own.
    """

    def register(function: Command) -> Command:
        own = _parameters(function)[1:]
        groups: dict[str, Any] = {p.name: p.annotation for p in own if is_dataclass(p.annotation)}
        single = [
            q for p in own for q in (_parameters(groups[p.name]) if p.name in groups else [p])
        ]

        @functools.wraps(function)
        def run(**arguments: Any) -> int:
            call = Call(**{shared: arguments.pop(shared) for shared in SHARED})
            for name, kind in groups.items():
                given = {field.name: arguments.pop(field.name) for field in fields(kind)}
                arguments[name] = kind(**given)
            return function(call, **arguments)

        parameters = [p.replace(kind=Parameter.KEYWORD_ONLY) for p in (*single, *_shared())]
        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {p.name: p.annotation for p in parameters}
        app.command(name)(run)
        return function

    return register


def _parameters(function: Callable[..., Any]) -> list[Parameter]:
    return list(inspect.signature(function, eval_str=True).parameters.values())


def group(app: typer.Typer, name: str, help_text: str) -> typer.Typer:
    """A family of commands such as `operations`."""
    family = new_app(help_text)
    app.add_typer(family, name=name)
    return family


def new_app(help_text: str) -> typer.Typer:
    """Plain help without rich, which would cost a start more than all the rest."""
    return typer.Typer(
        help=help_text,
        add_completion=False,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
    )


def names(value: str | None, option: str) -> list[str] | None:
    """The parts of a comma-separated option."""
    if value is None:
        return None
    parts = [part.strip() for part in value.split(",")]
    if not all(parts):
        raise Usage(f"{option} {value[:80]!r} names nothing between its commas: write A,B")
    return parts


def _shared() -> list[Parameter]:
    return [
        Parameter(
            name,
            Parameter.KEYWORD_ONLY,
            default=default,
            annotation=Annotated[kind, typer.Option(flag, help=text, show_default=False)],
        )
        for name, (flag, kind, default, text) in SHARED.items()
    ]
