"""A verification finds what a resume gets wrong, and interrupts where its seed says."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import Any

import pytest
from small_strategy import write_bars, write_strategy

from ktrdr.storage.root import Storage
from ktrdr.usecases.submit import TrainingOptions, prepare
from ktrdr.usecases.verify_resume import verification
from ktrdr.usecases.verify_resume.comparison import StateDifference, first_difference
from ktrdr.usecases.verify_resume.interruptions import (
    Extent,
    KillTrigger,
    PlannedKill,
    PlannedStop,
    sample,
)
from ktrdr.usecases.verify_resume.shared_counters import (
    EpochLog,
    EpochRecord,
    SharedCounters,
    TrainingRecord,
    open_counters,
    read_training,
    write_outcome,
)
from ktrdr.usecases.verify_resume.verification import (
    Observer,
    Verification,
    VerificationFailed,
    verify,
)

BROKEN = Path(__file__).parents[1] / "support" / "broken_attempt.py"
CHAOS_SEED = 17  # with two interruptions: a stop in epoch 4, and a kill from epoch 7 on
OUTCOME = {"weights_digest": "w", "epochs": 3, "history": {"1": {"val_loss": 0.5}}}


@pytest.fixture
def verified(tmp_path: Path) -> Any:
    """Rehearse the small strategy with so many kills."""
    write_bars(tmp_path)
    strategy = write_strategy(tmp_path / "verified.yaml")

    def run(kills: int) -> Verification:
        [(request, plan)] = prepare(strategy, TrainingOptions(), Storage(tmp_path))
        observer = Observer(lambda _: None, lambda _: None)
        return verify(request, plan, kills, CHAOS_SEED, observer)

    return run


def test_a_forgotten_part_of_the_state_is_found_in_the_epoch_where_it_matters(
    verified: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verification, "PROGRAM", (sys.executable, str(BROKEN), "optimizer"))
    found = verified(2)
    stop, kill = found.interruptions
    assert (stop.kind, stop.epoch, kill.kind) == ("stop", 3, "kill")
    difference = found.first_difference
    assert not found.equal
    assert (difference.epoch, difference.attempt) == (4, 2)
    assert {"optimizer", "weights", "metrics.train_loss"} <= set(difference.parts)
    assert found.digests["straight"] != found.digests["interrupted"]


@pytest.mark.parametrize(
    ("program", "named"),
    [
        ([sys.executable, "-c", "raise SystemExit('no such thing')"], "straight.*no such thing"),
        ([sys.executable, str(BROKEN), "anything"], "attempt 2 of the interrupted.*restore any"),
    ],
    ids=["straight", "resumed"],
)
def test_a_training_that_fails_is_named_with_its_reason(
    program: list[str], named: str, verified: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verification, "PROGRAM", program)
    with pytest.raises(VerificationFailed, match=named):
        verified(1)


def test_every_record_of_an_epoch_counts_and_the_first_difference_is_named() -> None:
    straight = training((1, 1, "a"), (1, 2, "b"), (1, 3, "c"))
    assert first_difference(straight, straight) is None
    again = training((1, 1, "a"), (1, 2, "b"), (2, 2, "b"), (3, 3, "c"))
    assert first_difference(straight, again) is None

    twice = training((1, 1, "a"), (1, 2, "x"), (2, 2, "b"), (3, 3, "y"))
    assert first_difference(straight, twice) == StateDifference(
        2, 1, ("metrics.val_loss", "weights")
    )
    skipped = training((1, 1, "a"), (2, 3, "c"))
    assert first_difference(straight, skipped) == StateDifference(
        2, None, ("the epoch is missing",)
    )
    longer = training((1, 1, "a"), (1, 2, "b"), (1, 3, "c"), (1, 4, "d"))
    difference = first_difference(straight, longer)
    assert difference is not None
    assert (difference.epoch, difference.attempt) == (4, 1)


@pytest.mark.parametrize("name", ["weights_digest", "epochs"])
def test_an_outcome_that_differs_after_equal_epochs_is_a_difference(name: str) -> None:
    straight = training((1, 1, "a"))
    other = dataclasses.replace(straight, outcome={**OUTCOME, name: "other"})
    assert first_difference(straight, other) == StateDifference(None, None, (name,))
    forgotten = dataclasses.replace(straight, outcome={**OUTCOME, "history": {}})
    assert first_difference(straight, forgotten) == StateDifference(None, None, ("history.1",))


def test_a_line_that_a_kill_cut_off_is_no_record(tmp_path: Path) -> None:
    write_outcome(tmp_path, OUTCOME)
    for attempt, epochs in ((1, (1, 2)), (3, (2, 3))):
        log = EpochLog(tmp_path, attempt)
        for epoch in epochs:
            log.add(epoch, {"weights": "a", "metrics": {"val_loss": 0.1}})
    whole = read_training(tmp_path, 3)
    assert [(r.attempt, r.epoch) for r in whole.epochs] == [(1, 1), (1, 2), (3, 2), (3, 3)]
    assert whole.epochs[0].parts == {"weights": "a", "metrics": {"val_loss": 0.1}}
    path = tmp_path / "1.epochs"
    path.write_bytes(path.read_bytes()[:-1])
    assert [r.epoch for r in read_training(tmp_path, 3).epochs] == [1, 2, 3]


@pytest.mark.parametrize("extent", [Extent(1, 1, 10), Extent(60, 6, 3), Extent(7, 7, 1)])
def test_interruptions_are_a_mix_within_the_training_that_a_seed_repeats(
    extent: Extent,
) -> None:
    for seed in range(200):
        sampled = sample(seed, 6, extent)
        assert sampled == sample(seed, 6, extent)
        assert sampled == sorted(sampled, key=lambda one: one.step)
        assert all(0 <= one.step < extent.steps for one in sampled)
        kills = [one for one in sampled if isinstance(one, PlannedKill)]
        assert sum(isinstance(one, PlannedStop) for one in sampled) == 2
        assert sum(one.disk_calls > 0 for one in kills) == 2
        assert all(one.until <= extent.steps for one in kills)
    assert sample(1, 6, Extent(60, 6, 3)) != sample(2, 6, Extent(60, 6, 3))


def test_a_kill_in_a_save_waits_for_the_disk_but_not_for_ever(tmp_path: Path) -> None:
    def shown(step: int, calls: int, held: int = 0) -> bool:
        (
            counters[SharedCounters.STEP],
            counters[SharedCounters.DISK_CALLS],
            counters[SharedCounters.HELD],
        ) = (
            step,
            calls,
            held,
        )
        return trigger.due

    counters = open_counters(tmp_path / "counters")
    trigger = KillTrigger(PlannedKill(step=5, disk_calls=3, until=9, delay_s=0.0), counters)
    assert not shown(4, 7)
    assert not shown(5, 8)
    assert not shown(6, 10)
    assert shown(6, 11)
    assert shown(9, 8)
    assert shown(0, 0, held=1)


def training(*records: tuple[int, int, str]) -> TrainingRecord:
    """What (attempt, epoch, state) recorded."""
    epochs = tuple(
        EpochRecord(attempt, epoch, {"weights": state, "metrics": {"val_loss": ord(state)}})
        for attempt, epoch, state in records
    )
    return TrainingRecord(epochs, OUTCOME)
