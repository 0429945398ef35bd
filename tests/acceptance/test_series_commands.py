"""What the commands say about a strategy of several symbols and timeframes, and refuse of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from local_cluster import RowsClient
from running import Run

from ktrdr.client import Client
from ktrdr.data.resampling import resample
from ktrdr.data.sample import sample_bars
from ktrdr.data.store import BarStore
from ktrdr.errors import DataChanged, Usage
from ktrdr.settings import read_settings
from ktrdr.strategy.loading import validate_strategy
from ktrdr.training.plan import check_planned_data

SHIPPED = Path(__file__).parents[2] / "strategies" / "mean_reversion.yaml"
ROWS = 1500


@pytest.fixture
def client(home: Path) -> Any:
    with RowsClient(read_settings({}, home=home)) as made:
        for seed, symbol in ((7, "ONE"), (8, "TWO")):
            made.bars.write(sample_bars(symbol, rows=ROWS, seed=seed))
        yield made


@pytest.fixture
def strategy(home: Path) -> Path:
    content = yaml.safe_load(SHIPPED.read_text())
    content["training_data"] |= {
        "symbols": {"mode": "multi_symbol", "list": ["ONE", "TWO"]},
        "timeframes": {"mode": "multi_timeframe", "list": ["1h", "4h"], "resample": True},
        "history_required": 50,
    }
    content["training"] |= {"labels": {"source": "context"}}
    path = home / "several.yaml"
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return path


def edited(path: Path, key: str, value: Any) -> Path:
    content = yaml.safe_load(path.read_text())
    *steps, last = key.split(".")
    part = content
    for step in steps:
        part = part[step]
    part[last] = value
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return path


def test_strategies_and_operations_show_all_series(
    ktrdr: Run, client: Client, strategy: Path
) -> None:
    shown = ktrdr("strategies", "validate", str(strategy), "--json").document
    assert (shown["valid"], shown["symbols"]) == (True, ["ONE", "TWO"])
    assert shown["timeframes"] == ["1h", "4h"]
    shown = ktrdr("strategies", "show", str(strategy), "--json").document["config"]
    assert shown["training_data"]["timeframes"] == {
        "mode": "multi_timeframe", "list": ["1h", "4h"], "base_timeframe": None, "resample": True,
    }  # fmt: skip
    assert yaml.safe_load(ktrdr("strategies", "show", str(strategy)).out) == shown
    operation = client.train(strategy)
    assert operation.record()["request"]["symbols"] == ["ONE", "TWO"]
    assert operation.record()["request"]["fold"] is None
    assert "ONE,TWO 1h,4h" in ktrdr("operations", "list").out
    assert "ONE,TWO 1h,4h" in ktrdr("operations", "status", operation.id).out


def test_options_choose_series_and_are_checked(client: Client, strategy: Path) -> None:
    one = client.train(strategy, symbols=["TWO"], timeframes=["1h"])
    assert one.record()["request"]["symbols"] == ["TWO"]
    plan = client.service.get(one.id).plan
    assert [(span["symbol"], span["timeframe"]) for span in plan.spans] == [("TWO", "1h")]
    with pytest.raises(Usage, match="name each symbol once: ONE, ONE"):
        client.train(strategy, symbols=["ONE", "ONE"])
    with pytest.raises(Usage, match="60m is written 1h"):
        client.train(strategy, timeframes=["60m"])


def test_folds_are_submitted_one_by_one_with_their_own_datasets(
    client: Client, strategy: Path
) -> None:
    split = {"mode": "walk_forward", "folds": 2}
    path = edited(strategy, "training.data_split", split)
    with pytest.raises(Usage, match="2 folds, one operation each: use train_folds"):
        client.train(path)
    assert client.operations()[1] == 0
    made = client.train_folds(path)
    rows = [client.service.get(operation.id) for operation in made]
    assert [row.request.fold for row in rows] == [1, 2]
    assert len({row.plan.dataset_digest for row in rows}) == 2
    assert len({row.plan.data_fingerprint for row in rows}) == 1


@pytest.mark.parametrize(
    ("key", "value", "code", "said"),
    [
        ("training_data.symbols.list", ["ONE", "SIX"], "DATA_NOT_FOUND", "no bars of SIX 1h, SIX"),
        ("training_data.timeframes.list", ["1h", "90m"], "DATA_NOT_FOUND", "ONE 90m, TWO 90m"),
        ("training_data.timeframes.resample", False, "DATA_NOT_FOUND", "ONE 4h, TWO 4h"),
        ("training_data.start_date", "2031-01-01", "DATA_NOT_FOUND", "2031-01-01 and the last"),
        ("training_data.end_date", "2020-01-03", "INVALID_DATA", "18 bars of ONE 4h are too"),
        ("training_data.history_required", 1500, "INVALID_DATA", "1,500 bars of history"),
        (
            "training.labels",
            {"source": "context", "bearish_threshold": -5},
            "INVALID_DATA",
            "no BEARISH among the",
        ),
        ("training.data_split", {"embargo": 2000}, "INVALID_DATA", "train split of ONE is empty"),
        (
            "training.data_split",
            {"mode": "purged_kfold", "folds": 2, "embargo": 900},
            "INVALID_DATA",
            "fold 1 of 2: the train split",
        ),
    ],
)
def test_what_cannot_be_trained_is_refused_with_numbers_before_anything_is_written(
    ktrdr: Run, client: Client, strategy: Path, key: str, value: Any, code: str, said: str
) -> None:
    ran = ktrdr("train", str(edited(strategy, key, value)), "--json")
    assert ran.status == (3 if code == "DATA_NOT_FOUND" else 2)
    assert ran.error["code"] == code
    assert said in ran.error["message"]
    assert client.operations()[1] == 0


def test_a_resume_needs_every_series_as_it_was_and_no_more(
    client: Client, strategy: Path, home: Path
) -> None:
    operation = client.train(strategy)
    row = client.service.get(operation.id)
    config = validate_strategy(row.plan.config, "the plan")
    longer = sample_bars("ONE", rows=ROWS + 100, seed=7)
    store = BarStore(home / "storage")
    # appended bars, and a timeframe that would now be found instead of made
    store.write(sample_bars("ONE", rows=ROWS, seed=7))
    store.write(replace(resample(longer, "4h"), close=resample(longer, "4h").close))
    check_planned_data(row.request, row.plan, config)
    revised = sample_bars("TWO", rows=ROWS, seed=8)
    revised.close[700] = revised.high[700]
    store.write(revised)
    with pytest.raises(DataChanged, match=r"the bars of ONE 1h .* or of TWO 1h .*revised"):
        check_planned_data(row.request, row.plan, config)
    store.write(revised.rows(700, 703))  # too few to make a bar of
    with pytest.raises(DataChanged, match=r"the bars of TWO 1h .*\(3 bars instead of 1,500\)"):
        check_planned_data(row.request, row.plan, config)


def test_a_file_by_another_name_among_the_bars_is_left_alone(
    client: Client, strategy: Path, home: Path
) -> None:
    (home / "storage" / "bars" / "ONE" / "notes.parquet").write_bytes(b"mine")
    client.train(strategy)
