"""What is stored loads again and does the same; what is not ours is never executed."""

from __future__ import annotations

import io
import pickle
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from checkpoint_folder import CheckpointFolder
from tiny_training import Bench, make_dataset, make_strategy, stored

from ktrdr.checkpoints.manifest import Header
from ktrdr.checkpoints.model_store import read_model
from ktrdr.checkpoints.write import write_checkpoint
from ktrdr.errors import CheckpointCorrupted
from ktrdr.inference.model import load_model
from ktrdr.training.environment import differences, environment
from ktrdr.training.networks import build_model
from ktrdr.training.resume import restore_from_checkpoint
from ktrdr.training.weights import load_state, save_state, weights_digest


def test_a_stored_model_loads_again_and_gives_the_same_outputs(tmp_path: Path) -> None:
    bench = Bench(tmp_path, make_strategy())
    header = stored(bench)
    model = load_model(*read_model(bench.storage, "tiny", 1))

    test = bench.dataset.splits.test
    outputs = model.outputs(bench.dataset.inputs[test.start : test.stop])
    guesses = outputs.argmax(axis=1)
    hits = guesses == bench.dataset.labels[test.start : test.stop]
    assert hits.mean() == header.metrics["test_accuracy"]
    assert weights_digest(model.module.state_dict()) == header.weights_digest
    assert model.strategy == bench.strategy
    shares = model.probabilities(bench.dataset.inputs[test.start : test.stop])
    assert (shares.argmax(axis=1) == guesses).all()
    assert (model.name, model.class_names) == ("tiny@v1", bench.dataset.class_names)
    assert not np.array_equal(outputs[0], outputs[1])


def test_weights_that_are_not_the_manifests_are_refused(tmp_path: Path) -> None:
    bench = Bench(tmp_path, make_strategy())
    stored(bench, weights_digest="0" * 64)
    with pytest.raises(CheckpointCorrupted, match="tiny@v1"):
        load_model(*read_model(bench.storage, "tiny", 1))


def test_weights_of_another_shape_are_refused(tmp_path: Path) -> None:
    bench = Bench(tmp_path, make_strategy())
    stored(bench, input_names=["a", "b"])
    with pytest.raises(CheckpointCorrupted, match="does not fit"):
        load_model(*read_model(bench.storage, "tiny", 1))


class Payload:
    """Would set a flag in `sys` if it were ever unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return exec, ("import sys; sys.ktrdr_payload_ran = True",)


def _torch_payload() -> bytes:
    buffer = io.BytesIO()
    torch.save({"weight": Payload()}, buffer)
    return buffer.getvalue()


@pytest.mark.parametrize(
    "data",
    [pickle.dumps(Payload()), _torch_payload(), b"junk", save_state({"x": 1})[:-40]],
    ids=["pickle", "torch file", "junk", "torn"],
)
@pytest.mark.parametrize("name", ["model.pt", "optimizer.pt", "loop.pt"])
def test_no_pickled_object_is_ever_loaded(tmp_path: Path, name: str, data: bytes) -> None:
    """Not even behind a manifest whose digests are right."""
    bench = Bench(tmp_path, make_strategy())
    bench.stop(1)
    resume = bench.restored()
    assert resume is not None
    manifest = resume.manifest
    header = Header.model_validate(
        {k: getattr(manifest, k) for k in Header.model_fields} | {"number": 9}
    )
    latest = bench.context.latest_checkpoint()
    assert latest is not None
    files = {path.name: path.read_bytes() for path in latest.directory.glob("*.pt")}
    new = write_checkpoint(bench.storage, header, files | {name: data})

    with pytest.raises(CheckpointCorrupted, match=name):
        restore_from_checkpoint(CheckpointFolder(bench.storage.at(new.path)))
    assert not hasattr(sys, "ktrdr_payload_ran")


@pytest.mark.parametrize("name", ["model.pt", "optimizer.pt", "scheduler.pt", "loop.pt"])
def test_a_damaged_file_stops_a_restore_by_name(tmp_path: Path, name: str) -> None:
    bench = Bench(tmp_path, make_strategy(lr_scheduler={"type": "cosine"}))
    stopped = bench.stop(5)
    assert stopped.checkpoint is not None
    directory = bench.storage.at(stopped.checkpoint.path)
    data = bytearray((directory / name).read_bytes())
    data[len(data) // 2] ^= 1
    (directory / name).write_bytes(data)
    with pytest.raises(CheckpointCorrupted, match=name):
        restore_from_checkpoint(CheckpointFolder(directory))


def test_a_digest_sees_names_types_shapes_and_bytes() -> None:
    base = {"a": torch.zeros(2, 3), "b": torch.tensor(1.0)}
    variants = [
        {"a": torch.zeros(3, 2), "b": torch.tensor(1.0)},
        {"a": torch.zeros(2, 3, dtype=torch.float16), "b": torch.tensor(1.0)},
        {"a": torch.zeros(2, 3), "c": torch.tensor(1.0)},
        {"a": torch.zeros(2, 3), "b": torch.tensor(1.0000001)},
        {"a": -torch.zeros(2, 3), "b": torch.tensor(1.0)},
    ]
    digests = {weights_digest(state) for state in [base, *variants]}
    assert len(digests) == 1 + len(variants)
    reordered = {"b": base["b"].clone(), "a": base["a"].t().contiguous().t()}
    assert weights_digest(reordered) == weights_digest(base)


def test_first_weights_depend_on_the_seed_alone() -> None:
    model = make_strategy().model
    before = torch.get_rng_state()
    columns = make_dataset().columns
    digests = [
        weights_digest(build_model(model, columns, 3, seed).state_dict()) for seed in (1, 1, 2)
    ]
    assert digests[0] == digests[1] != digests[2]
    assert torch.equal(before, torch.get_rng_state())


def test_states_travel_as_bytes() -> None:
    numbers = torch.arange(3)
    state = {"x": numbers, "y": [1.5, None, "text"], "z": {"k": (1, 2)}}
    again = load_state(save_state(state), "here")
    assert torch.equal(again.pop("x"), numbers)
    assert again == {"y": [1.5, None, "text"], "z": {"k": (1, 2)}}


def test_environments_differ_by_name() -> None:
    now = environment("cpu", workers=1, threads=1)
    assert now["threads"] == 1
    assert now["device"] == "cpu"
    assert now["torch"].startswith("2.")
    assert differences(now, now) == []
    assert differences({**now, "torch": "2.0"}, {**now, "workers": 2}) == [
        f"torch: 2.0 -> {now['torch']}",
        "workers: 1 -> 2",
    ]


def test_a_dataset_may_be_read_only() -> None:
    assert not make_dataset().inputs.flags.writeable
