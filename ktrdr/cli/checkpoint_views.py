"""What people see of checkpoints and of a cleanup."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ktrdr.cli import render
from ktrdr.operations.ids import short_id

Record = Mapping[str, Any]


def checkpoints(items: Sequence[Record]) -> str:
    headers = ("OPERATION", "EPOCH", "BATCH", "TYPE", "CREATED", "SIZE", "REMARK", "PATH")
    rows = [
        (
            short_id(c["operation_id"]),
            c["epoch"],
            c["batch"],
            c["checkpoint_type"],
            render.day_and_time(c["created_at"]),
            f"{c['size_bytes']:,}",
            c.get("unusable") or ("best" if c.get("is_best") else None),
            c["path"],
        )
        for c in items
    ]
    return render.table(headers, rows, cut=("PATH",)) if rows else "no checkpoints"


def verified(items: Sequence[Record]) -> str:
    """Every file of every checkpoint, one a line."""
    headers = ("CHECKPOINT", "EPOCH", "BATCH", "FILE", "STATE")
    rows = [
        (
            f"attempt {c['attempt']}, number {c['number']}",
            c["epoch"],
            c["batch"],
            c["path"] if file["name"] == "." else file["name"],
            f"wrong: {file['detail']}" if file["detail"] else file["state"],
        )
        for c in items
        for file in c["files"]
    ]
    return render.table(headers, rows) if rows else "no checkpoints"


def cleanup(done: Record) -> str:
    expired, removed = len(done["expired"]), done["removed"]
    said = f"removed {removed} checkpoints"
    said += f", expired those of {expired} operations" if expired else ""
    rows = [(o["path"], o["what"], "removed" if o["removed"] else None) for o in done["orphans"]]
    return f"{said}\n\n{render.table(('FOLDER', 'WHAT', 'REMARK'), rows)}" if rows else said
