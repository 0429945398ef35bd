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
from tiny_training import (
    BATCHES,
    EPOCHS,
    MLP,
    OPTIMIZERS,
    REGRESSION,
    SCHEDULERS,
    Bench,
    convolutional,
    final_state,
    make_dataset,
    make_strategy,
    neuro_fuzzy,
    outcome,
    recurrent,
    same,
)

from ktrdr.errors import CheckpointCorrupted, DataChanged
from ktrdr.operations.types import CheckpointType
from ktrdr.strategy.schema import Strategy
from ktrdr.training.networks import build_model
from ktrdr.training.resume import TrainingResumeContext
from ktrdr.training.state import plain_random_state, random_state, seed_everything


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


@pytest.mark.parametrize("more", [{}, REGRESSION], ids=["classes", "values"])
@pytest.mark.parametrize("model", [convolutional(), neuro_fuzzy()], ids=lambda m: m["type"])
def test_other_networks_resume_exactly_too(
    tmp_path: Path, model: dict[str, Any], more: dict[str, Any]
) -> None:
    strategy = strategy_of("adam", "step", model=model, gradient_clip=0.5, **more)
    straight = Bench(tmp_path / "straight", strategy)
    straight.stop(EPOCHS * BATCHES)
    expected = outcome(straight.complete())
    for step in (1, BATCHES, BATCHES + 3, EPOCHS * BATCHES - 1):
        bench = Bench(tmp_path / f"stopped-{step}", strategy)
        bench.stop(step)
        bench.stop(EPOCHS * BATCHES)
        assert same(final_state(bench), final_state(straight)), f"stopped at batch {step}"
        assert outcome(bench.complete()) == expected


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


FORECASTER: dict[str, Any] = {"model": recurrent("gru"), **REGRESSION}


@pytest.mark.parametrize("stopping", [None, {"patience": 1, "min_delta": 1.0}], ids=str)
@pytest.mark.parametrize("more", [{}, FORECASTER], ids=["mlp", "gru regression"])
def test_with_nothing_left_to_train_it_completes_without_a_step(
    tmp_path: Path, more: dict[str, Any], stopping: dict[str, Any] | None
) -> None:
    strategy = make_strategy(**more, early_stopping=stopping)
    straight = Bench(tmp_path / "straight", strategy).complete()
    assert straight.epochs == (2 if stopping else EPOCHS)
    bench = Bench(tmp_path / "stopped", strategy)
    bench.stop(straight.epochs * BATCHES)
    bench.stop(straight.epochs * BATCHES)
    result = bench.complete()
    assert bench.context.history == []
    assert outcome(result) == outcome(straight)


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


def _control(
    model: dict[str, Any], learning_rate: float, min_delta: float, seed: int, **training: Any
) -> Strategy:
    return make_strategy(
        model,
        epochs=8,
        learning_rate=learning_rate,
        lr_scheduler={"type": "reduce_on_plateau", "factor": 0.5, "patience": 1},
        early_stopping={"patience": 3, "min_delta": min_delta},
        seed=seed,
        **training,
    )


CONTROLS = {
    "mlp": _control(MLP, 0.2, 0.01, 13),
    "lstm": _control(recurrent("lstm"), 0.05, 0.01, 15),
    "gru": _control(recurrent("gru"), 0.05, 0.01, 15),
    "mlp regression": _control(MLP, 0.05, 1e-6, 21, **REGRESSION),
    "gru regression": _control(recurrent("gru"), 0.05, 1e-6, 19, **REGRESSION),
    "tcn": _control(convolutional(), 0.05, 0.01, 13),
    "neuro_fuzzy": _control(neuro_fuzzy(), 0.2, 0.01, 17),
}
"""Their best epoch is an early one, then they get worse: so every part of the state matters."""
CONTROL_STOP = 3 * BATCHES + 2


def _stopped(root: Path, control: str) -> tuple[Bench, TrainingResumeContext]:
    bench = Bench(root, CONTROLS[control])
    bench.stop(CONTROL_STOP)
    resume = bench.restored()
    assert resume is not None
    return bench, resume


@pytest.mark.parametrize("control", CONTROLS)
def test_the_whole_state_of_the_controls_is_enough(tmp_path: Path, control: str) -> None:
    straight = Bench(tmp_path / "straight", CONTROLS[control]).complete()
    bench, resume = _stopped(tmp_path / "stopped", control)
    assert outcome(bench.complete(resume)) == outcome(straight)
    assert outcome(bench.complete(resume)) == outcome(straight), "its first use changed it"


@pytest.mark.parametrize(
    ("control", "part"),
    [
        (control, part)
        for control in CONTROLS
        for part in LEFT_OUT
        if (control, part) != ("neuro_fuzzy", "random state")  # it has no dropout to draw for
    ],
)
def test_leaving_a_part_of_the_state_out_is_noticed(
    tmp_path: Path, control: str, part: str
) -> None:
    straight = Bench(tmp_path / "straight", CONTROLS[control]).complete()
    bench, resume = _stopped(tmp_path / "stopped", control)
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
        make_strategy({"type": "mlp", "architecture": {"hidden_layers": [6, 6]}}),
        make_strategy({"type": "mlp", "architecture": {"hidden_layers": [6]}}),
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


@pytest.mark.parametrize("step", [BATCHES + 1, EPOCHS * BATCHES])
@pytest.mark.parametrize(("before", "after"), [(0.0, 0.3), (0.3, 0.0)])
def test_dropout_may_be_switched_on_and_off(
    tmp_path: Path, before: float, after: float, step: int
) -> None:
    """Though the layers of the perceptron are then called otherwise."""

    def of(dropout: float) -> Strategy:
        shape = {"hidden_layers": [6, 5], "dropout": dropout}
        return make_strategy({"type": "mlp", "architecture": shape})

    bench = Bench(tmp_path, of(before))
    bench.stop(step)
    known = bench.restored()
    assert known is not None
    assert known.best_model_weights is not None
    bench.strategy = of(after)
    weights = bench.complete().weights
    network = build_model(of(after).model, bench.dataset.columns, 3, seed=0)
    assert list(weights) == list(network.state_dict())
    if step == EPOCHS * BATCHES:
        pairs = zip(known.best_model_weights.values(), weights.values(), strict=True)
        assert all(torch.equal(old, new) for old, new in pairs)


def test_a_checkpoint_of_other_data_is_refused(tmp_path: Path) -> None:
    bench = Bench(tmp_path, make_strategy())
    bench.stop(2)
    bench.dataset = make_dataset(seed=4)
    with pytest.raises(DataChanged):
        bench.run()
