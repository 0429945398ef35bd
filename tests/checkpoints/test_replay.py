"""Crash consistency: a life is recorded, and the next start goes on rightly from every crash in it.

KTRDR_CHAOS_CASES says how many random images of the disk are rebuilt for each call (default 2);
KTRDR_CHAOS_SEED chooses others.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from checkpoint_bench import OWNER, PROVENANCE, Bench, SilentDrivers, opened
from checkpoint_folder import CheckpointFolder
from recorded_disk import (
    Call,
    Disk,
    Image,
    RecordingFiles,
    choices,
    lay_out,
    moved_before,
    without,
)
from service_context import ServiceContext
from torch import Tensor
from trained_model import complete

from ktrdr.checkpoints.cleanup import sweep_operation
from ktrdr.checkpoints.model_store import read_model
from ktrdr.checkpoints.verify import latest_good
from ktrdr.errors import KtrdrError
from ktrdr.features.columns import InputColumn
from ktrdr.features.dataset import Dataset, Splits
from ktrdr.operations.types import (
    CheckpointType,
    HistoryRow,
    Operation,
    Status,
    StopKind,
)
from ktrdr.storage.root import MARKER
from ktrdr.store import SqlStore
from ktrdr.store.sql import SqlTransaction
from ktrdr.strategy.schema import Strategy
from ktrdr.training.checkpoint_writer import CheckpointWriter
from ktrdr.training.plan import TrainingJob
from ktrdr.training.resume import restore_from_checkpoint
from ktrdr.training.state import Loop, Snapshot, random_state
from ktrdr.training.trainer import Completed

CASES = int(os.environ.get("KTRDR_CHAOS_CASES", "2"))
SEED = os.environ.get("KTRDR_CHAOS_SEED", "20260101")
DIGEST = "ab" * 32
STRATEGY = Strategy.model_validate(
    {
        "name": "demo",
        "training_data": {"symbols": {"symbol": "SAMPLE"}, "timeframes": {"timeframe": "1h"}},
        "indicators": {"rsi_14": {"type": "rsi"}},
        "fuzzy_sets": {"rsi": {"indicator": "rsi_14", "low": [0, 20, 40]}},
        "nn_inputs": [{"fuzzy_set": "rsi"}],
        "model": {"type": "mlp", "architecture": {"hidden_layers": [2]}},
    }
)
LONG = pytest.mark.timeout(120 + 60 * CASES)


class Broken(Exception):
    """What a crash has lost or left that it must not."""


@dataclass(frozen=True)
class Life:
    """All that the disk and the store were told, from an empty disk on."""

    root: Path
    store_id: str
    operation_id: str
    calls: tuple[Call, ...]


@pytest.fixture(scope="module", autouse=True)
def _disk_without_syncs() -> Iterator[None]:
    """Real files whose syncs cost nothing: what a sync means is decided by the replay."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(os, "fsync", lambda _: None)
        yield


@pytest.fixture(scope="module")
def life(tmp_path_factory: pytest.TempPathFactory) -> Life:
    """Two attempts with retention in both and between them, a stop, a model, and the sweep."""
    files = RecordingFiles()
    with opened(tmp_path_factory.mktemp("life")) as bench:
        bench.storage.files = files
        marker = bench.storage.root / MARKER
        files.calls += [Call("make file", marker), Call("fill", marker, data=marker.read_bytes())]
        files.calls += [Call("sync file", marker), Call("sync folder", bench.storage.root)]
        with _recorded_transactions(bench.store, files.calls):
            operation = _live(bench)
        store_id = bench.store.store_id()
        return Life(bench.storage.root, store_id, operation.operation_id, tuple(files.calls))


def _live(bench: Bench) -> Operation:
    operation = bench.running()
    _train(bench, operation, best=(2,), until=4)
    name = operation.operation_id
    operation = bench.service.finish_stopped(name, 1, StopKind.USER)
    bench.resumed(operation)
    operation = bench.service.launch(name, 2, OWNER.id)
    _train(bench, operation, best=(), until=2)
    _complete(bench, operation)
    sweep_operation(bench.service, name, bench.storage.files)
    return operation


