"""Texts of a column grouped by pattern, each group as a matrix of bytes.

The shape of a text is the text with every digit replaced by 0. A column of one shape, the usual
case for times, is a single matrix and needs no sorting.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ktrdr.data.bars import IntArray

Rows = IntArray | slice

_MOST_SHAPES = 2000
_LONGEST_TEXT = 64


def shape_of(text: str) -> str:
    """The shape of one text, without blanks around it."""
    return re.sub("[0-9]", "0", text.strip())


def by_shape(text: pl.Series) -> Iterator[tuple[str, Rows, NDArray[np.uint8]]]:
    """Each shape with its rows and their bytes, as a matrix [length of the text, rows]."""
    whole = _bytes(text)
    if whole is not None:
        shape = _common_shape(whole)
        if shape is not None:
            bare = shape.strip()
            start = shape.find(bare)
            yield bare, slice(None), whole[start : start + len(bare)]
            return
    text = text.str.strip_chars()
    text = text.set(text.str.len_bytes() > _LONGEST_TEXT, "")
    shapes = text.str.replace_all("[0-9]", "0")
    frame = pl.DataFrame({"shape": shapes}).with_row_index("row")
    found = frame.group_by("shape", maintain_order=True).agg("row", pl.len().alias("count"))
    for shape, row_list, _ in found.sort("count", descending=True).head(_MOST_SHAPES).rows():
        rows = np.asarray(row_list, np.int64)
        digits = _bytes(text.gather(rows)) if shape.isascii() else None
        if digits is not None:
            yield shape, rows, digits


def _bytes(text: pl.Series) -> NDArray[np.uint8] | None:
    """The texts' bytes with a row per place, or None where they are not equally long."""
    array = text.rechunk().to_arrow(compat_level=pl.CompatLevel.oldest())
    count = len(array)
    if count == 0:
        return None
    _, offset_buffer, data = array.buffers()
    offsets = np.frombuffer(offset_buffer, np.int64, count + 1, array.offset * 8)
    length = int(offsets[1] - offsets[0])
    if data is None or not 0 < length <= _LONGEST_TEXT or (np.diff(offsets) != length).any():
        return None
    flat = np.frombuffer(data, np.uint8, count * length, int(offsets[0]))
    return np.ascontiguousarray(flat.reshape(count, length).T)


def _common_shape(places: NDArray[np.uint8]) -> str | None:
    """The shape of all these texts, or None where they have several."""
    letters = []
    for place in places:
        first = chr(place[0])
        if first.isdigit() and first.isascii():
            if ((place - np.uint8(48)) > 9).any():
                return None
            letters.append("0")
        elif (place != place[0]).any():
            return None
        else:
            letters.append(first)
    return "".join(letters)
