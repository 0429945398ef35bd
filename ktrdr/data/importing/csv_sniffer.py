"""Detection of delimiter, header and width from the first rows of a text table."""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from dataclasses import dataclass

from ktrdr.data.importing.archives import Content, refuse
from ktrdr.data.importing.timestamps import is_time

_SAMPLE_BYTES = 1 << 16
_SEPARATORS = (";", "\t", "|", ",")  # a comma may stand inside a number, the others never do
_FEWEST_FIELDS = 5
_HEADER_LINES = 6

Row = tuple[str, ...]


@dataclass(frozen=True)
class Head:
    """What the first rows show.

    `header` holds the names as written, None where the table has none; `rows` are rows of `width`
    fields, whose first is on `first_line`; `preamble` is what stands above all that. `kind` is
    text, json, feather or parquet.
    """

    name: str
    kind: str
    header: Row | None
    rows: tuple[Row, ...]
    width: int
    first_line: int = 1
    separator: str = ","
    preamble: str = ""

    @property
    def names(self) -> list[str]:
        """The header in lower case, without brackets, blanks as underscores."""
        return [plain(name) for name in self.header or ()]


def read_head(content: Content) -> Head:
    """Look at the first 64 KiB of a text; raises InvalidData where it is no table."""
    text = _sample(content)
    separator = _choose_separator(text)
    lines = _split(content, text, separator)
    if not lines:
        raise refuse(content.path, "it is empty")
    for place in range(min(_HEADER_LINES, len(lines))):
        header, below = _header_at(lines, place)
        if header:
            break
    else:
        place, header, below = 0, (), 0
    data = [row for _, row in lines[below:]]
    if header:
        header, width = _fit(header, data)
    else:
        width = _usual_width(data)
    return Head(
        name=content.name,
        kind="text",
        header=header or None,
        rows=tuple(row for row in data if len(row) == width),
        width=width,
        first_line=lines[below - 1][0] + 1 if below else 1,
        separator=separator,
        preamble=" ".join(field for _, row in lines[:place] for field in row),
    )


def plain(name: str) -> str:
    """A column's name for comparison: `<TICKVOL>`, `Tick-Volume`, `Close*`, `1. open` and
    `Time (EET)` lose their dress; the currency of `Volume_(BTC)` stays."""
    named = re.sub(r"(?i)^(volume)[_ ]?\(([a-z0-9]+)\)$", r"\1_\2", name.strip())
    bare = re.sub(r"\([^)]*\)|^[0-9]+[a-z]?\. ", "", named).strip().strip("<>").strip(" .*")
    return re.sub(r"[ \-]+", "_", bare.lower())


def _sample(content: Content) -> str:
    sample = content.data[:_SAMPLE_BYTES]
    if not sample.strip() and not content.data.strip():
        raise refuse(content.path, "it is empty")
    if b"\0" in sample:
        raise refuse(content.path, "it is neither text nor Parquet", "export it as CSV in UTF-8")
    try:
        sample.split(b"\n", 1)[0].decode("utf-8", "strict" if b"\n" in sample else "replace")
    except UnicodeDecodeError as error:
        raise refuse(
            content.path, "its first line is not UTF-8 CSV", "export it as CSV in UTF-8"
        ) from error
    if len(content.data) > _SAMPLE_BYTES and b"\n" in sample:
        sample = sample[: sample.rindex(b"\n") + 1]
    return sample.decode("utf-8", "replace")


def _choose_separator(text: str) -> str:
    """The first one that splits most lines into equally many fields, enough of them."""
    lines = [line for line in text.splitlines()[:200] if line.strip()]
    for separator in _SEPARATORS:
        counts = Counter(line.count(separator) for line in lines)
        fields, times = counts.most_common(1)[0]
        if fields + 1 >= _FEWEST_FIELDS and times * 2 >= len(lines):
            return separator
    return ","


def _split(content: Content, text: str, separator: str) -> list[tuple[int, Row]]:
    """The rows that are not blank, each with the number of the line it ends on."""
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=separator)
    try:
        return [(rows.line_num, tuple(f.strip() for f in row)) for row in rows if any(row)]
    except csv.Error as error:
        raise refuse(content.path, f"line {rows.line_num} is not CSV ({error})") from error


def _header_at(lines: list[tuple[int, Row]], place: int) -> tuple[Row, int]:
    """(names, how many rows the header ends after), without names where no header is there."""
    row = lines[place][1]
    names = {plain(name) for name in row}
    if "price" in names and len(lines) > place + 2 and lines[place + 1][1][0] == "Ticker":
        return (lines[place + 2][1][0], *row[1:]), place + 3  # the three lines of yfinance
    bare = {re.sub("^<?((bid|ask)_?)?", "", name) for name in names}
    is_header = sum(any(name.startswith(word) for name in bare) for word in _WORDS) >= 3
    short = names >= {"o", "h", "l", "c"}
    return (row, place + 1) if is_header or short else ((), 0)


_WORDS = ("open", "high", "low", "close", "max", "min")


def _fit(header: Row, data: list[Row]) -> tuple[Row, int]:
    """The header and the width, where rows have an unnamed index or end in a separator."""
    width = _usual_width(data)
    if width == len(header) + 1:
        rows = [row for row in data if len(row) == width]
        if all(row[-1] == "" for row in rows):
            return (*header, ""), width
        if is_time(rows[0][0]) and not is_time(rows[0][1]):
            return ("", *header), width
    if width == len(header) - 1 and header[-1] == "":
        return header[:-1], width
    return header, len(header)


def _usual_width(rows: list[Row]) -> int:
    return Counter(len(row) for row in rows).most_common(1)[0][0] if rows else 0
