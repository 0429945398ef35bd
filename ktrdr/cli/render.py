"""Everything that the command line prints: answers to stdout, messages and progress to stderr.

A reader that goes away (`| head`) must neither end a training nor change an exit status, so all
writing goes through here.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, TextIO

from ktrdr.errors import KtrdrError, OutputLost

_LONGEST_MESSAGE = 4000
_LONGEST_WORD = 300
_GAP = "  "

Columns = dict[str, list[str]]


_ours: TextIO | None = None
"""The stdout of this process while nobody else may write to it."""


@contextlib.contextmanager
def stdout_is_ours() -> Iterator[None]:
    """Keep others from writing to stdout, such as Ray's notice of a killed driver: what is
    piped to a program must be our answer and nothing else."""
    global _ours
    if _ours is not None or sys.stdout is None:
        yield
        return
    with open(os.devnull, "w", encoding="utf-8") as nowhere:
        _ours, sys.stdout = sys.stdout, nowhere
        try:
            yield
        finally:
            sys.stdout, _ours = _ours, None


def document(value: Mapping[str, Any]) -> None:
    """The one JSON document of a command with `--json`."""
    text(json.dumps(value, indent=2, allow_nan=False, default=str))


def text(answer: str, end: str = "\n") -> None:
    """A command's answer for people.

    Raises OutputLost when it cannot be stored (a full disk); a pipe without a reader is no error.
    """
    stdout = _stdout()
    try:
        _write(stdout, answer + end)
    except (OSError, ValueError) as error:
        _silence(stdout)
        if not isinstance(error, BrokenPipeError):
            raise OutputLost(f"cannot write the answer to stdout: {error}") from None


def say(message: str) -> None:
    """One line of message on stderr; a message that nobody can read is dropped."""
    try:
        _write(sys.stderr, one_line(message) + "\n")
    except (OSError, ValueError):
        _silence(sys.stderr)


def failure(error: KtrdrError, as_json: bool) -> None:
    """An error: one line on stderr, and with `--json` the document on stdout too."""
    message = one_line(error.message)
    if as_json:
        with contextlib.suppress(OutputLost):
            document(failure_document(error.code, message, error.details))
    say(f"error: {message}")


def failure_document(code: str, message: str, details: Mapping[str, Any]) -> dict[str, Any]:
    return {"error": {"code": code, "message": message, "details": dict(details)}}


def silence_stdout() -> None:
    """Nobody reads on: what is still buffered must not fail when the process ends."""
    _silence(sys.stdout)


def one_line(message: str) -> str:
    """A message as it may stand on a terminal: one line, no control characters, not endless."""
    printable = "".join(
        c if c.isprintable() else c.encode("unicode_escape").decode() for c in message
    )
    cut = re.sub(rf"\S{{{_LONGEST_WORD + 1},}}", _shortened, printable)
    return cut if len(cut) <= _LONGEST_MESSAGE else cut[:_LONGEST_MESSAGE] + "..."


def fields(pairs: Sequence[tuple[str, Any]]) -> str:
    """Names and values in two columns; what does not exist yet is left out."""
    known = [(name, value) for name, value in pairs if value is not None]
    width = max((len(name) for name, _ in known), default=0)
    return "\n".join(f"{name:<{width}}  {one_line(str(value))}" for name, value in known)


def nested(value: Any, name: str = "") -> list[tuple[str, Any]]:
    """A document as dotted names and values."""
    if isinstance(value, Mapping):
        inner = [nested(v, f"{name}.{k}" if name else str(k)) for k, v in value.items()]
        return [pair for pairs in inner for pair in pairs]
    return [(name, number(value))]


def day_and_time(timestamp: str | None) -> str | None:
    """A record's time for a list: to the minute on a terminal, elsewhere whole."""
    if timestamp is None or not on_terminal():
        return timestamp
    return timestamp[:16].replace("T", " ")


def number(value: Any) -> Any:
    """A float with the six digits that people read; anything else as it is."""
    return f"{value:.6g}" if isinstance(value, float) else value


def on_terminal() -> bool:
    """Whether answers go to a terminal, whose width a table keeps to."""
    stdout = _stdout()
    return stdout is not None and stdout.isatty()


