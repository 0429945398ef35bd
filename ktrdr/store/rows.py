"""Rows of the database to values of the model and back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, fields
from datetime import datetime
from typing import Any

from ktrdr.operations.types import (
    Checkpoint,
    CheckpointType,
    Event,
    Failure,
    FailureReason,
    HistoryRow,
    LastFailure,
    ModelRow,
    NewCheckpoint,
    Operation,
    Owner,
    OwnerKind,
    OwnerRow,
    Phase,
    Plan,
    Progress,
    Request,
    Result,
    ResumedFrom,
    Status,
    TrainingWarning,
    timestamp,
)

Row = Mapping[str, Any]

_OWNER = tuple(f.name for f in fields(Owner))
_OWNER_ROW = (
    "version",
    "created_at",
    "lease_expires_at",
    "address",
    "dashboard",
    "persistent",
    "shutdown_requested_at",
    "closing_at",
)
_PLAIN = (
    "operation_id",
    "operation_type",
    "attempt",
    "lease_expires_at",
    "report_sequence",
    "created_at",
    "started_at",
    "completed_at",
    "cancel_requested_at",
    "seed_checkpoint_id",
    "resumed_attempt",
    "restarts",
    "memory_restarts",
    "launch_not_before",
    "kill_requested_at",
    "waiting_for",
    "driver",
)
_JSON = ("request", "plan", "progress", "error", "result", "last_failure")


def operation_values(operation: Operation) -> dict[str, Any]:
    """Return the columns of an operation's row."""
    values: dict[str, Any] = {name: getattr(operation, name) for name in _PLAIN}
    values |= {name: _document(getattr(operation, name)) for name in _JSON}
    values |= {f"owner_{name}": getattr(operation.owner, name) for name in _OWNER}
    values["status"] = operation.status
    values["phase"] = operation.phase
    values["strategy_name"] = operation.request.strategy_name
    values["warnings"] = [asdict(warning) for warning in operation.warnings]
    values["resumed_from"] = _resumed_from_document(operation.resumed_from)
    return values


def operation_from(row: Row) -> Operation:
    return Operation(
        **{name: row[name] for name in _PLAIN},
        status=Status(row["status"]),
        phase=_optional(Phase, row["phase"]),
        owner=_owner_from(row),
        request=_request_from(row["request"]),
        plan=Plan(**row["plan"]),
        progress=_optional(lambda d: Progress(**d), row["progress"]),
        error=_optional(_failure_from, row["error"]),
        resumed_from=_optional(_resumed_from, row["resumed_from"]),
        result=_optional(lambda d: Result(**d), row["result"]),
        last_failure=_optional(_last_failure_from, row["last_failure"]),
        warnings=tuple(TrainingWarning(**document) for document in row["warnings"]),
    )


def owner_values(row: OwnerRow) -> dict[str, Any]:
    """Return the columns of an owner's row."""
    own = {name: getattr(row, name) for name in _OWNER_ROW}
    return {**asdict(row.owner), **own, "nodes": list(row.nodes)}


def owner_from(row: Row) -> OwnerRow:
    owner = {name: row[name] for name in _OWNER}
    return OwnerRow(
        owner=Owner(**{**owner, "kind": OwnerKind(owner["kind"])}),
        **{name: row[name] for name in _OWNER_ROW},
        nodes=tuple(row["nodes"]),
    )


def checkpoint_values(operation_id: str, attempt: int, new: NewCheckpoint) -> dict[str, Any]:
    return {"operation_id": operation_id, "attempt": attempt, **asdict(new)}


def checkpoint_from(row: Row) -> Checkpoint:
    return Checkpoint(**{**row, "checkpoint_type": CheckpointType(row["checkpoint_type"])})


def event_from(row: Row) -> Event:
    return Event(**{**row, "status": Status(row["status"])})


def history_from(row: Row) -> HistoryRow:
    return HistoryRow(row["epoch"], row["metrics"])


def model_from(row: Row) -> ModelRow:
    return ModelRow(**row)


def _document(value: Any) -> dict[str, Any] | None:
    return None if value is None else asdict(value)


def _resumed_from_document(value: ResumedFrom | None) -> dict[str, Any] | None:
    if value is None:
        return None
    return {**asdict(value), "created_at": timestamp(value.created_at)}


def _optional(build: Any, value: Any) -> Any:
    return None if value is None else build(value)


def _owner_from(row: Row) -> Owner:
    values = {name: row[f"owner_{name}"] for name in _OWNER}
    return Owner(**{**values, "kind": OwnerKind(values["kind"])})


def _request_from(document: dict[str, Any]) -> Request:
    symbols, timeframes = tuple(document["symbols"]), tuple(document["timeframes"])
    return Request(**{**document, "symbols": symbols, "timeframes": timeframes})


def _failure_from(document: dict[str, Any]) -> Failure:
    return Failure(**{**document, "reason": _optional(FailureReason, document["reason"])})


def _resumed_from(document: dict[str, Any]) -> ResumedFrom:
    return ResumedFrom(
        **{
            **document,
            "checkpoint_type": CheckpointType(document["checkpoint_type"]),
            "created_at": datetime.fromisoformat(document["created_at"]),
            "differences": tuple(document["differences"]),
        }
    )


def _last_failure_from(document: dict[str, Any]) -> LastFailure:
    return LastFailure(
        FailureReason(document["reason"]),
        _optional(tuple, document["step"]),
        _optional(tuple, document["checkpoint"]),
    )
