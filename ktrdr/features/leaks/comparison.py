"""Leaks, and the bitwise comparison of two computations."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ktrdr.data.bars import IntArray, format_us

Kind = Literal["cut", "perturbed", "fit", "label", "split"]
AnyArray = NDArray[Any]

LABEL, ROWS = "label", "rows"  # what leaks where it is no input column


@dataclass(frozen=True)
class Leak:
    """Something that changed with a future that it must not know.

    `feature` is an input column, `label`, or `rows` (which of them there are); `source` what it is
    made of. So many `rows` changed, the first of them opens at `first`; 0 and None where it is
    what was fitted. `largest_change` is that of the column, or, where its fuzzy set hides it, of
    the indicator; None where it is no finite number. `at` is the moment until which everything was
    the same. Times are in microseconds UTC.
    """

    feature: str
    source: str
    kind: Kind
    symbol: str | None
    first: int | None
    rows: int
    largest_change: float | None
    at: int

    def as_json(self) -> dict[str, Any]:
        first = None if self.first is None else format_us(self.first)
        return asdict(self) | {"first": first, "at": format_us(self.at)}


def merged(leaks: Iterable[Leak]) -> tuple[Leak, ...]:
    """One leak for each feature, kind and symbol, feature by feature: the one that shows first,
    with the most rows and the largest change of all."""
    found: dict[tuple[str, str, str, str | None], Leak] = {}
    for leak in leaks:
        key = (leak.feature, leak.source, leak.kind, leak.symbol)
        found[key] = _both(found[key], leak) if key in found else leak
    features = list(dict.fromkeys(leak.feature for leak in found.values()))
    return tuple(sorted(found.values(), key=lambda leak: features.index(leak.feature)))


def _both(one: Leak, other: Leak) -> Leak:
    earlier = min(one, other, key=lambda leak: (leak.first or 0, leak.at))
    changes = [c for c in (one.largest_change, other.largest_change) if c is not None]
    return replace(
        earlier, rows=max(one.rows, other.rows), largest_change=max(changes, default=None)
    )


def differing(before: AnyArray, after: AnyArray) -> IntArray:
    """The indices at which two arrays of one type and length have other bits."""
    indices: IntArray = np.flatnonzero(bits(before) != bits(after))
    return indices


def bits(values: AnyArray) -> AnyArray:
    """As unsigned integers: NaN equals itself, and 0 is not -0."""
    return np.ascontiguousarray(values).view(f"u{values.dtype.itemsize}")


def largest(before: AnyArray, after: AnyArray) -> float | None:
    """The largest difference that is a finite number."""
    with np.errstate(invalid="ignore", over="ignore"):
        changes = np.abs(after.astype(np.float64) - before.astype(np.float64))
    finite = changes[np.isfinite(changes)]
    return float(finite.max()) if len(finite) else None