def table(
    headers: Sequence[str],
    rows: Sequence[Sequence[Any]],
    cut: Collection[str] = (),
    drop: Sequence[str] = (),
) -> str:
    """A table as wide as the terminal, or as wide as needed where there is none.

    On a terminal that is too narrow, columns in `drop` are left out, the first one first; then
    those in `cut` lose what does not fit, so that a row is one line. Of a path or of a model's
    name and version the end is kept.
    """
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(highlight=False, emoji=False, legacy_windows=False, color_system=None)
    console.width = console.width if on_terminal() else 10_000
    console.file = drawing = io.StringIO()  # stdout may be full, which is ours to tell
    columns = {
        header: ["" if row[i] is None else one_line(str(row[i])) for row in rows]
        for i, header in enumerate(headers)
    }
    columns = _fitted(_fewer(columns, drop, console.width), cut, console.width)
    drawn = Table(box=None, pad_edge=False, header_style="")
    for place, header in enumerate(columns):
        drawn.add_column(header, no_wrap=place == 0, overflow="fold")
    for cells in zip(*columns.values(), strict=True):
        drawn.add_row(*(Text(cell) for cell in cells))
    console.print(drawn)
    return "\n".join(line.rstrip() for line in drawing.getvalue().splitlines())


@contextlib.contextmanager
def live_line() -> Iterator[Callable[[str], None] | None]:
    """Give what shows a line that replaces the one before; None where stderr is no terminal.

    Messages may be printed meanwhile with what `say` prints: they go above the line.
    """
    if sys.stderr is None or not sys.stderr.isatty() or os.environ.get("TERM") == "dumb":
        yield None
        return
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    console = Console(stderr=True, highlight=False)
    live = Live(console=console, auto_refresh=False, transient=True, redirect_stdout=False)
    live.start()

    def show(line: str) -> None:
        shown = Text(one_line(line), no_wrap=True, overflow="ellipsis")
        with contextlib.suppress(OSError):  # a terminal that is gone must not end the training
            live.update(shown, refresh=True)

    try:
        yield show
    finally:
        with contextlib.suppress(OSError):
            live.stop()


def _fewer(columns: Columns, drop: Sequence[str], width: int) -> Columns:
    """The columns without those that may be left out, as far as the width asks for it."""
    for header in drop:
        if _excess(_widths(columns), width) > 0:
            columns = {name: cells for name, cells in columns.items() if name != header}
    return columns


def _fitted(columns: Columns, cut: Collection[str], width: int) -> Columns:
    """The columns, those that may be cut as narrow as the width asks for."""
    widths, flexible = _widths(columns), [header for header in columns if header in cut]
    while flexible and _excess(widths, width) > 0:
        widest = max(flexible, key=lambda header: widths[header])
        if widths[widest] <= len(widest):
            break
        widths[widest] -= 1
    return columns | {
        header: [_cut(cell, widths[header]) for cell in columns[header]] for header in flexible
    }


def _widths(columns: Columns) -> dict[str, int]:
    return {header: max(map(len, [header, *cells])) for header, cells in columns.items()}


def _excess(widths: Mapping[str, int], width: int) -> int:
    return sum(widths.values()) + len(_GAP) * (len(widths) - 1) - width


def _cut(cell: str, width: int) -> str:
    if len(cell) <= width:
        return cell
    keep_end = "/" in cell or "@v" in cell
    return ".." + cell[len(cell) - width + 2 :] if keep_end else cell[: width - 2] + ".."


def _shortened(match: re.Match[str]) -> str:
    word = match[0]
    return f"{word[: _LONGEST_WORD // 4]}...({len(word)} characters)"


def _stdout() -> TextIO | None:
    return _ours if _ours is not None else sys.stdout


def _write(stream: TextIO | None, content: str) -> None:
    if stream is None:  # closed before the program began (`>&-`)
        return
    encoding = stream.encoding or "utf-8"
    stream.write(content.encode(encoding, "backslashreplace").decode(encoding))
    stream.flush()


def _silence(stream: TextIO | None) -> None:
    """Send what is still buffered, and all that follows, to nowhere: no later flush must fail."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        try:
            os.dup2(nowhere, stream.fileno())  # type: ignore[union-attr]
        finally:
            os.close(nowhere)
