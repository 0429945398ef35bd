"""The history rows that a checkpoint carries, as JSON: readable without torch."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from ktrdr.errors import CheckpointCorrupted
from ktrdr.operations.types import HistoryRow

HISTORY = "history.json"


def encode_history(rows: Sequence[HistoryRow]) -> bytes:
    """Encode rows as a list of {"epoch", "metrics"}; every float reads back to the same bits.

    Raises ValueError for a metric that is not finite.
    """
    listed = [{"epoch": row.epoch, "metrics": row.metrics} for row in rows]
    return json.dumps(listed, indent=1, allow_nan=False).encode("ascii")


def read_history(files: Mapping[str, bytes]) -> tuple[HistoryRow, ...]:
    """Return the rows, of epochs 1 to the last, in the verified files of a checkpoint.

    Empty for a checkpoint of a version that wrote no `history.json`: its rows are in `loop.pt`.
    Raises CheckpointCorrupted when they are no history rows, or an epoch is missing.
    """
    if HISTORY not in files:
        return ()
    try:
        rows = tuple(_row(entry) for entry in json.loads(files[HISTORY]))
    except (ValueError, TypeError, KeyError, RecursionError):
        raise _unfit("not a list of history rows") from None
    if [row.epoch for row in rows] != list(range(1, len(rows) + 1)):
        raise _unfit("not one row for each epoch")
    return rows


def _unfit(why: str) -> CheckpointCorrupted:
    return CheckpointCorrupted(
        f"{HISTORY} of the checkpoint is {why}: restore it from a backup, or use an older one",
        files={HISTORY: why},
    )


def _row(entry: Any) -> HistoryRow:
    epoch, metrics = entry["epoch"], entry["metrics"]
    if type(epoch) is not int or not isinstance(metrics, dict) or len(entry) != 2:
        raise ValueError(entry)
    return HistoryRow(epoch, metrics)
