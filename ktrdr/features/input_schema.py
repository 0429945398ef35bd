"""How a model's inputs are made, and the rows of its splits; stored with the model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from ktrdr.features.columns import InputColumn
from ktrdr.features.dataset import Dataset
from ktrdr.features.transforms import Transform


@dataclass(frozen=True)
class TrainingRange:
    """Rows of one symbol in one split: open times of the first and last bar, microseconds UTC."""

    symbol: str
    split: str
    first: int
    last: int
    rows: int


@dataclass(frozen=True)
class InputSchema:
    """What `strategy` and bars need beside them to become inputs, and what the splits were."""

    columns: tuple[InputColumn, ...]
    transforms: tuple[Transform, ...] = ()
    seen: tuple[TrainingRange, ...] = ()

    def as_json(self) -> dict[str, Any]:
        return {
            "columns": [column.as_json() for column in self.columns],
            "transforms": [transform.as_json() for transform in self.transforms],
            "seen": [asdict(part) for part in self.seen],
        }

    @classmethod
    def from_json(cls, data: Any) -> InputSchema:
        """What `as_json` gave; raises ValueError for anything else."""
        try:
            return cls(
                tuple(map(InputColumn.from_json, data["columns"])),
                tuple(map(Transform.from_json, data["transforms"])),
                tuple(TrainingRange(**part) for part in data["seen"]),
            )
        except (KeyError, TypeError) as error:
            raise ValueError(f"not how inputs are made: {error}") from None


def input_schema_of(dataset: Dataset) -> InputSchema:
    return InputSchema(dataset.columns, dataset.transforms, tuple(_seen(dataset)))


def _seen(dataset: Dataset) -> Iterator[TrainingRange]:
    splits: Mapping[str, range] = vars(dataset.splits)
    for name, rows in splits.items():
        for part in dataset.segments:
            if rows.start <= part.start and part.stop <= rows.stop and part.stop > part.start:
                first, last = dataset.timestamps[part.start], dataset.timestamps[part.stop - 1]
                count = part.stop - part.start
                yield TrainingRange(part.symbol, name, int(first), int(last), count)
