"""What the folds of one strategy came to, taken together."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ktrdr.operations.types import Status


def summarise(records: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """How many folds ended how, and each metric of the completed ones over them.

    `metrics` holds for every number among the results' metrics its `mean`, `std` (of the sample;
    null for a single fold), `min`, `max` and the `folds` that have it.
    """
    ends = Counter(record["status"] for record in records)
    results = [record["result"] for record in records if record["result"] is not None]
    values: dict[str, list[float]] = {}
    for result in results:
        for name, value in _numbers(result["metrics"]):
            values.setdefault(name, []).append(value)
    return {
        "folds": len(records),
        **{status.value: ends[status.value] for status in Status if status.terminal},
        "metrics": {name: _figures(found) for name, found in sorted(values.items())},
    }


def _numbers(metrics: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    for name, value in metrics.items():
        if isinstance(value, int | float) and not isinstance(value, bool):
            yield name, float(value)


def _figures(values: Sequence[float]) -> dict[str, Any]:
    return {
        "mean": statistics.fmean(values),
        "std": statistics.stdev(values) if len(values) > 1 else None,
        "min": min(values),
        "max": max(values),
        "folds": len(values),
    }
