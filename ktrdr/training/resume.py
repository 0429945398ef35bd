"""Restore the state of a training from a verified checkpoint."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor

from ktrdr.checkpoints.history import HISTORY, read_history
from ktrdr.checkpoints.manifest import Manifest
from ktrdr.checkpoints.verify import VerifiedCheckpoint, read_checkpoint
from ktrdr.errors import CheckpointCorrupted
from ktrdr.operations.types import HistoryRow
from ktrdr.training.state import Loop
from ktrdr.training.weights import load_state

_REQUIRED = ("model.pt", "optimizer.pt", "loop.pt")
_LOOP_FIELDS = frozenset(field.name for field in dataclasses.fields(Loop)) - {"history"}


class HasDirectory(Protocol):
    """A `ray.train.Checkpoint`, or anything else that can show its files in a local folder."""

    def as_directory(self) -> AbstractContextManager[str]: ...


@dataclass(frozen=True, eq=False)
class TrainingResumeContext:
    """What a new attempt starts from instead of the beginning."""

    model_weights: dict[str, Tensor]
    optimizer_state: dict[str, Any]
    scheduler_state: dict[str, Any] | None
    best_model_weights: dict[str, Tensor] | None
    loop: Loop
    random_states: dict[str, Any]
    """By rank."""
    manifest: Manifest

    @property
    def start_epoch(self) -> int:
        """1-based number of the epoch that training goes on in."""
        return self.loop.epoch + 1

    @property
    def start_batch(self) -> int:
        """Batches of that epoch that are done."""
        return self.loop.batch

    @property
    def training_history(self) -> tuple[HistoryRow, ...]:
        return tuple(self.loop.history)

    @property
    def best_val_loss(self) -> float | None:
        """The lowest so far; None without a finished epoch or a validation split."""
        losses = [row.metrics.get("val_loss") for row in self.loop.history]
        return min((loss for loss in losses if loss is not None), default=None)

    @property
    def original_request(self) -> dict[str, Any]:
        return self.manifest.request


def restore_from_checkpoint(
    checkpoint: HasDirectory | VerifiedCheckpoint,
) -> TrainingResumeContext:
    """Load a checkpoint: verify it first, unless it comes with the bytes that were verified.

    Raises CheckpointCorrupted naming what is missing or wrong, StorageUnavailable when it cannot
    be read.
    """
    if isinstance(checkpoint, VerifiedCheckpoint):
        return _load(str(checkpoint.directory), checkpoint.manifest, checkpoint.files)
    with checkpoint.as_directory() as directory:
        manifest, files = read_checkpoint(Path(directory))
    return _load(directory, manifest, files)


def _load(directory: str, manifest: Manifest, files: Mapping[str, bytes]) -> TrainingResumeContext:
    missing = [name for name in _REQUIRED if name not in files]
    if missing:
        raise _unfit(directory, missing[0], "not part of it")
    states = {
        name: load_state(data, f"{directory}/{name}")
        for name, data in files.items()
        if name != HISTORY
    }
    loop_state = _loop_state(states["loop.pt"], manifest, directory)
    history = _history(loop_state, manifest, files, directory)
    return TrainingResumeContext(
        model_weights=states["model.pt"],
        optimizer_state=states["optimizer.pt"],
        scheduler_state=states.get("scheduler.pt"),
        best_model_weights=states.get("best_model.pt"),
        loop=Loop(**{name: loop_state[name] for name in _LOOP_FIELDS}, history=history),
        random_states=loop_state["random_states"],
        manifest=manifest,
    )


def _loop_state(state: Any, manifest: Manifest, directory: str) -> dict[str, Any]:
    expected = _LOOP_FIELDS | {"global_step", "random_states"}
    if not isinstance(state, dict) or set(state) - {"history"} != expected:
        raise _unfit(directory, "loop.pt", "not the state of a loop that this version knows")
    if (state["epoch"], state["batch"]) != (manifest.epoch, manifest.batch):
        raise _unfit(directory, "loop.pt", "at another position than the manifest says")
    return state


def _history(
    loop_state: Mapping[str, Any], manifest: Manifest, files: Mapping[str, bytes], directory: str
) -> list[HistoryRow]:
    """`history.json`; else the rows in `loop.pt`, where versions before kept them."""
    stored = loop_state.get("history")
    old = None if stored is None else [HistoryRow(**row) for row in stored]
    history = list(read_history(files)) if HISTORY in files else old
    if history is None:
        raise _unfit(directory, HISTORY, "not part of it")
    if len(history) != manifest.epoch:
        raise _unfit(directory, HISTORY, "not one row for each finished epoch")
    if old is not None and old != history:
        raise _unfit(directory, HISTORY, "another history than that in loop.pt")
    return history


def _unfit(directory: str, name: str, why: str) -> CheckpointCorrupted:
    return CheckpointCorrupted(
        f"{directory}: {name} is {why}: restore it from a backup, or use an older one",
        files={name: why},
    )
