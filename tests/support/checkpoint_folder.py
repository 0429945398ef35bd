"""A checkpoint as Ray Train hands it over."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class CheckpointFolder:
    """A local directory in the shape of a `ray.train.Checkpoint`."""

    path: Path

    @contextlib.contextmanager
    def as_directory(self) -> Iterator[str]:
        yield str(self.path)
