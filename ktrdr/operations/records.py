"""The JSON records that programs read: every field always present, null until it is known."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict
from datetime import datetime
from typing import Any

from ktrdr.operations.types import (
    Checkpoint,
    Event,
    HistoryRow,
    ModelRow,
    Operation,
    Owner,
    ResumedFrom,
    Status,
    timestamp,
)


def record(
    operation: Operation, checkpoint: Checkpoint | None, alive: bool | None
) -> dict[str, Any]:
    """Return the operation record.

    `checkpoint` is the latest good one; `alive` says whether the owner is, None when unknown.
    """
    terminal, root = operation.status.terminal, operation.plan.storage
    alive = None if terminal else alive
    completed = operation.status is Status.COMPLETED
    return {
        "operation_id": operation.operation_id,
        "operation_type": operation.operation_type,
        "status": operation.status.value,
        "phase": operation.phase.value if operation.phase is not None else None,
        "attempt": operation.attempt,
        "lost": alive is False,
        "waiting_for": operation.waiting_for,
        "warnings": [_plain(asdict(warning)) for warning in operation.warnings],
        "tags": [],
        "note": None,
        "goodput": None,
        "owner": _owner(operation.owner, alive),
        "request": _request(operation),
        "progress": _progress(operation),
        "created_at": timestamp(operation.created_at),
        "started_at": _time(operation.started_at),
        "completed_at": _time(operation.completed_at),
        "cancel_requested_at": _time(operation.cancel_requested_at),
        "error": _document(operation.error),
        "checkpoint": None
        if completed or checkpoint is None
        else _latest_checkpoint(checkpoint, root),
        "resumed_from": _resumed_from(operation.resumed_from),
        "result": _result(operation),
    }


def stopped_early(operation: Operation) -> bool:
    """Say whether early stopping ended the training before its last epoch.

    Results stored by earlier versions do not say so: there the number of epochs does.
    """
    result = operation.result
    return result is not None and (result.stopped_early or result.epochs < operation.request.epochs)


def checkpoint_record(checkpoint: Checkpoint, storage: str) -> dict[str, Any]:
    return {
        "id": checkpoint.id,
        "operation_id": checkpoint.operation_id,
        "attempt": checkpoint.attempt,
        "number": checkpoint.number,
        **_latest_checkpoint(checkpoint, storage),
        "is_best": checkpoint.is_best,
        "unusable": checkpoint.unusable,
    }


def findings(files: Mapping[str, str]) -> dict[str, Any]:
    """Return what was found in the files of a checkpoint: ok, missing or wrong, and why."""
    found = [
        {
            "name": name,
            "state": finding if finding in ("ok", "missing") else "wrong",
            "detail": None if finding in ("ok", "missing") else finding,
        }
        for name, finding in sorted(files.items())
    ]
    return {"good": all(file["state"] == "ok" for file in found), "files": found}


def event_record(event: Event) -> dict[str, Any]:
    return {
        "id": event.id,
        "operation_id": event.operation_id,
        "attempt": event.attempt,
        "event": event.event,
        "status": event.status.value,
        "at": timestamp(event.at),
        "details": _plain(event.details),
    }


def history_record(row: HistoryRow) -> dict[str, Any]:
    return {"epoch": row.epoch, **_plain(row.metrics)}


def model_record(row: ModelRow) -> dict[str, Any]:
    return {
        "name": row.strategy_name,
        "version": row.version,
        "operation_id": row.operation_id,
        "attempt": row.attempt,
        "path": _below(row.storage, row.path),
        "weights_digest": row.weights_digest,
        "created_at": timestamp(row.created_at),
        "completed_at": _time(row.completed_at),
    }


def _request(operation: Operation) -> dict[str, Any]:
    resources: dict[str, Any] = {"cpus_per_worker": 1, "gpus": 0, "memory": None, "custom": {}}
    return {
        **_plain(asdict(operation.request)),
        "shards": 1,
        "overrides": _plain(operation.plan.overrides),
        "priority": 0,
        "resources": resources,
    }


def _progress(operation: Operation) -> dict[str, Any] | None:
    """Return the progress; what has completed is done, also where early stopping ended it."""
    progress = _document(operation.progress)
    if progress is not None and operation.status is Status.COMPLETED:
        progress["percent"] = 100.0
    return progress


def _result(operation: Operation) -> dict[str, Any] | None:
    result = _document(operation.result)
    if result is not None:
        result["stopped_early"] = stopped_early(operation)
    return result


def _latest_checkpoint(checkpoint: Checkpoint, storage: str) -> dict[str, Any]:
    return {
        "epoch": checkpoint.epoch,
        "batch": checkpoint.batch,
        "checkpoint_type": checkpoint.checkpoint_type.value,
        "created_at": timestamp(checkpoint.created_at),
        "path": _below(storage, checkpoint.path),
        "size_bytes": checkpoint.size_bytes,
        "weights_digest": checkpoint.weights_digest,
    }


def _owner(owner: Owner, alive: bool | None) -> dict[str, Any]:
    return {"kind": owner.kind.value, "host": owner.host, "pid": owner.pid, "alive": alive}


def _resumed_from(value: ResumedFrom | None) -> dict[str, Any] | None:
    if value is None:
        return None
    document = _plain(asdict(value))
    return {**document, "created_at": timestamp(value.created_at)}


def _below(root: str, path: str) -> str:
    return f"{root.rstrip('/')}/{path}"


def _time(at: datetime | None) -> str | None:
    return None if at is None else timestamp(at)


def _document(value: Any) -> dict[str, Any] | None:
    return None if value is None else _plain(asdict(value))


def _plain(value: Any) -> Any:
    """Return a value as JSON has it: lists for tuples, null for what is not a finite number."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value
