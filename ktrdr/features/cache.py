"""Datasets computed once, kept under the digest of all that they are made of.

An entry is a folder of `.npy` files whose manifest was written last. It appears under its name by
one rename, never changes, and is verified whenever it is read: one that does not verify is moved
aside and computed again.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import talib

from ktrdr.data.bars import Bars, fingerprint
from ktrdr.errors import StorageUnavailable
from ktrdr.features.columns import InputColumn
from ktrdr.features.dataset import Dataset, Splits, build_dataset, rows_before
from ktrdr.strategy.schema import Strategy

FORMAT = 1

_ARRAYS = ("inputs", "labels", "timestamps")
_MANIFEST = "manifest.json"


def cached_dataset(root: Path, strategy: Strategy, bars: Bars) -> Dataset:
    """The dataset of these bars, from `root`/features or computed and stored there.

    Its arrays are read-only memory maps. Raises what `build_dataset` raises, and
    StorageUnavailable.
    """
    entry = root / "features" / dataset_key(strategy, bars)
    found = _load(entry)
    if found is not None:
        return found
    dataset = build_dataset(strategy, bars)
    try:
        _store(entry, dataset)
    except OSError as error:
        raise StorageUnavailable(
            f"cannot write features to {entry.parent}: {error.strerror or error}; free space or "
            "fix the permissions, and try again",
            path=str(entry),
        ) from error
    return _load(entry) or dataset


def dataset_key(strategy: Strategy, bars: Bars) -> str:
    """The sha256 over the parts of the strategy that shape a dataset or can refuse it, the bars,
    and the versions of what computes it. The order of inputs and memberships counts, that of keys
    does not."""
    parts = {
        "format": FORMAT,
        "numpy": np.__version__,
        "polars": pl.__version__,
        "talib": [talib.__version__, vars(talib)["__ta_version__"].decode()],
        "bars": fingerprint(bars),
        "history_required": strategy.training_data.history_required,
        "indicators": _plain(strategy.indicators),
        "fuzzy_sets": _plain(strategy.fuzzy_sets),
        "nn_inputs": [item.fuzzy_set for item in strategy.nn_inputs],
        "labels": strategy.training.labels.model_dump(mode="json"),
        "rows_before": rows_before(strategy),
        "data_split": strategy.training.data_split.model_dump(mode="json"),
    }
    return _text_digest(json.dumps(parts, sort_keys=True))


def _plain(values: Any) -> dict[str, Any]:
    return {name: value.model_dump(mode="json") for name, value in values.items()}


def _load(entry: Path) -> Dataset | None:
    """The entry, or None where there is none or it does not verify."""
    try:
        manifest = _read_manifest(entry / _MANIFEST)
        arrays = {name: _load_array(entry, name, manifest) for name in _ARRAYS}
        splits = Splits(**{name: range(*manifest["splits"][name]) for name in manifest["splits"]})
        return Dataset(
            **arrays,
            columns=tuple(map(InputColumn.from_json, manifest["columns"])),
            class_names=tuple(manifest["class_names"]),
            splits=splits,
            digest=manifest["digest"],
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
    """One array, verified; a sha256 of all bytes costs about 0.5 s per GB, less than any use."""
    path, known = entry / f"{name}.npy", manifest["files"][f"{name}.npy"]
    if path.stat().st_size != known["size"] or _file_digest(path) != known["sha256"]:
        raise ValueError(f"{path} does not verify")
    return np.load(path, mmap_mode="r", allow_pickle=False)


def _text_digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _file_digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


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
    for name in _ARRAYS:
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
        "columns": [column.as_json() for column in dataset.columns],
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