def _complete(bench: Bench, operation: Operation) -> None:
    splits = Splits(range(1), range(1), range(1))
    dataset = Dataset(
        inputs=np.zeros((1, 1), dtype=np.float32),
        labels=np.zeros(1, dtype=np.int64),
        timestamps=np.zeros(1, dtype=np.int64),
        columns=(InputColumn("x"),),
        class_names=("BUY", "HOLD", "SELL"),
        splits=splits,
        digest="f" * 64,
    )
    job = TrainingJob(STRATEGY, PROVENANCE, device="cpu", threads=1)
    outcome = Completed(_weights(0, 0), DIGEST, 4, 2, {"test_loss": 0.5}, ())
    complete(bench.service, bench.storage, operation, (job, dataset, outcome))


def _train(bench: Bench, operation: Operation, best: tuple[int, ...], until: int) -> None:
    context = ServiceContext(bench.service, operation, files=bench.storage.files)
    with CheckpointWriter(context, PROVENANCE, None) as writer:
        for number in range(1, until + 1):
            assert writer.finish(_snapshot(operation.attempt, number, number in best)) is not None
    assert context.warnings == []


def _snapshot(attempt: int, number: int, is_best: bool) -> Snapshot:
    epoch = 10 * attempt + number
    history = [HistoryRow(n, {"train_loss": 1.0 / n}) for n in range(1, epoch + 1)]
    return Snapshot(
        checkpoint_type=CheckpointType.PERIODIC,
        loop=Loop(1, epoch, 0, history, best_epoch=epoch if is_best else 0),
        global_step=epoch,
        model=_weights(attempt, number),
        optimizer={"param_groups": []},
        scheduler=None,
        best_model=None,
        random_state=random_state(torch.device("cpu")),
        rank=0,
    )


def _weights(attempt: int, number: int) -> dict[str, Tensor]:
    return {"w": torch.tensor([float(attempt), float(number)])}


@contextmanager
def _recorded_transactions(store: SqlStore, calls: list[Call]) -> Iterator[None]:
    """After every transaction the whole store is written down: it is durable at once or not."""
    begin = store.transaction

    @contextmanager
    def recorded() -> Iterator[SqlTransaction]:
        with begin() as transaction:
            yield transaction
        calls.append(Call("store", data=_image_of(store)))

    store.transaction = recorded  # type: ignore[method-assign]
    yield
    store.transaction = begin  # type: ignore[method-assign]


def _image_of(store: SqlStore) -> bytes:
    connection = store._engine.raw_connection()
    try:
        image: bytes = connection.driver_connection.serialize()  # type: ignore[union-attr]
        return image
    finally:
        connection.close()


def _put_back(store: SqlStore, image: bytes) -> None:
    connection = store._engine.raw_connection()
    try:
        connection.driver_connection.deserialize(image)  # type: ignore[union-attr]
    finally:
        connection.close()


@pytest.fixture
def bench(life: Life) -> Iterator[Bench]:
    """A store and a storage at the place that the rows of the life name."""
    shutil.rmtree(life.root, ignore_errors=True)
    with opened(life.root.parent) as bench:
        bench.store._store_id = life.store_id
        yield bench
    shutil.rmtree(life.root, ignore_errors=True)


def _replay(life: Life, calls: Sequence[Call], bench: Bench, cases: int, start: int = 0) -> int:
    """Crash after every call, in every way chosen; raises Broken for the first that is not right.

    Only after calls from `start` on. Returns how many crashes were recovered from.
    """
    disk, rows = Disk(life.root), b""
    seen: set[tuple[Image, bytes]] = set()
    for index, call in enumerate(calls):
        if call.kind == "store":
            rows = call.data
        else:
            disk.run(call)
        for way, choice in choices(f"{SEED} {index}", cases):
            image = disk.image(choice)
            if index < start or not rows or (image, rows) in seen:
                continue
            seen.add((image, rows))
            lay_out(image, life.root)
            _put_back(bench.store, rows)
            try:
                _recover(life, bench)
            except (KtrdrError, Broken) as error:
                where = f"a crash after call {index} ({call}), {way}, seed {SEED}"
                raise Broken(f"{where}: {error}") from error
    return len(seen)


