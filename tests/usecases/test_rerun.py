"""Training again what an operation trained: the same settings, and a fold alone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from small_strategy import STRATEGY, write_bars
from store_bench import OWNER

from ktrdr.errors import CheckpointNotFound, DataNotFound, StrategyNotFound, Usage
from ktrdr.operations.service import OperationsService
from ktrdr.operations.types import Operation
from ktrdr.storage.root import Storage
from ktrdr.store import open_store
from ktrdr.usecases import rerun, resume
from ktrdr.usecases.submit import TrainingOptions, prepare


@pytest.fixture
def service() -> Iterator[OperationsService]:
    store = open_store("sqlite://")
    yield OperationsService(store)
    store.close()


def strategy(folder: Path, folds: int) -> Path:
    content = yaml.safe_load(STRATEGY)
    if folds:
        content["training"]["data_split"] = {"mode": "purged_kfold", "folds": folds, "embargo": 3}
    path = folder / "again.yaml"
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return path


def submitted(service: OperationsService, folder: Path, folds: int) -> Operation:
    """The last fold, with options of its own, cancelled while it waited."""
    write_bars(folder)
    storage = Storage(folder)
    storage.claim(service.store_id())
    overrides = TrainingOptions(epochs=3, seed=5)
    request, plan = prepare(strategy(folder, folds), overrides, storage)[-1]
    row = service.submit(request, plan, OWNER, "r")
    return service.request_cancel(row.operation_id, 0, "c")


@pytest.mark.parametrize("folds", [0, 3])
def test_the_settings_are_the_same_and_so_is_the_fold(
    service: OperationsService, tmp_path: Path, folds: int
) -> None:
    row = submitted(service, tmp_path, folds)
    [(request, plan)] = rerun.choose(row, Storage(tmp_path)).prepare()
    assert (request, plan) == (row.request, row.plan)
    assert request.fold == (folds or None)
    assert (request.epochs, request.seed) == (3, 5)


def test_a_resume_without_a_checkpoint_names_the_command(
    service: OperationsService, tmp_path: Path
) -> None:
    row = submitted(service, tmp_path, 0)
    wish = resume.ResumeOptions()
    with pytest.raises(CheckpointNotFound, match=f"operations rerun {row.operation_id}"):
        resume.claim(service, service.store_id(), lambda: OWNER, row.operation_id, wish)


@pytest.mark.parametrize(("before", "after"), [(0, 2), (3, 2), (3, 0)])
def test_a_fold_that_the_strategy_no_longer_has_is_refused(
    service: OperationsService, tmp_path: Path, before: int, after: int
) -> None:
    row = submitted(service, tmp_path, before)
    strategy(tmp_path, after)
    with pytest.raises(Usage, match="the split of"):
        rerun.choose(row, Storage(tmp_path))


def test_without_its_file_or_its_bars_nothing_is_trained(
    service: OperationsService, tmp_path: Path
) -> None:
    row = submitted(service, tmp_path, 0)
    (elsewhere := tmp_path / "elsewhere").mkdir()
    with pytest.raises(DataNotFound):
        rerun.choose(row, Storage(elsewhere))
    (tmp_path / "again.yaml").unlink()
    with pytest.raises(StrategyNotFound):
        rerun.choose(row, Storage(tmp_path))
