"""A resume up to its guarded write: what it checks, what it accepts, and that a refusal is none.

No Ray: attempts run in this process, on a real store and storage.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from local_cluster import RowsClient
from stopped_training import BATCHES, EPOCHS, Site, make_site, outcome

from ktrdr.client import Operation
from ktrdr.data.sample import sample_bars
from ktrdr.errors import (
    CheckpointCorrupted,
    CheckpointNotFound,
    DataChanged,
    DataNotFound,
    InvalidStrategy,
    KtrdrError,
    OperationNotResumable,
    StorageUnavailable,
    StrategyChanged,
    StrategyNotFound,
    Usage,
)
from ktrdr.operations.types import FailureReason, HistoryRow, Progress, Report
from ktrdr.strategy.loading import validate_strategy
from ktrdr.training.plan import planned_dataset

INSIDE = BATCHES + 3  # a batch inside the second epoch


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    site = make_site(tmp_path / "home")
    with site.client:
        yield site


def everything(site: Site, operation: Operation) -> Any:
    """All that a resume could have changed."""
    return (
        site.row(operation),
        operation.record(),
        operation.events(),
        operation.history(),
        operation.checkpoints(),
    )


def refuses(
    site: Site, operation: Operation, error: type[KtrdrError], **wish: Any
) -> dict[str, Any]:
    """The details of the refusal, after which everything must be as before."""
    before = everything(site, operation)
    with pytest.raises(error) as caught:
        operation.resume(**wish)
    assert everything(site, operation) == before
    return {"message": str(caught.value), **caught.value.details}


def rates(operation: Operation) -> list[float]:
    return [row["learning_rate"] for row in operation.history()]


# What is accepted ------------------------------------------------------------------------------


def test_another_learning_rate_takes_effect_from_the_checkpoint_on(site: Site) -> None:
    operation = site.stopped(INSIDE)
    before = site.row(operation)
    site.edit(training__learning_rate=0.01)
    refused = refuses(site, operation, StrategyChanged)
    assert "training.learning_rate 0.002 -> 0.01" in refused["message"]
    assert refused["changed"] == refused["acceptable"] == ["training.learning_rate"]

    record = operation.resume(allow_changes=True)
    changed = ["strategy: training.learning_rate 0.002 -> 0.01"]
    assert record["resumed_from"]["exact"] is False
    assert record["resumed_from"]["differences"] == changed
    row = site.row(operation)
    assert row.plan.config["training"]["learning_rate"] == 0.01
    assert row.plan.strategy_fingerprint != before.plan.strategy_fingerprint
    assert row.request == before.request
    first, *_ = operation.history()
    site.completed(operation)
    assert operation.history()[0] == first
    assert rates(operation) == [0.002, *[0.01] * (EPOCHS - 1)]


def test_a_restart_from_an_older_checkpoint_keeps_the_accepted_change(site: Site) -> None:
    operation = site.stopped(INSIDE)
    site.edit(training__learning_rate=0.01)
    operation.resume(allow_changes=True)
    lost = site.service.lose(operation.id, 2, FailureReason.DRIVER_LOST, "killed at once")
    assert (lost.attempt, lost.status) == (3, "running")
    site.service.request_cancel(operation.id, 3, "r")
    site.service.lose(operation.id, 3, FailureReason.DRIVER_LOST, "and stopped")

    # Nothing was saved under the change yet: the checkpoint is still one of before it.
    resumed = operation.resume()["resumed_from"]
    assert resumed["differences"] == ["strategy: training.learning_rate 0.002 -> 0.01"]
    site.run(operation, INSIDE + 2)
    assert operation.resume()["resumed_from"]["exact"] is True  # one of after it
    site.completed(operation)
    assert rates(operation) == [0.002, *[0.01] * (EPOCHS - 1)]


def test_changes_may_follow_each_other_before_anything_is_saved(site: Site) -> None:
    operation = site.stopped(INSIDE)
    for rate in (0.01, 0.02):
        site.edit(training__learning_rate=rate)
        record = operation.resume(allow_changes=True)
        row = site.row(operation)
        site.service.request_cancel(operation.id, row.attempt, f"r{rate}")
        site.service.lose(operation.id, row.attempt, FailureReason.DRIVER_LOST, "killed")
    assert record["resumed_from"]["differences"] == [
        "strategy: training.learning_rate 0.002 -> 0.02"
    ]


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_more_epochs_give_the_model_of_a_straight_run_of_that_many(
    site: Site, optimizer: str
) -> None:
    site.edit(training__optimizer=optimizer, training__learning_rate=0.3)
    site.edit(training__early_stopping={"patience": 5}, training__epochs=EPOCHS + 2)
    straight = outcome(site.completed(site.submit()))
    plateau = {"adamw": 0.15, "sgd": 0.3}  # the one has met one before the stop, the other not
    assert straight["history"][EPOCHS - 1][1]["learning_rate"] == plateau[optimizer]
    site.edit(training__epochs=EPOCHS)
    operation = site.stopped((EPOCHS - 1) * BATCHES + 3)
    site.edit(training__epochs=EPOCHS + 2)
    record = operation.resume(allow_changes=True)
    assert record["request"]["epochs"] == record["progress"]["epochs"] == EPOCHS + 2
    assert record["resumed_from"]["differences"] == [
        f"strategy: training.epochs {EPOCHS} -> {EPOCHS + 2}"
    ]
    assert outcome(site.completed(operation)) == straight


def test_fewer_epochs_down_to_those_begun(site: Site) -> None:
    operation = site.stopped(2 * BATCHES)
    site.edit(training__epochs=1)
    refused = refuses(site, operation, StrategyChanged, allow_changes=True)
    assert refused["refused"] == {"training.epochs": "2 have begun already"}
    site.edit(training__epochs=2)
    operation.resume(allow_changes=True)
    result = site.completed(operation)
    assert (result.epochs, len(operation.history())) == (2, 2)


def test_a_cosine_schedule_ends_with_the_new_number_of_epochs(site: Site) -> None:
    site.edit(training__lr_scheduler={"type": "cosine"}, training__epochs=6)
    site.completed(straight := site.submit())
    site.edit(training__epochs=EPOCHS)
    operation = site.stopped(2 * BATCHES + 1)
    site.edit(training__epochs=6)
    operation.resume(allow_changes=True)
    site.completed(operation)
    assert rates(operation)[2:] == rates(straight)[2:]
    assert rates(operation)[1] < rates(straight)[1]  # of the old schedule, untouched


def test_another_schedule_stands_where_the_epochs_done_bring_it(site: Site) -> None:
    operation = site.stopped(2 * BATCHES)
    site.edit(training__lr_scheduler={"type": "exponential", "gamma": 0.5})
    operation.resume(allow_changes=True)
    report = operation.resume_report()["restored"]
    assert report["computed_anew"] == ["learning rate", "early stopping counters"]
    assert "learning rate schedule" not in report["parts"]
    site.run(operation, 3 * BATCHES)
    assert rates(operation)[2:] == [0.002 * 0.5**2]
    # Resumed again without a change, it goes on from its own saved state.
    assert operation.resume()["resumed_from"]["exact"] is True
    assert "learning rate schedule" in operation.resume_report()["restored"]["parts"]
    site.completed(operation)
    assert rates(operation)[2:] == [0.002 * 0.5**2, 0.002 * 0.5**3]


def test_early_stopping_switched_on_counts_the_epochs_already_done(site: Site) -> None:
    operation = site.stopped(3 * BATCHES)
    site.edit(training__early_stopping={"patience": 2, "min_delta": 100.0})
    operation.resume(allow_changes=True)
    assert site.completed(operation).epochs == 3


def test_less_patience_counts_each_epoch_once(site: Site) -> None:
    site.edit(training__epochs=6, training__early_stopping={"patience": 5, "min_delta": 100.0})
    operation = site.stopped(3 * BATCHES)
    site.edit(training__early_stopping={"patience": 3, "min_delta": 100.0})
    operation.resume(allow_changes=True)
    assert site.completed(operation).epochs == 4


def test_an_option_given_to_train_holds_until_the_file_is_edited(site: Site) -> None:
    operation = site.stopped(INSIDE, epochs=3)
    site.edit(training__learning_rate=0.01)
    record = operation.resume(allow_changes=True)
    assert record["request"]["epochs"] == 3
    site.run(operation, INSIDE + 1)
    site.edit(training__epochs=7)
    assert operation.resume()["request"]["epochs"] == 3
    site.run(operation, INSIDE + 2)
    assert operation.resume(allow_changes=True)["request"]["epochs"] == 7


# What is refused --------------------------------------------------------------------------------


def test_a_refused_change_is_named_beside_what_would_be_accepted(site: Site) -> None:
    operation = site.stopped(INSIDE)
    site.edit(training__seed=7, training__learning_rate=0.01)
    for allow_changes in (False, True):
        refused = refuses(site, operation, StrategyChanged, allow_changes=allow_changes)
        assert refused["changed"] == ["training.learning_rate", "training.seed"]
        assert refused["acceptable"] == ["training.learning_rate"]
        assert "training.seed: every shuffle" in refused["message"]
    site.edit(training__seed=42)
    operation.resume(allow_changes=True)


def test_the_strategy_may_lie_elsewhere_but_must_be_the_same_one(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    operation = site.stopped(INSIDE)
    moved = site.strategy.rename(tmp_path / "moved.yaml")
    refused = refuses(site, operation, StrategyNotFound)
    assert str(site.strategy) in refused["message"]
    assert "--strategy" in refused["message"]
    refuses(site, operation, StrategyNotFound, strategy=tmp_path / "nowhere.yaml")

    other = tmp_path / "other.yaml"
    other.write_text(yaml.safe_dump(yaml.safe_load(moved.read_text()) | {"name": "other"}))
    refused = refuses(site, operation, StrategyChanged, strategy=other, allow_changes=True)
    assert refused["changed"] == ["name"]
    assert "the strategy other, not mean_reversion" in refused["message"]
    other.write_text("{")
    refuses(site, operation, InvalidStrategy, strategy=other)

    monkeypatch.chdir(tmp_path)
    record = operation.resume(strategy="moved.yaml")
    assert record["resumed_from"]["exact"] is True
    assert record["request"]["strategy_path"] == str(moved)
    site.run(operation, INSIDE + 1)
    operation.resume()  # it knows the new place now


def test_a_relative_path_is_looked_for_below_the_working_directory(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    old.mkdir()
    relative = replace(site, strategy=Path("here.yaml"))
    monkeypatch.chdir(old)
    site.strategy.rename("here.yaml")
    operation = relative.stopped(INSIDE)
    old.rename(new)
    old.mkdir()
    monkeypatch.chdir(tmp_path)
    refuses(relative, operation, StrategyNotFound)
    monkeypatch.chdir(new)
    assert operation.resume()["request"]["strategy_path"] == str(new / "here.yaml")


def test_appended_bars_change_nothing_and_revised_ones_are_refused(site: Site) -> None:
    operation = site.stopped(INSIDE)
    bars = site.client.bars.read("SAMPLE", "1h")

    close = bars.close.copy()
    close[100] = (bars.high[100] + bars.low[100]) / 2
    site.client.bars.write(replace(bars, close=close))
    refused = refuses(site, operation, DataChanged, allow_changes=True)
    assert "SAMPLE 1h from 2020-01-01T00:00:00Z to 2020-05-04T23:00:00Z" in refused["message"]
    assert "the same number" in refused["message"]
    assert (refused["rows"], refused["rows_before"]) == (3000, 3000)

    site.client.bars.write(bars.rows(10, len(bars)))
    refused = refuses(site, operation, DataChanged)
    assert "2,990 bars instead of 3,000" in refused["message"]

    later = sample_bars(rows=10, seed=1)
    shifted = later.timestamps - later.first + bars.last + 3_600_000_000
    site.client.bars.write(replace(later, timestamps=shifted))
    refuses(site, operation, DataNotFound)

    columns: Any = {
        name: np.concatenate([getattr(bars, name), getattr(later, name)])
        for name in ("open", "high", "low", "close", "volume")
    }
    stamps = np.concatenate([bars.timestamps, shifted])
    site.client.bars.write(replace(bars, timestamps=stamps, **columns))
    assert operation.resume()["resumed_from"]["exact"] is True


def test_other_features_of_the_same_bars_are_changed_data(site: Site) -> None:
    row = site.row(site.client.train(site.strategy))
    strategy = validate_strategy(row.plan.config, "the plan")
    assert planned_dataset(row.request, row.plan, strategy).digest == row.plan.dataset_digest
    with pytest.raises(DataChanged, match="other features or labels"):
        planned_dataset(row.request, replace(row.plan, dataset_digest="0" * 64), strategy)


def test_another_environment_is_said_to_be_inexact(site: Site) -> None:
    operation = site.submit()
    site.run(operation, INSIDE, environment={"torch": "2.0.0", "threads": 4})
    resumed = operation.resume()["resumed_from"]
    assert resumed["exact"] is False
    now = site.client.service.events(operation.id)[-1].details["differences"]
    assert now == resumed["differences"]
    [difference] = resumed["differences"]  # what is known without torch: the driver says the rest
    assert difference.startswith("torch: 2.0.0 -> ")


# Order and atomicity ----------------------------------------------------------------------------


def test_the_status_is_checked_before_anything_else(site: Site) -> None:
    operation = site.stopped(INSIDE)
    operation.resume()
    site.strategy.unlink()
    site.client.bars.write(sample_bars(rows=10))
    refused = refuses(site, operation, OperationNotResumable)
    assert refused["status"] == "running"


def test_then_the_checkpoint_then_the_strategy_then_the_data(site: Site) -> None:
    operation = site.stopped(INSIDE)
    storage = site.client.settings.storage
    folder = storage / "operations" / operation.id
    site.client.bars.write(sample_bars(rows=10))
    strategy = site.strategy.rename(site.strategy.with_suffix(".away"))
    away = folder.rename(folder.with_name("away"))
    marker = next(p for p in storage.iterdir() if p.is_file())
    marker.rename(storage / "features" / "marker")
    refuses(site, operation, StorageUnavailable)
    (storage / "features" / "marker").rename(marker)
    refused = refuses(site, operation, CheckpointCorrupted)
    assert len(refused["checkpoints"]) == 2
    away.rename(folder)
    refuses(site, operation, StrategyNotFound)
    strategy.rename(site.strategy)
    refuses(site, operation, DataChanged)


def test_nothing_was_ever_saved(site: Site) -> None:
    operation = site.submit()
    site.service.request_cancel(operation.id, 1, "r")
    site.service.lose(operation.id, 1, FailureReason.DRIVER_LOST, "killed at once")
    refuses(site, operation, CheckpointNotFound)


@pytest.mark.parametrize("text", ["{no strategy", None], ids=["bad", "good"])
@pytest.mark.parametrize("stopped_again", [False, True], ids=["running", "stopped again"])
def test_a_late_loser_hears_who_was_first_and_not_what_else_is_wrong(
    site: Site, tmp_path: Path, text: str | None, stopped_again: bool
) -> None:
    operation = site.stopped(INSIDE)
    slow = tmp_path / "slow.yaml"
    os.mkfifo(slow)
    ended: list[Exception] = []

    def resume_slowly() -> None:
        with RowsClient(site.client.settings) as other:
            try:
                other.operation(operation.id).resume(strategy=slow)
            except Exception as error:
                ended.append(error)

    late = threading.Thread(target=resume_slowly)
    late.start()
    with slow.open("w") as pipe:  # opens once the other has begun to read it
        operation.resume()
        if stopped_again:
            site.run(operation, INSIDE + 1)
        before = everything(site, operation)
        pipe.write(text or site.strategy.read_text())
    late.join(30)
    assert isinstance(ended[0], OperationNotResumable), ended
    assert ("resumed meanwhile" if stopped_again else "is running") in str(ended[0])
    assert everything(site, operation) == before


def test_of_many_at_once_exactly_one_resumes(site: Site) -> None:
    operation = site.stopped(INSIDE)
    start, won, lost = threading.Barrier(4), [], []

    def resume() -> None:
        with RowsClient(site.client.settings) as client:
            start.wait(30)
            try:
                won.append(client.operation(operation.id).resume())
            except OperationNotResumable as error:
                lost.append(error)

    threads = [threading.Thread(target=resume) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert (len(won), len(lost)) == (1, 3)
    assert [event["event"] for event in operation.events()].count("resumed") == 1


# The report -------------------------------------------------------------------------------------


def test_the_report_of_a_clean_stop(site: Site) -> None:
    operation = site.stopped(INSIDE)
    operation.resume()
    report = operation.resume_report()
    assert report["restored"] == {
        "parts": [
            "weights",
            "optimizer state",
            "learning rate schedule",
            "best weights",
            "random states",
        ],
        "computed_anew": [],
        "history_rows": 1,
        "epoch": 1,
        "batch": 3,
    }
    assert report["lost"]["batches"] == report["lost"]["epochs"] == 0
    assert (report["exact"], report["differences"], report["passed_over"]) == (True, [], [])


def test_the_report_of_a_damaged_checkpoint_and_what_it_costs(site: Site) -> None:
    operation, good = site.damaged()
    record = operation.resume()
    assert (record["resumed_from"]["epoch"], record["resumed_from"]["batch"]) == (2, 0)
    report = operation.resume_report()
    assert report["lost"] == {
        "batches": 5,
        "epochs": 0,
        "reported": {"epoch": 2, "batch": 5},
    }
    [passed] = report["passed_over"]
    assert (passed["epoch"], passed["batch"]) == (2, 5)
    assert passed["checkpoint_type"] == "cancellation"
    assert "model.pt" in passed["why"]
    assert site.row(operation).seed_checkpoint_id == good["id"]
    flagged = {row["id"]: row["unusable"] for row in operation.checkpoints()}
    assert "model.pt" in flagged[passed["id"]]
    assert flagged[good["id"]] is None


def test_the_report_of_a_kill_counts_what_was_done_since_the_checkpoint(site: Site) -> None:
    operation = site.stopped(INSIDE)
    operation.resume()
    progress = Progress(3, EPOCHS, 2, BATCHES, 80.0, None)
    rows = tuple(HistoryRow(epoch, {"val_loss": 0.1}) for epoch in (2, 3))
    site.service.report(operation.id, 2, Report(1, progress=progress, history=rows))
    site.service.finish_failed(operation.id, 2, FailureReason.USER_ERROR, "boom")
    assert len(operation.history()) == 3
    operation.resume()
    assert operation.resume_report()["lost"] == {
        "batches": 3 * BATCHES + 2 - INSIDE,
        "epochs": 2,
        "reported": {"epoch": 3, "batch": 2},
    }
    assert len(operation.history()) == 1


def test_an_operation_that_was_never_resumed_has_no_report(site: Site) -> None:
    with pytest.raises(Usage, match="never resumed"):
        site.stopped(INSIDE).resume_report()
