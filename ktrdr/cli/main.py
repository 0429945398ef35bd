"""The entry of `ktrdr`: parse, run, and end with the one line and the status that an error has."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Annotated, cast

import typer

from ktrdr import __version__
from ktrdr.cli import checkpoints, cluster, data, models, operations, render, strategies, verify
from ktrdr.cli.command import new_app
from ktrdr.cli.interrupts import Interrupted, disregard_signals
from ktrdr.errors import KtrdrError, Usage

DEBUG_VARIABLE = "KTRDR_DEBUG"
_UsageError = cast(type[Exception], typer.BadParameter.__mro__[1])  # all that the parser refuses

app = new_app("Train neuro-fuzzy trading models, and never lose a training run.")
operations.add_to(app)
cluster.add_to(app)
verify.add_to(app)
checkpoints.add_to(app)
models.add_to(app)
strategies.add_to(app)
data.add_to(app)


class InternalError(KtrdrError):
    """A mistake of ours."""

    code = "INTERNAL_ERROR"


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and leave with its exit status."""
    status = run(sys.argv[1:] if arguments is None else arguments)
    disregard_signals()
    sys.exit(status)


def run(arguments: Sequence[str]) -> int:
    """Run one command; returns the exit status and never raises. No word at all asks for help."""
    try:
        return _run(arguments or ["--help"])
    except KtrdrError as error:
        failed = error
    except KeyboardInterrupt:
        failed = Interrupted("interrupted")
    except BrokenPipeError:  # the reader of a help text went away
        render.silence_stdout()
        return 0
    except Exception as error:
        failed = _internal_error(error)
    render.failure(failed, as_json=_wants_json(arguments))
    return failed.exit_status


def _run(arguments: Sequence[str]) -> int:
    """Parse and call; the parser's own exceptions become ours."""
    command = typer.main.get_command(app)
    try:
        with command.make_context("ktrdr", list(arguments)) as context:
            return int(command.invoke(context) or 0)
    except typer.Exit as left:
        return int(left.exit_code)
    except _UsageError as error:
        raise _usage(error) from None


def _usage(error: Exception) -> Usage:
    context = getattr(error, "ctx", None)
    path = context.command_path if context is not None else "ktrdr"
    said = error.format_message().replace("Value error, ", "").rstrip(".")  # type: ignore[attr-defined]
    return Usage(f"{said}: see `{path} --help`")


def _internal_error(error: Exception) -> InternalError:
    if os.environ.get(DEBUG_VARIABLE) == "1":
        import traceback

        traceback.print_exc()
    return InternalError(
        f"internal error: {type(error).__name__}: {error}; please report it, with what"
        f" {DEBUG_VARIABLE}=1 prints before this line"
    )


def _wants_json(arguments: Sequence[str]) -> bool:
    """Read from the words themselves: they may be wrong in any other way."""
    words = list(arguments)
    return "--json" in (words[: words.index("--")] if "--" in words else words)


def _show_version(wanted: bool) -> None:
    if wanted:
        render.text(f"ktrdr {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version."),
    ] = False,
) -> None:
    del version
