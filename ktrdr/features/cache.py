"""Datasets computed once, kept under the digest of all that they are made of.

An entry is a folder of `.npy` files whose manifest was written last. It appears under its name by
one rename, never changes, and is verified whenever it is read: one that does not verify is moved
aside and computed again.
"""

from __future__ import annotations

import hashlib
import json
import mmap
import os
import secrets
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import astuple
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import talib

from ktrdr.data.market import Market
from ktrdr.errors import StorageUnavailable
from ktrdr.features.columns import InputColumn
from ktrdr.features.dataset import Dataset, Segment, Splits, build_dataset
from ktrdr.features.transforms import Transform, grades_itself
from ktrdr.strategy.schema import Strategy

FORMAT = 2

_ARRAYS = ("inputs", "labels", "timestamps")
_WEIGHTS = "weights"  # where samples do not all count the same
_MANIFEST = "manifest.json"
_DIGESTED_BYTES = 8 << 20  # by one thread at a time


def cached_dataset(root: Path, strategy: Strategy, market: Market, fold: int = 1) -> Dataset:
    """The dataset of a fold of these bars, from `root`/features or computed and stored there.

    Its arrays are read-only memory maps. Raises what `build_dataset` raises, and
    StorageUnavailable.
    """
    entry = root / "features" / dataset_key(strategy, market, fold)
    found = _load(entry)
    if found is not None:
        return found
    dataset = build_dataset(strategy, market, fold)
    try:
        _store(entry, dataset)
    except OSError as error:
        raise StorageUnavailable(
            f"cannot write features to {entry.parent}: {error.strerror or error}; free space or "
            "fix the permissions, and try again",
            path=str(entry),
        ) from error
    return _load(entry) or dataset


def dataset_key(strategy: Strategy, market: Market, fold: int = 1) -> str:
    """The sha256 over the parts of the strategy that shape a dataset or can refuse it, the bars,
    and the versions of what computes it. The order of inputs and memberships counts, that of keys
    does not."""
    parts = {
        "format": FORMAT,
        "numpy": np.__version__,
        "polars": pl.__version__,
        "talib": [talib.__version__, vars(talib)["__ta_version__"].decode()],
        "bars": market.fingerprint,
        "symbols": market.symbols,
        "timeframes": market.timeframes,
        "base_timeframe": market.base_timeframe,
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
    return _text_digest(json.dumps(parts, sort_keys=True))


def _plain(values: Any) -> dict[str, Any]:
    return {name: value.model_dump(mode="json") for name, value in values.items()}


def _load(entry: Path) -> Dataset | None:
    """The entry, or None where there is none or it does not verify."""
    try:
        manifest = _read_manifest(entry / _MANIFEST)
        arrays = {name: _load_array(entry, name, manifest) for name in manifest["arrays"]}
        splits = Splits(**{name: range(*manifest["splits"][name]) for name in manifest["splits"]})
        return Dataset(
            **arrays,
            columns=tuple(map(InputColumn.from_json, manifest["columns"])),
            class_names=tuple(manifest["class_names"]),
            splits=splits,
            digest=manifest["digest"],
            segments=tuple(Segment(*part) for part in manifest["segments"]),
            transforms=tuple(map(Transform.from_json, manifest["transforms"])),
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _read_manifest(path: Path) -> dict[str, Any]:
    sealed = json.loads(path.read_bytes())
    if _text_digest(json.dumps(sealed["entry"])) != sealed["sha256"]:
        raise ValueError(f"{path} does not verify")
    manifest: dict[str, Any] = sealed["entry"]
    return manifest


def _load_array(entry: Path, name: str, manifest: dict[str, Any]) -> Any:
    """One array, verified: a digest of all bytes costs less than any use of them."""
    path, known = entry / f"{name}.npy", manifest["files"][f"{name}.npy"]
    if path.stat().st_size != known["size"] or _file_digest(path) != known["sha256"]:
        raise ValueError(f"{path} does not verify")
    return np.load(path, mmap_mode="r", allow_pickle=False)


def _text_digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _file_digest(path: Path) -> str:
    """The sha256 over the sha256 of each 8 MiB, which threads can find side by side."""
    size = path.stat().st_size
    if size == 0:
        return hashlib.sha256().hexdigest()
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:

        def digest(start: int) -> bytes:
            with memoryview(data) as whole, whole[start : start + _DIGESTED_BYTES] as part:
                return hashlib.sha256(part).digest()

        with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as threads:
            digests = threads.map(digest, range(0, size, _DIGESTED_BYTES))
            return hashlib.sha256(b"".join(digests)).hexdigest()


def _store(entry: Path, dataset: Dataset) -> None:
    """Write beside, sync, rename. Somebody else's entry of the same name is as good as ours."""
    entry.parent.mkdir(parents=True, exist_ok=True)
    temporary = entry.with_name(f".tmp-{entry.name}-{secrets.token_hex(8)}")
    try:
        temporary.mkdir()
        _write(temporary, dataset)
        if entry.exists() and _load(entry) is None:
            _discard(entry)
        _rename(temporary, entry)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    _sync(entry.parent)


def _write(folder: Path, dataset: Dataset) -> None:
    arrays = (*_ARRAYS, *(() if dataset.weights is None else (_WEIGHTS,)))
    for name in arrays:
        with (folder / f"{name}.npy").open("xb") as file:
            np.save(file, getattr(dataset, name), allow_pickle=False)
            file.flush()
            os.fsync(file.fileno())
    files = {
        path.name: {"size": path.stat().st_size, "sha256": _file_digest(path)}
        for path in sorted(folder.iterdir())
    }
    manifest = {
        "digest": dataset.digest,
        "arrays": arrays,
        "columns": [column.as_json() for column in dataset.columns],
        "transforms": [transform.as_json() for transform in dataset.transforms],
        "segments": [astuple(part) for part in dataset.segments],
        "class_names": dataset.class_names,
        "splits": {name: [rows.start, rows.stop] for name, rows in vars(dataset.splits).items()},
        "files": files,
    }
    with (folder / _MANIFEST).open("x", encoding="ascii") as file:
        json.dump({"entry": manifest, "sha256": _text_digest(json.dumps(manifest))}, file)
        file.flush()
        os.fsync(file.fileno())
    _sync(folder)


def _rename(temporary: Path, entry: Path) -> None:
    try:
        temporary.rename(entry)
    except OSError:
        if not entry.is_dir():  # else a racing writer was first
            raise


def _discard(entry: Path) -> None:
    """Take a damaged entry out of the way; whoever has it mapped keeps its pages."""
    trash = entry.with_name(f".trash-{entry.name}-{secrets.token_hex(8)}")
    try:
        entry.rename(trash)
    except FileNotFoundError:
        return  # a racing writer was first
    shutil.rmtree(trash, ignore_errors=True)


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
