"""Stopped anywhere and resumed, training ends in the same bits as undisturbed; proof by equality.

The negative controls leave one part of the state out: then the equality must fail, or it proves
nothing.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_training import BATCHES, EPOCHS, Bench, make_dataset, make_strategy, outcome

from ktrdr.errors import CheckpointCorrupted, DataChanged
from ktrdr.operations.model import CheckpointType
from ktrdr.strategy.schema import Strategy
from ktrdr.training.resume import TrainingResumeContext
from ktrdr.training.state import plain_random_state, random_state, seed_everything

OPTIMIZERS: dict[str, dict[str, Any]] = {
    "adam": {"optimizer": "adam", "weight_decay": 0.01},
    "adamw": {"optimizer": "adamw", "weight_decay": 0.01},
    "sgd": {"optimizer": "sgd", "momentum": 0.9},
    "rmsprop": {"optimizer": "rmsprop", "momentum": 0.5},
}
SCHEDULERS: dict[str, dict[str, Any] | None] = {
    "constant": None,
    "step": {"type": "step", "step_size": 1, "gamma": 0.5},
    "exponential": {"type": "exponential", "gamma": 0.7},
    "cosine": {"type": "cosine"},
    "plateau": {"type": "reduce_on_plateau", "factor": 0.3, "patience": 0},
}


def final_state(bench: Bench) -> dict[str, Any]:
    """Everything that the newest checkpoint holds, in comparable form."""
    resume = bench.restored()
    assert resume is not None
    return {
        "model": resume.model_weights,
        "optimizer": resume.optimizer_state,
        "scheduler": resume.scheduler_state,
        "best": resume.best_model_weights,
        "random": resume.random_states,
        "loop": {
            **dataclasses.asdict(resume.loop),
            "seconds": None,
            "history": [
                {**row.metrics, "duration": None, "epoch": row.epoch}
                for row in resume.training_history
            ],
        },
    }


def same(one: Any, two: Any) -> bool:
    if isinstance(one, torch.Tensor):
        return isinstance(two, torch.Tensor) and one.dtype == two.dtype and torch.equal(one, two)
    if isinstance(one, dict):
        return one.keys() == two.keys() and all(same(one[key], two[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(two) and all(map(same, one, two))
    return bool(one == two)


def strategy_of(optimizer: str, scheduler: str, **more: Any) -> Strategy:
    schedule = SCHEDULERS[scheduler]
    knobs = OPTIMIZERS[optimizer] | ({"lr_scheduler": schedule} if schedule else {})
    return make_strategy(**knobs, **more)


@pytest.mark.parametrize("scheduler", SCHEDULERS)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_stopped_at_any_batch_and_resumed_equals_straight(
    tmp_path: Path, optimizer: str, scheduler: str
) -> None:
    strategy = strategy_of(optimizer, scheduler, loss="focal", gradient_clip=0.5)
    expected = outcome(Bench(tmp_path / "straight", strategy).complete())
    thorough = optimizer == "adam" or scheduler == "plateau"
    for step in range(EPOCHS * BATCHES + 1) if thorough else (1, 4, 6, 12):
        bench = Bench(tmp_path / f"stopped-{step}", strategy)
        stopped = bench.stop(step)
        assert (stopped.epoch, stopped.batch) == divmod(step, BATCHES)
        resume = bench.restored()
        assert resume is not None
        assert (resume.start_epoch, resume.start_batch) == (stopped.epoch + 1, stopped.batch)

        assert outcome(bench.complete()) == expected, f"stopped at batch {step}"


@pytest.mark.parametrize("scheduler", SCHEDULERS)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_optimizer_and_scheduler_end_in_the_same_state(
    tmp_path: Path, optimizer: str, scheduler: str
) -> None:
    strategy = strategy_of(optimizer, scheduler)
    straight = Bench(tmp_path / "straight", strategy)
    straight.stop(EPOCHS * BATCHES)
    bench = Bench(tmp_path / "stopped", strategy)
    for step in (BATCHES + 1, 2 * BATCHES, EPOCHS * BATCHES):
        bench.stop(step)
    assert same(final_state(bench), final_state(straight))


@pytest.mark.parametrize("stops", [(1, 2, 3, 4, 5), (4, 8), (3, 4, 9, 11, 12), (0, 0, 12, 12)])
def test_a_chain_of_resumes_equals_straight(tmp_path: Path, stops: tuple[int, ...]) -> None:
    strategy = strategy_of("adam", "plateau")
    expected = outcome(Bench(tmp_path / "straight", strategy).complete())
    bench = Bench(tmp_path / "chain", strategy)
    for step in stops:
        stopped = bench.stop(step)
        assert (stopped.epoch, stopped.batch) == divmod(step, BATCHES)
    assert outcome(bench.complete()) == expected


def test_early_stopping_counters_survive_a_stop_anywhere(tmp_path: Path) -> None:
    strategy = make_strategy(
        epochs=12, early_stopping={"patience": 2, "min_delta": 0.02}, learning_rate=0.3
    )
    straight = Bench(tmp_path / "straight", strategy).complete()
    assert straight.epochs < 12
    for step in range(1, straight.epochs * BATCHES + 1):
        bench = Bench(tmp_path / f"stopped-{step}", strategy)
        bench.stop(step)
        assert outcome(bench.complete()) == outcome(straight)


def test_what_a_long_epoch_folds_away_does_not_change_its_sums(tmp_path: Path) -> None:
    strategy, dataset = make_strategy(epochs=1, batch_size=2), make_dataset(rows=1000)
    expected = outcome(Bench(tmp_path / "straight", strategy, dataset).complete())
    for step in (1, 127, 128, 129, 200, 299, 300):
        bench = Bench(tmp_path / f"stopped-{step}", strategy, dataset)
        bench.stop(step)
        assert outcome(bench.complete()) == expected


def _fresh_random_state(resume: TrainingResumeContext) -> dict[str, Any]:
    seed_everything(resume.loop.seed)
    return {"0": plain_random_state(random_state(torch.device("cpu")))}


def _without_moments(resume: TrainingResumeContext) -> dict[str, Any]:
    return {**resume.optimizer_state, "state": {}}


LEFT_OUT: dict[str, Callable[[TrainingResumeContext], dict[str, Any]]] = {
    "random state": lambda r: {"random_states": _fresh_random_state(r)},
    "batch": lambda r: {"loop": dataclasses.replace(r.loop, batch=0)},
    "epoch": lambda r: {"loop": dataclasses.replace(r.loop, epoch=r.loop.epoch - 1)},
    "loss total": lambda r: {"loop": dataclasses.replace(r.loop, loss_total=0.0)},
    "correct rows": lambda r: {"loop": dataclasses.replace(r.loop, correct=0)},
    "history": lambda r: {"loop": dataclasses.replace(r.loop, history=[])},
    "best": lambda r: {"loop": dataclasses.replace(r.loop, best_epoch=0, best_score=None)},
    "best weights": lambda r: {"best_model_weights": r.model_weights},
    "stale epochs": lambda r: {"loop": dataclasses.replace(r.loop, stale_epochs=0)},
    "reference score": lambda r: {"loop": dataclasses.replace(r.loop, reference_score=None)},
    "optimizer": lambda r: {"optimizer_state": _without_moments(r)},
    "scheduler": lambda r: {
        "scheduler_state": {**(r.scheduler_state or {}), "num_bad_epochs": 0, "best": 1e9}
    },
    "weights": lambda r: {"model_weights": r.best_model_weights},
}


CONTROL = make_strategy(
    epochs=8,
    learning_rate=0.2,
    lr_scheduler={"type": "reduce_on_plateau", "factor": 0.5, "patience": 1},
    early_stopping={"patience": 3, "min_delta": 0.01},
    seed=13,
)
"""Its best epoch is an early one, then it gets worse: so every part of the state matters."""
CONTROL_STOP = 3 * BATCHES + 2


def _stopped(root: Path) -> tuple[Bench, TrainingResumeContext]:
    bench = Bench(root, CONTROL)
    bench.stop(CONTROL_STOP)
    resume = bench.restored()
    assert resume is not None
    return bench, resume


def test_the_whole_state_of_the_controls_is_enough(tmp_path: Path) -> None:
    straight = Bench(tmp_path / "straight", CONTROL).complete()
    bench, resume = _stopped(tmp_path / "stopped")
    assert outcome(bench.complete(resume)) == outcome(straight)
    assert outcome(bench.complete(resume)) == outcome(straight), "its first use changed it"


@pytest.mark.parametrize("part", LEFT_OUT)
def test_leaving_a_part_of_the_state_out_is_noticed(tmp_path: Path, part: str) -> None:
    straight = Bench(tmp_path / "straight", CONTROL).complete()
    bench, resume = _stopped(tmp_path / "stopped")
    damaged = dataclasses.replace(resume, **LEFT_OUT[part](resume))
    try:
        different = outcome(bench.complete(damaged)) != outcome(straight)
    except IndexError:
        different = part == "history"
    assert different


def test_the_resume_context_says_what_it_goes_on_from(tmp_path: Path) -> None:
    bench = Bench(tmp_path, make_strategy())
    bench.stop(BATCHES + 2)
    resume = bench.restored()
    assert resume is not None
    assert (resume.start_epoch, resume.start_batch) == (2, 2)
    assert [row.epoch for row in resume.training_history] == [1]
    assert resume.best_val_loss == resume.training_history[0].metrics["val_loss"]
    assert resume.original_request == {"strategy_name": "tiny"}
    assert resume.manifest.checkpoint_type is CheckpointType.CANCELLATION


@pytest.mark.parametrize(
    "other",
    [
        make_strategy(hidden=(6, 6)),
        make_strategy(hidden=(6,)),
        make_strategy(optimizer="sgd"),
        make_strategy(lr_scheduler={"type": "cosine"}),
    ],
    ids=["width", "depth", "optimizer", "scheduler"],
)
def test_a_checkpoint_of_another_strategy_is_refused(tmp_path: Path, other: Strategy) -> None:
    bench = Bench(tmp_path, make_strategy())
    bench.stop(BATCHES + 1)
    bench.strategy = other
    with pytest.raises(CheckpointCorrupted, match="strategy"):
        bench.run()


def test_a_checkpoint_of_other_data_is_refused(tmp_path: Path) -> None:
    bench = Bench(tmp_path, make_strategy())
    bench.stop(2)
    bench.dataset = make_dataset(seed=4)
    with pytest.raises(DataChanged):
        bench.run()
