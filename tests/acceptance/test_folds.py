"""`ktrdr train` of a strategy with folds: an operation for each, and what they came to together."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from local_cluster import RowsClient
from running import PROGRAM, Run
from stopped_training import Site

from ktrdr.data.sample import sample_bars
from ktrdr.settings import read_settings

ROOT = Path(__file__).parents[2]
SHIPPED = ROOT / "strategies" / "mean_reversion.yaml"
SCHEMA = ROOT.parent / "shared" / "contract" / "operation.schema.json"
DEADLINE_S = 150.0
EPOCHS = 60

pytestmark = [pytest.mark.ray, pytest.mark.timeout(300)]


@pytest.fixture
def strategy(home: Path) -> Path:
    """Three folds over two symbols and two timeframes, one of them made of the other."""
    with RowsClient(read_settings({}, home=home)) as client:
        for seed, symbol in ((7, "ONE"), (8, "TWO")):
            client.bars.write(sample_bars(symbol, rows=2500, seed=seed))
    content = yaml.safe_load(SHIPPED.read_text())
    content["training_data"] |= {
        "symbols": {"mode": "multi_symbol", "list": ["ONE", "TWO"]},
        "timeframes": {"mode": "multi_timeframe", "list": ["1h", "4h"], "resample": True},
        "history_required": 50,
    }
    content["training"] |= {
        "epochs": 3,
        "batch_size": 256,
        "data_split": {"mode": "purged_kfold", "folds": 3, "validation": 0.2},
        "labels": {"source": "triple_barrier", "max_holding_period": 10, "compute_weights": True},
        "checkpoint": {"every_epochs": 1, "every_seconds": 300},
    }
    path = home / "folds.yaml"
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return path


@contextmanager
def started(environment: dict[str, str], *words: str) -> Iterator[subprocess.Popen[str]]:
    """The installed command, killed at last where it has not ended."""
    with subprocess.Popen(
        [PROGRAM, *words],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def test_every_fold_is_an_operation_and_the_end_is_a_summary(
    environment: dict[str, str], ktrdr: Run, strategy: Path
) -> None:
    with started(environment, "train", str(strategy), "--json") as process:
        out, err = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 0, err
    found = json.loads(out)
    assert found.keys() == {"operations", "total", "summary"}
    assert found["total"] == 3
    records = found["operations"]
    assert [record["request"]["fold"] for record in records] == [1, 2, 3]
    assert [record["request"]["symbols"] for record in records] == [["ONE", "TWO"]] * 3
    assert [record["status"] for record in records] == ["completed"] * 3
    check_records(records)
    check_summary(found["summary"], records)
    listed = ktrdr("operations", "list", "--json").document
    assert {r["operation_id"] for r in listed["operations"]} == {r["operation_id"] for r in records}
    assert "ONE,TWO 1h,4h" in ktrdr("operations", "list").out
    models = ktrdr("models", "list", "--json").document["models"]
    assert {m["weights_digest"] for m in models} == {r["result"]["weights_digest"] for r in records}


def test_ctrl_c_cancels_all_folds_and_each_can_be_resumed_alone(
    environment: dict[str, str], ktrdr: Run, home: Path, strategy: Path
) -> None:
    words = ["train", str(strategy), "--epochs", str(EPOCHS), "--json"]
    with started(environment, *words) as process:
        wait_for_an_epoch(ktrdr)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 130, err
    found = json.loads(out)
    records = found["operations"]
    check_records(records)
    assert [record["status"] for record in records] == ["cancelled"] * 3
    assert found["summary"]["cancelled"] == 3
    assert found["summary"]["metrics"] == {}
    check_resumed(home, strategy, next(r for r in records if r["checkpoint"]))


def check_resumed(home: Path, strategy: Path, cancelled: dict[str, Any]) -> None:
    """Its last attempt, in this process, ends as a training of that fold that nobody stopped."""
    fold = cancelled["request"]["fold"]
    with RowsClient(read_settings({}, home=home)) as client:
        site = Site(client, strategy)
        resumed = client.operation(cancelled["operation_id"])
        resumed.resume()
        straight = client.train_folds(strategy, epochs=EPOCHS)[fold - 1]
        site.service.start(straight.id, site.row(straight).owner.id)
        one, two = site.completed(resumed), site.completed(straight)
        assert (one.weights_digest, one.epochs) == (two.weights_digest, EPOCHS)
        assert one.metrics == two.metrics
        assert [row.epoch for row in one.history] == list(range(1, EPOCHS + 1))


def wait_for_an_epoch(ktrdr: Run) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while time.monotonic() < deadline:
        records = ktrdr("operations", "list", "--json").document["operations"]
        if any((record["progress"] or {}).get("epoch", 0) >= 2 for record in records):
            return
        time.sleep(0.1)
    raise AssertionError("no fold began to train")


def check_records(records: list[dict[str, Any]]) -> None:
    if SCHEMA.exists():
        validator = jsonschema.Draft202012Validator(json.loads(SCHEMA.read_text()))
        for record in records:
            assert [error.message for error in validator.iter_errors(record)] == []


def check_summary(summary: dict[str, Any], records: list[dict[str, Any]]) -> None:
    assert (summary["folds"], summary["completed"]) == (3, 3)
    assert (summary["failed"], summary["cancelled"]) == (0, 0)
    losses = [record["result"]["metrics"]["test_loss"] for record in records]
    figures = summary["metrics"]["test_loss"]
    assert figures["mean"] == pytest.approx(sum(losses) / 3)
    assert (figures["min"], figures["max"], figures["folds"]) == (min(losses), max(losses), 3)
