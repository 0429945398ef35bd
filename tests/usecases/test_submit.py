"""What a client does before a training: quickly, within the cache's bound, and once."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from small_strategy import STRATEGY, write_bars

from ktrdr.data.store import BarStore
from ktrdr.storage.root import Storage
from ktrdr.strategy.loading import validate_strategy
from ktrdr.training.plan import planned_dataset
from ktrdr.usecases.submit import TrainingOptions, prepare

PREPARE = """
import json, sys
from pathlib import Path
from ktrdr.storage.root import Storage
from ktrdr.usecases.submit import TrainingOptions, prepare
prepare(Path(sys.argv[1]), TrainingOptions(), Storage(Path(sys.argv[2])))
print(json.dumps(sorted({name.partition(".")[0] for name in sys.modules})))
"""


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    write_bars(tmp_path / "storage")
    return Storage(tmp_path / "storage")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "strategy.yaml"
    path.write_text(STRATEGY)
    return path


def test_neither_torch_nor_ray_is_loaded(path: Path, storage: Storage) -> None:
    words = [sys.executable, "-c", PREPARE, str(path), str(storage.root)]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    assert not {"torch", "ray", "matplotlib"} & set(json.loads(done.stdout))


def test_the_features_on_the_storage_keep_to_their_bound(path: Path, storage: Storage) -> None:
    prepare(path, TrainingOptions(), storage, 0)
    first = entries(storage)
    prepare(path, TrainingOptions(start_date="2020-01-10"), storage, 0)
    assert len(first) == len(entries(storage)) == 1
    assert first != entries(storage)


def test_a_plan_is_trained_on_its_own_rows_though_the_bars_are_gone(
    path: Path, storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The cache has them, and their digest names them."""
    [(request, plan)] = prepare(path, TrainingOptions(), storage)
    strategy = validate_strategy(plan.config, "the plan")

    def refuse(*_: Any) -> None:
        raise AssertionError("the bars were read again")

    monkeypatch.setattr(BarStore, "read", refuse)
    dataset = planned_dataset(request, plan, strategy)
    assert dataset.digest == plan.dataset_digest


def test_a_damaged_cache_is_mended_from_the_bars(path: Path, storage: Storage) -> None:
    [(request, plan)] = prepare(path, TrainingOptions(), storage)
    [entry] = entries(storage)
    content = (entry / "inputs.npy").read_bytes()
    (entry / "inputs.npy").write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert prepare(path, TrainingOptions(), storage) == ((request, plan),)
    strategy = validate_strategy(plan.config, "the plan")
    assert planned_dataset(request, plan, strategy).digest == plan.dataset_digest
    assert (entry / "inputs.npy").read_bytes() == content


def entries(storage: Storage) -> list[Path]:
    return list((storage.root / "features").glob("[!.]*"))