def _recover(life: Life, bench: Bench) -> None:
    """A new owner starts; then all that was acknowledged is there, and nothing else."""
    before = bench.service.get(life.operation_id)
    acknowledged = bench.service.latest_checkpoint(life.operation_id)
    bench.supervise(SilentDrivers())
    after = bench.service.get(life.operation_id)
    standing = bench.service.checkpoints(life.operation_id)
    _check(bench.service.checkpoints(life.operation_id, doomed=True) == (), "doomed rows are left")
    if before.status is Status.COMPLETED:
        _check(after == before, "a completed operation has changed")
        [model] = bench.service.models()
        read_model(bench.storage, model.strategy_name, model.version)
        left = {name for name in bench.names() if name.startswith("operations/")}
        _check(not left, f"left: {left}")
    else:
        _check(bench.service.models() == (), "a model that was never completed is listed")
        if standing:
            chosen, _, passed_over = latest_good(bench.storage, standing)
            _check(not passed_over, f"passed over: {passed_over}")
            _check_content(bench, chosen.path, chosen.key)
        newest = max((row.key for row in standing), default=(0, 0))
        _check(acknowledged is None or newest >= acknowledged.key, "a commit was lost")
        _check(not any("/v" in n for n in bench.names()), "a model nobody completed is left")
    hidden = {name for name in bench.names() if Path(name).name.startswith(".")}
    _check(not hidden, f"litter: {hidden}")


def _check_content(bench: Bench, path: str, key: tuple[int, int]) -> None:
    restored = restore_from_checkpoint(CheckpointFolder(bench.storage.at(path)))
    same = torch.equal(restored.model_weights["w"], _weights(*key)["w"])
    _check(same, f"{path} holds the weights of another checkpoint")


def _check(holds: bool, otherwise: str) -> None:
    if not holds:
        raise Broken(otherwise)


@LONG
def test_the_next_start_goes_on_rightly_from_a_crash_at_any_call(life: Life, bench: Bench) -> None:
    kinds = {call.kind for call in life.calls}
    assert kinds >= {"make folder", "sync file", "sync folder", "rename", "remove", "store"}
    recovered = _replay(life, life.calls, bench, CASES)
    assert recovered > len(life.calls)


def _is(kind: str, prefix: str = "") -> Callable[[Call], bool]:
    return lambda call: (
        call.kind == kind
        and (call.path.name.startswith(prefix) or call.target.name.startswith(prefix))
    )


_of_attempt = _is("sync folder", "attempt-")
_to_trash = _is("rename", ".trash-")

FAULTS: dict[str, Callable[[Sequence[Call]], list[Call]]] = {
    "files are not synced": lambda calls: without(
        calls, lambda c: _is("sync file")(c) and c.path.parent.name.startswith(".tmp-")
    ),
    "one file is not synced": lambda calls: without(
        calls, lambda c: _is("sync file", "loop.pt")(c) and c.path.parent.name.startswith(".tmp-")
    ),
    "the manifest is not synced": lambda calls: without(
        calls, lambda c: _is("sync file", "manifest")(c) and c.path.parent.name.startswith(".tmp-")
    ),
    "the new folder is not synced": lambda calls: without(calls, _is("sync folder", ".tmp-")),
    "the rename is not synced": lambda calls: without(calls, _of_attempt),
    "the attempt's folder is not synced": lambda calls: without(calls, _is("sync folder", "op_")),
    "the row comes before the rename": lambda calls: moved_before(
        calls, _is("store"), _is("rename", "checkpoint-")
    ),
    "removed before the row is doomed": lambda calls: moved_before(calls, _to_trash, _is("store")),
    "the model is not synced": lambda calls: without(
        calls, lambda c: _is("sync file")(c) and c.path.parent.name.startswith(".staging-")
    ),
    "the model's rename is not synced": lambda calls: without(calls, _is("sync folder", "demo")),
}


@LONG
@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_a_life_with_a_fault_is_found_out(
    fault: Callable[[Sequence[Call]], list[Call]], life: Life, bench: Bench
) -> None:
    calls = fault(life.calls)
    pairs = enumerate(zip(calls, life.calls, strict=False))
    start = next(index for index, (faulty, right) in pairs if faulty is not right)
    with pytest.raises(Broken, match="a crash after call"):
        _replay(life, calls, bench, 0, start)
