"""A cache of datasets in `features`, keyed by the digest of everything they are made from."""

from __future__ import annotations

import fcntl
import json
import logging
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import talib

from ktrdr.data.market import Market
from ktrdr.features.cache_entry import (
    DRAFT,
    LOCK,
    MANIFEST,
    TRASH,
    load_entry,
    locked,
    recorded_digest,
    remove_unused,
    store_entry,
    text_digest,
)
from ktrdr.features.dataset import Dataset, build_dataset
from ktrdr.features.transforms import grades_itself
from ktrdr.strategy.schema import Strategy

FORMAT = 2
_KEY = re.compile(r"[0-9a-f]{64}")

log = logging.getLogger(__name__)


def cached_dataset(root: Path, strategy: Strategy, market: Market, fold: int = 1) -> Dataset:
    """Return the dataset of a fold of these bars, from the cache or computed and stored there.

    Its arrays are read-only memory maps of verified bytes.

    Raises:
        InvalidData: as `build_dataset`. StorageUnavailable: the cache cannot be read or written.
    """
    entry = _entry(root, strategy, market.fingerprint, fold)
    found = load_entry(entry)
    if found is not None:
        return found
    dataset = build_dataset(strategy, market, fold)
    store_entry(entry, dataset)
    return load_entry(entry) or dataset


def stored_dataset(root: Path, strategy: Strategy, bars: str, fold: int = 1) -> Dataset | None:
    """Return the dataset of bars with this fingerprint, if the cache has it.

    Raises StorageUnavailable.
    """
    return load_entry(_entry(root, strategy, bars, fold))


def prepare_dataset(
    root: Path, strategy: Strategy, market: Market, fold: int = 1, limit: int | None = None
) -> str:
    """Return the digest of `cached_dataset`, which is computed and stored where it is not yet.

    A stored one is not read: it is verified when it is mapped. `limit` bounds the bytes of the
    cache after something was added (None: without bound), see `trim`.

    Raises:
        InvalidData: as `build_dataset`. StorageUnavailable: the cache cannot be read or written.
    """
    entry = _entry(root, strategy, market.fingerprint, fold)
    digest = recorded_digest(entry)
    if digest is not None:
        return digest
    dataset = build_dataset(strategy, market, fold)
    store_entry(entry, dataset)
    if limit is not None:
        _trim_or_warn(entry, limit)
    return dataset.digest


def trim(folder: Path, limit: int, keep: Path | None = None) -> None:
    """Remove what dead writers left, then entries while all together have more than `limit` bytes.

    Those least recently used go first; `keep`, what a live process has mapped, and what this
    user may not remove stay. While another process writes nothing is removed, nor on a file system
    without locks.

    Raises OSError when the folder cannot be read.
    """
    with locked(folder / LOCK, fcntl.LOCK_EX | fcntl.LOCK_NB) as alone:
        if not alone:
            return
        for path in folder.iterdir():
            if path.name.startswith((DRAFT, TRASH)):
                shutil.rmtree(path, ignore_errors=True)
        entries = [p for p in folder.iterdir() if _KEY.fullmatch(p.name) and p.is_dir()]
        sizes = {path: _size(path) for path in sorted(entries, key=_last_used)}
        total = sum(sizes.values())
        for path, size in sizes.items():
            if total > limit and path != keep and remove_unused(path):
                total -= size


def _trim_or_warn(entry: Path, limit: int) -> None:
    try:
        trim(entry.parent, limit, keep=entry)
    except OSError as error:
        log.warning("%s cannot be kept below %d bytes: %s", entry.parent, limit, error)


def _size(entry: Path) -> int:
    return sum(path.stat().st_size for path in entry.iterdir())


def _last_used(entry: Path) -> int:
    """The time, in nanoseconds; 0 for what is no whole entry."""
    try:
        return (entry / MANIFEST).stat().st_mtime_ns
    except FileNotFoundError:
        return 0


def _entry(root: Path, strategy: Strategy, bars: str, fold: int) -> Path:
    return root / "features" / dataset_key(strategy, bars, fold)


def dataset_key(strategy: Strategy, bars: str, fold: int = 1) -> str:
    """The sha256 over the parts of the strategy that shape a dataset or can refuse it, the
    fingerprint of the bars, and the versions of what computes it. The order of inputs and
    memberships counts, that of keys does not."""
    parts = {
        "format": FORMAT,
        "numpy": np.__version__,
        "polars": pl.__version__,
        "talib": [talib.__version__, vars(talib)["__ta_version__"].decode()],
        "bars": bars,
        "symbols": strategy.symbols,
        "timeframes": strategy.timeframes,
        "base_timeframe": strategy.base_timeframe,
        "history_required": strategy.training_data.history_required,
        "indicators": _plain(strategy.indicators),
        "fuzzy_sets": _plain(strategy.fuzzy_sets),
        "nn_inputs": [item.model_dump(mode="json") for item in strategy.nn_inputs],
        "crisp": grades_itself(strategy),
        "labels": strategy.training.labels.model_dump(mode="json"),
        "sequence_length": strategy.model.sequence_length,
        "data_split": strategy.training.data_split.model_dump(mode="json"),
        "fold": fold,
    }
    return text_digest(json.dumps(parts, sort_keys=True))


def _plain(values: Any) -> dict[str, Any]:
    return {name: value.model_dump(mode="json") for name, value in values.items()}
