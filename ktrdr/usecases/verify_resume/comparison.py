"""Comparison of two trainings: state by state, epoch by epoch, then the result."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ktrdr.usecases.verify_resume.shared_counters import EpochRecord, TrainingRecord


@dataclass(frozen=True)
class StateDifference:
    """The earliest one. `epoch` is 1-based; None when only the outcome differs."""

    epoch: int | None
    attempt: int | None
    """The attempt of the interrupted training that recorded it."""
    parts: tuple[str, ...]
    """What differs, such as `weights` or `metrics.val_loss`."""


def first_difference(
    straight: TrainingRecord, interrupted: TrainingRecord
) -> StateDifference | None:
    """None when every state of every epoch, also of those done twice, and the outcome are equal."""
    expected = {record.epoch: record.parts for record in straight.epochs}
    found = [
        *(_difference(expected.get(record.epoch), record) for record in interrupted.epochs),
        *_missing(expected.keys() - {record.epoch for record in interrupted.epochs}),
    ]
    differing = sorted(d for d in found if d[2])
    if differing:
        epoch, attempt, parts = differing[0]
        return StateDifference(epoch, attempt or None, tuple(parts))
    parts = _differing("", straight.outcome, interrupted.outcome)
    return StateDifference(None, None, tuple(parts)) if parts else None


def _difference(
    expected: Mapping[str, Any] | None, record: EpochRecord
) -> tuple[int, int, list[str]]:
    if expected is None:
        parts = ["an epoch that the straight training does not have"]
    else:
        parts = _differing("", expected, record.parts)
    return record.epoch, record.attempt, parts


def _missing(epochs: set[int]) -> list[tuple[int, int, list[str]]]:
    return [(epoch, 0, ["the epoch is missing"]) for epoch in epochs]


def _differing(path: str, one: Any, other: Any) -> list[str]:
    """Paths of the values that differ in nested mappings."""
    if not (isinstance(one, Mapping) and isinstance(other, Mapping)):
        return [] if one == other else [path]
    prefix = f"{path}." if path else ""
    return [
        found
        for name in sorted(one.keys() | other.keys())
        for found in _differing(f"{prefix}{name}", one.get(name), other.get(name))
    ]
