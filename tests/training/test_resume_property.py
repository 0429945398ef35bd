"""Whatever is trained, however often it is stopped or killed, it ends in the same bits.

Every case is drawn from the seed in its test's name: model, knobs, data, and where it is stopped.
KTRDR_CHAOS_SEED and KTRDR_CHAOS_CASES choose other cases and more of them.
"""

from __future__ import annotations

import dataclasses
import os
import random
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from faults import KilledAt
from tiny_training import (
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

from ktrdr.features.dataset import Dataset
from ktrdr.strategy.schema import Strategy

FIRST_SEED = int(os.environ.get("KTRDR_CHAOS_SEED", "20260101"))
SEEDS = range(FIRST_SEED, FIRST_SEED + 18 * int(os.environ.get("KTRDR_CHAOS_CASES", "2")))
KINDS = ("mlp", "lstm", "gru", "tcn", "neuro_fuzzy")
LOSSES = {False: ("cross_entropy", "focal"), True: ("huber", "mse")}


@dataclasses.dataclass(frozen=True)
class Case:
    strategy: Strategy
    dataset: Dataset
    seed: int

    def stops(self, last: int, batches: int) -> list[tuple[int, bool]]:
        """Up to five batches, counted from the beginning, and whether it is killed there."""
        dice = random.Random(f"stops of {self.seed}")
        edges = [0, 1, batches - 1, batches, batches + 1, last - 1, last]
        drawn = [
            dice.choice(edges) if dice.random() < 0.5 else dice.randint(0, last)
            for _ in range(dice.randint(1, 5))
        ]
        return [
            (min(max(step, 0), last), dice.random() < 0.3)
            for step in sorted(min(step, last) for step in drawn)
        ]


@cache
def draw(seed: int) -> Case:
    dice = random.Random(seed)
    kind, regression = KINDS[seed % len(KINDS)], seed // len(KINDS) % 2 == 1
    schedule, stopping = draw_watchers(dice, regression)
    watched = stopping is not None or (schedule or {}).get("type") == "reduce_on_plateau"
    validated = watched or dice.random() < 0.7
    strategy = make_strategy(
        draw_model(dice, kind),
        epochs=dice.randint(2, 6),
        batch_size=dice.choice([7, 16, 25, 100]),
        learning_rate=10 ** dice.uniform(-2.5, -1),
        **OPTIMIZERS[dice.choice(sorted(OPTIMIZERS))],
        **(REGRESSION if regression else {}),
        loss=dice.choice(LOSSES[regression]),
        gradient_clip=dice.choice([None, 0.05]),
        lr_scheduler=schedule,
        early_stopping=stopping,
        checkpoint={"every_epochs": dice.randint(1, 3)},
        seed=dice.randrange(2**32),
    )
    return Case(strategy, draw_dataset(dice, kind, regression, validated), seed)


def draw_model(dice: random.Random, kind: str) -> dict[str, Any]:
    dropout = dice.choice([0.0, 0.3])
    if kind == "mlp":
        shape = {"hidden_layers": dice.choice([[6, 5], [8], [4, 4, 4]]), "dropout": dropout}
        return {"type": "mlp", "architecture": shape}
    if kind == "neuro_fuzzy":
        return neuro_fuzzy(
            max_rules=dice.randint(2, 13),
            order=dice.randint(0, 1),
            train_memberships=dice.random() < 0.7,
        )
    if kind == "tcn":
        return convolutional(
            sequence_length=dice.randint(1, 6),
            channels=dice.choice([[3], [4, 4], [3, 5, 4]]),
            kernel_size=dice.randint(2, 3),
            dropout=dropout,
        )
    return recurrent(
        kind,
        sequence_length=dice.randint(1, 6),
        hidden_size=dice.randint(2, 6),
        num_layers=dice.randint(1, 3),
        dropout=dropout,
    )


def draw_watchers(
    dice: random.Random, regression: bool
) -> tuple[dict[str, Any] | None, dict[str, Any] | None]:
    schedule = SCHEDULERS[dice.choice(sorted(SCHEDULERS))]
    monitor = dice.choice(["val_loss"] if regression else ["val_loss", "val_accuracy"])
    patience, min_delta = dice.randint(1, 3), dice.choice([0.0, 0.01])
    stopping = {"patience": patience, "min_delta": min_delta, "monitor": monitor}
    return schedule, dice.choice([None, stopping])


def draw_dataset(dice: random.Random, kind: str, regression: bool, validated: bool) -> Dataset:
    crisp = kind == "neuro_fuzzy"
    dataset = make_dataset(seed=dice.randrange(1000), regression=regression, crisp=crisp)
    if not regression and dice.random() < 0.5:  # rare classes, far from equal weights
        rare = np.random.default_rng(dice.randrange(1000)).random(len(dataset.labels)) < 0.2
        dataset = dataclasses.replace(dataset, labels=np.where(rare, dataset.labels, 1))
    if not validated:
        splits = dataclasses.replace(dataset.splits, validation=range(0))
        dataset = dataclasses.replace(dataset, splits=splits)
    return dataset


@pytest.mark.parametrize("seed", SEEDS)
def test_stopped_and_killed_anywhere_equals_straight(tmp_path: Path, seed: int) -> None:
    case = draw(seed)
    straight = Bench(tmp_path / "straight", case.strategy, case.dataset)
    result = straight.complete()
    batches = straight.context.progress.batches
    last = result.epochs * batches
    to_the_end = Bench(tmp_path / "to-the-end", case.strategy, case.dataset)
    to_the_end.stop(last)

    stops = case.stops(last, batches)
    bench = Bench(tmp_path / "stopped", case.strategy, case.dataset)
    told = f"seed {seed}: stopped at {stops}; {case.strategy.model}; {case.strategy.training}"
    for step, killed in stops:
        if killed:
            with pytest.raises(KilledAt):
                bench.run(killed_at=step)
        else:
            stopped = bench.stop(step)
            assert (stopped.epoch, stopped.batch) == divmod(step, batches), told
    bench.stop(last)
    assert same(final_state(bench), final_state(to_the_end)), told
    assert outcome(bench.complete()) == outcome(result), told


def test_the_seeds_between_them_draw_everything() -> None:
    drawn = [draw(seed) for seed in SEEDS]
    trainings = [case.strategy.training for case in drawn]
    kinds = {(case.strategy.model.type, case.strategy.is_regression) for case in drawn}
    assert len(kinds) == 2 * len(KINDS)
    assert {t.optimizer for t in trainings} == set(OPTIMIZERS)
    assert {t.loss for t in trainings} == {*LOSSES[False], *LOSSES[True]}
    schedules = {t.lr_scheduler.type if t.lr_scheduler else None for t in trainings}
    assert len(schedules) == len(SCHEDULERS)
    assert {t.gradient_clip is None for t in trainings} == {True, False}
    shapes = [case.strategy.model.architecture.model_dump() for case in drawn]
    assert {shape.get("dropout", 0) > 0 for shape in shapes} == {True, False}
    assert {len(case.dataset.splits.validation) > 0 for case in drawn} == {True, False}
    assert {t.early_stopping.monitor for t in trainings if t.early_stopping} == {
        "val_loss",
        "val_accuracy",
    }
