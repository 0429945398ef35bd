"""Stored models: a version appears whole, once, and is read only when every digest holds."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from ktrdr.checkpoints.manifest import ModelHeader
from ktrdr.checkpoints.model_store import read_model, sweep_staging, write_model
from ktrdr.errors import CheckpointCorrupted, ModelNotFound, StorageUnavailable
from ktrdr.storage.root import Storage

OPERATION = "op_training_20260101_000000_0123abcd"
FILES = {"model.pt": b"weights", "strategy.json": b"{}"}


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    storage = Storage(tmp_path / "storage")
    storage.claim("store-1")
    return storage


def header(version: int = 1, **changes: Any) -> ModelHeader:
    fields: dict[str, Any] = {
        "strategy_name": "trend",
        "version": version,
        "operation_id": OPERATION,
        "attempt": 1,
        "weights_digest": "0" * 64,
        "epochs": 4,
        "best_epoch": 2,
        "metrics": {"test_loss": 0.5, "confusion_matrix": [[1, 0], [0, 1]]},
        "input_names": ["1h_rsi_low"],
        "class_names": ["BUY", "HOLD", "SELL"],
        "strategy_fingerprint": "a",
        "data_fingerprint": "b",
        "dataset_digest": "c",
        "environment": {"torch": "2.13.0"},
        "created_at": datetime(2026, 1, 2, tzinfo=UTC),
    }
    return ModelHeader(**(fields | changes))


def test_a_stored_model_reads_back(storage: Storage) -> None:
    path = write_model(storage, header(), FILES)
    manifest, files = read_model(storage, "trend", 1)
    assert path == "models/trend/v1"
    assert (files, manifest.metrics) == (FILES, header().metrics)
    assert [p.name for p in storage.at("models/trend").iterdir()] == ["v1"]


def test_storing_again_for_the_same_attempt_changes_nothing(storage: Storage) -> None:
    first = write_model(storage, header(), FILES)
    written_at = (storage.at(first) / "model.pt").stat().st_mtime_ns
    assert write_model(storage, header(), FILES) == first
    assert (storage.at(first) / "model.pt").stat().st_mtime_ns == written_at


def test_a_version_of_another_attempt_is_never_overwritten(storage: Storage) -> None:
    write_model(storage, header(), FILES)
    with pytest.raises(StorageUnavailable, match="already holds"):
        write_model(storage, header(attempt=2), {**FILES, "model.pt": b"other"})
    assert read_model(storage, "trend", 1)[1] == FILES


def test_what_a_crash_left_in_staging_is_replaced_or_swept(storage: Storage) -> None:
    write_model(storage, header(), FILES)
    for attempt in (1, 2):
        staging = storage.at(f"models/trend/.staging-{OPERATION}-{attempt:04d}")
        staging.mkdir()
        (staging / "model.pt").write_bytes(b"half")

    write_model(storage, header(version=2, attempt=2), FILES)
    sweep_staging(storage, "trend", OPERATION, [1])

    assert sorted(p.name for p in storage.at("models/trend").iterdir()) == ["v1", "v2"]
    assert read_model(storage, "trend", 2)[1] == FILES


def test_missing_and_damaged_models_are_told_apart(storage: Storage) -> None:
    write_model(storage, header(), FILES)
    with pytest.raises(ModelNotFound, match="trend@v2"):
        read_model(storage, "trend", 2)
    for name in (*FILES, "manifest.json"):
        path = storage.at(f"models/trend/v1/{name}")
        kept = path.read_bytes()
        path.write_bytes(kept[:-1] + b"\x00")
        with pytest.raises(CheckpointCorrupted, match=name):
            read_model(storage, "trend", 1)
        path.write_bytes(kept)


def test_a_model_in_the_place_of_another_is_refused(storage: Storage) -> None:
    write_model(storage, header(), FILES)
    storage.at("models/trend/v1").rename(storage.at("models/trend/v3"))
    with pytest.raises(CheckpointCorrupted, match="trend@v1"):
        read_model(storage, "trend", 3)


def test_an_unmounted_store_has_not_lost_its_models(tmp_path: Path) -> None:
    with pytest.raises(StorageUnavailable):
        read_model(Storage(tmp_path / "gone"), "trend", 1)


@pytest.mark.parametrize("name", ["../../etc", "..", "a/b", ""])
def test_no_strategy_name_leads_out_of_the_storage(storage: Storage, name: str) -> None:
    with pytest.raises(StorageUnavailable):
        write_model(storage, header(strategy_name=name), FILES)
