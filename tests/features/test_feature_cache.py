"""The cache: the same bytes as computing anew, for exactly the same question, or computed anew."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ktrdr.data.bars import Bars
from ktrdr.data.market import Market, one_series
from ktrdr.data.sample import sample_bars
from ktrdr.errors import InvalidData, StorageUnavailable
from ktrdr.features.cache import cached_dataset, dataset_key
from ktrdr.features.dataset import Dataset, build_dataset
from ktrdr.strategy.loading import validate_strategy
from ktrdr.strategy.schema import Strategy

BARS = sample_bars(rows=1500)
MARKET = one_series(BARS)
DATA: dict[str, Any] = {
    "name": "test",
    "training_data": {
        "symbols": {"symbol": "SAMPLE"},
        "timeframes": {"timeframe": "1h"},
        "history_required": 100,
    },
    "indicators": {"r": {"type": "rsi"}},
    "fuzzy_sets": {"level": {"indicator": "r", "low": [0, 30, 50], "high": [50, 70, 100]}},
    "nn_inputs": [{"fuzzy_set": "level"}],
    "model": {"type": "mlp"},
}


REGRESSION: dict[str, Any] = {
    "decisions": {"output_format": "regression"},
    "training": {"labels": {"source": "forward_return"}},
}


def make_strategy(**parts: Any) -> Strategy:
    return validate_strategy(DATA | parts, "test")


def key_of(strategy: Strategy, market: Market) -> str:
    return dataset_key(strategy, market.fingerprint)


def same(left: Dataset, right: Dataset) -> bool:
    return (
        left.inputs.tobytes() == right.inputs.tobytes()
        and left.labels.tolist() == right.labels.tolist()
        and left.timestamps.tolist() == right.timestamps.tolist()
        and (left.input_names, left.class_names) == (right.input_names, right.class_names)
        and (left.splits, left.digest) == (right.splits, right.digest)
    )


def entry_of(root: Path) -> Path:
    return root / "features" / key_of(make_strategy(), MARKET)


def stored(root: Path) -> list[str]:
    """The names in the cache, beside the lock of its writers."""
    return sorted({path.name for path in (root / "features").iterdir()} - {".lock"})


def test_a_cached_dataset_is_the_computed_one_and_cannot_be_written(tmp_path: Path) -> None:
    built = build_dataset(make_strategy(), MARKET)
    for _ in range(2):
        dataset = cached_dataset(tmp_path, make_strategy(), MARKET)
        assert same(dataset, built)
        assert isinstance(dataset.inputs, np.memmap)
        assert not dataset.inputs.flags.writeable
    assert stored(tmp_path) == [entry_of(tmp_path).name]


def test_values_survive_the_cache_as_values(tmp_path: Path) -> None:
    strategy = make_strategy(**REGRESSION)
    for _ in range(2):
        dataset = cached_dataset(tmp_path, strategy, MARKET)
        assert same(dataset, build_dataset(strategy, MARKET))
        assert dataset.labels.dtype == np.float32


def test_sequences_that_a_split_is_too_short_for_are_refused_beside_a_cached_dataset(
    tmp_path: Path,
) -> None:
    cached_dataset(tmp_path, make_strategy(), MARKET)
    model = {"type": "lstm", "architecture": {"sequence_length": 500}}
    for _ in range(2):
        with pytest.raises(InvalidData, match="one sequence of 500"):
            cached_dataset(tmp_path, make_strategy(model=model), MARKET)


def test_the_second_time_nothing_is_computed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cached_dataset(tmp_path, make_strategy(), MARKET)
    monkeypatch.delattr("ktrdr.features.cache.build_dataset")
    cached_dataset(tmp_path, make_strategy(), MARKET)


@pytest.mark.parametrize(
    "parts",
    [
        {"indicators": {"r": {"type": "rsi", "period": 15}}},
        {"indicators": {"r": {"type": "rsi", "source": "open"}}},
        {"fuzzy_sets": {"level": {"indicator": "r", "low": [0, 30, 51], "high": [50, 70, 100]}}},
        {"fuzzy_sets": {"level": {"indicator": "r", "high": [50, 70, 100], "low": [0, 30, 50]}}},
        {"training": {"labels": {"source": "zigzag", "zigzag_threshold": 0.03}}},
        {"training": {"data_split": {"train": 0.6, "validation": 0.2, "test": 0.2}}},
        {"training_data": {**DATA["training_data"], "history_required": 101}},
        {"model": {"type": "gru", "architecture": {"sequence_length": 5}}},
        REGRESSION,
    ],
)
def test_whatever_shapes_the_dataset_shapes_its_key(parts: dict[str, Any]) -> None:
    assert key_of(make_strategy(**parts), MARKET) != key_of(make_strategy(), MARKET)


def test_what_does_not_shape_the_dataset_leaves_the_key_alone() -> None:
    for parts in (
        {"name": "other"},
        {"training": {"epochs": 7, "seed": 1, "learning_rate": 0.5}},
        {"model": {"type": "mlp", "architecture": {"hidden_layers": [3]}}},
    ):
        assert key_of(make_strategy(**parts), MARKET) == key_of(make_strategy(), MARKET)


def test_other_bars_have_another_key() -> None:
    keys = {
        key_of(make_strategy(), one_series(bars)) for bars in (BARS, BARS.rows(0, 1499), revised())
    }
    assert len(keys) == 3


def revised() -> Bars:
    bars = sample_bars(rows=1500)
    bars.volume[700] += 1
    return bars


@pytest.mark.parametrize("name", ["inputs.npy", "labels.npy", "timestamps.npy", "manifest.json"])
@pytest.mark.parametrize("damage", ["flip", "truncate", "empty", "remove"])
def test_a_damaged_entry_is_computed_again(tmp_path: Path, name: str, damage: str) -> None:
    built = build_dataset(make_strategy(), MARKET)
    cached_dataset(tmp_path, make_strategy(), MARKET)
    path = entry_of(tmp_path) / name
    content = path.read_bytes()
    middle = len(content) // 2
    damaged = {
        "flip": content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :],
        "truncate": content[:-1],
        "empty": b"",
    }
    path.unlink()
    if damage != "remove":
        path.write_bytes(damaged[damage])
    assert same(cached_dataset(tmp_path, make_strategy(), MARKET), built)
    assert path.read_bytes() == content
    assert stored(tmp_path) == [path.parent.name]


def test_edited_splits_are_not_believed(tmp_path: Path) -> None:
    """A manifest that is still JSON, but says something else than was written."""
    built = cached_dataset(tmp_path, make_strategy(), MARKET)
    path = entry_of(tmp_path) / "manifest.json"
    text = path.read_text()
    path.write_text(text.replace(f"{built.splits.train.stop}]", f"{built.splits.train.stop + 1}]"))
    assert path.read_text() != text
    assert same(cached_dataset(tmp_path, make_strategy(), MARKET), built)


def test_a_writer_that_comes_second_takes_what_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody stores the same entry while this process is computing it."""
    elsewhere = tmp_path / "elsewhere"
    cached_dataset(elsewhere, make_strategy(), MARKET)

    def slowly(strategy: Strategy, market: Market, fold: int) -> Dataset:
        dataset = build_dataset(strategy, market, fold)
        shutil.copytree(elsewhere / "features", tmp_path / "features")
        return dataset

    monkeypatch.setattr("ktrdr.features.cache.build_dataset", slowly)
    dataset = cached_dataset(tmp_path, make_strategy(), MARKET)
    assert same(dataset, build_dataset(make_strategy(), MARKET))
    assert stored(tmp_path) == [entry_of(tmp_path).name]


def test_a_writer_that_died_leaves_no_entry(tmp_path: Path) -> None:
    cached_dataset(tmp_path, make_strategy(), MARKET)
    entry = entry_of(tmp_path)
    entry.rename(entry.with_name(f".tmp-{entry.name}-dead"))
    dataset = cached_dataset(tmp_path, make_strategy(), MARKET)
    assert same(dataset, build_dataset(make_strategy(), MARKET))


def test_storage_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "features").write_text("in the way")
    with pytest.raises(StorageUnavailable, match="cannot write features to"):
        cached_dataset(tmp_path, make_strategy(), MARKET)
