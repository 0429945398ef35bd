"""The history that a checkpoint holds, as JSON: readable where there is no torch."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from ktrdr.operations.types import HistoryRow

HISTORY = "history.json"


def encode_history(rows: Sequence[HistoryRow]) -> bytes:
    """Return the file's content; numbers come back with the same bits."""
    documents = [{"epoch": row.epoch, "metrics": row.metrics} for row in rows]
    return json.dumps(documents, indent=1).encode()


def read_history(files: Mapping[str, bytes]) -> tuple[HistoryRow, ...]:
    """Return the rows in the verified files of a checkpoint.

    Checkpoints of earlier versions have no such file: nothing is known of their history here.
    """
    if HISTORY not in files:
        return ()
    return tuple(HistoryRow(**document) for document in json.loads(files[HISTORY]))
