"""Whole runs on a real local Ray: stopped, killed and resumed, they make the same model.

Every process that dies here dies by a real signal.
"""

from __future__ import annotations

import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from local_cluster import driver_process, ray_processes, until

from ktrdr.client import Client, Operation
from ktrdr.errors import (
    DataChanged,
    OperationNotCancellable,
    OperationNotResumable,
    StrategyChanged,
    StrategyNotFound,
)

pytestmark = [pytest.mark.ray, pytest.mark.timeout(180)]

Record = dict[str, Any]
EPOCHS = 24
DEADLINE_S = 90.0
SHIPPED = Path(__file__).parents[2] / "strategies" / "mean_reversion.yaml"


@pytest.fixture(scope="module")
def client(shared_client: Client) -> Client:
    return shared_client


@pytest.fixture(scope="module")
def strategy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Dropout, early stopping counters, a plateau schedule: all that a resume could lose."""
    content = yaml.safe_load(SHIPPED.read_text())
    content["training"] |= {
        "epochs": EPOCHS,
        "batch_size": 32,
        "early_stopping": {"patience": EPOCHS, "monitor": "val_accuracy"},
        "checkpoint": {"every_epochs": 3, "every_seconds": 300},
    }
    path = tmp_path_factory.mktemp("strategies") / "mean_reversion.yaml"
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return path


@pytest.fixture(scope="module")
def straight(client: Client, strategy: Path) -> tuple[Record, list[Record]]:
    operation = client.train(strategy)
    record = operation.wait(DEADLINE_S)
    assert record["status"] == "completed", record["error"]
    return record, operation.history()


def same_model(operation: Operation, straight: tuple[Record, list[Record]]) -> None:
    """Digest, best epoch, metrics and history of a finished operation equal the straight run's."""
    record = operation.wait(DEADLINE_S)
    assert record["status"] == "completed", record["error"]
    expected, history = straight
    assert without(record["result"], "model_path") == without(expected["result"], "model_path")
    assert [without(row, "duration") for row in operation.history()] == [
        without(row, "duration") for row in history
    ]


def without(values: Record, key: str) -> Record:
    return {name: value for name, value in values.items() if name != key}


def begin(client: Client, strategy: Path, epoch: int = 4) -> Operation:
    """A training that is past `epoch` epochs, inside the next one."""
    operation = client.train(strategy)
    past(operation, epoch)
    return operation


def past(operation: Operation, epoch: int) -> None:
    def reached() -> bool:
        progress = operation.record()["progress"]
        return bool(progress and progress["epoch"] >= epoch)

    until(reached, f"{operation.id} past epoch {epoch}")


def test_a_run_cancelled_inside_an_epoch_and_resumed_makes_the_same_model(
    client: Client, strategy: Path, straight: tuple[Record, list[Record]]
) -> None:
    operation = begin(client, strategy)
    stopped = operation.cancel(wait=True)
    assert stopped["status"] == "cancelled"
    assert stopped["checkpoint"]["checkpoint_type"] == "cancellation"
    assert stopped["cancel_requested_at"] <= stopped["completed_at"]
    assert operation.cancel(wait=True)["status"] == "cancelled"  # repeated: the same answer
    resumed = operation.resume()
    assert resumed["resumed_from"]["exact"] is True
    assert resumed["resumed_from"]["epoch"] == stopped["checkpoint"]["epoch"]
    assert resumed["resumed_from"]["batch"] == stopped["checkpoint"]["batch"]
    with pytest.raises(OperationNotResumable):
        operation.resume()
    same_model(operation, straight)
    with pytest.raises(OperationNotResumable):
        operation.resume()
    with pytest.raises(OperationNotCancellable):
        operation.cancel()


def test_a_killed_driver_is_followed_by_another_attempt(
    client: Client, strategy: Path, straight: tuple[Record, list[Record]]
) -> None:
    operation = begin(client, strategy)
    driver = driver_process(client.settings.home)
    driver.kill()
    same_model(operation, straight)
    record = operation.record()
    assert record["attempt"] == 2
    assert record["resumed_from"]["checkpoint_type"] == "periodic"
    assert "attempt_lost" in [event["event"] for event in operation.events()]


def test_a_killed_operations_actor_comes_back_to_a_run_that_went_on(
    client: Client, strategy: Path, straight: tuple[Record, list[Record]]
) -> None:
    operation = begin(client, strategy, epoch=2)
    [actor] = ray_processes(client.settings.home, "OperationsActor")
    actor.kill()
    same_model(operation, straight)
    assert operation.record()["attempt"] == 1  # the driver was found again, not started again


def test_sigterm_of_a_driver_is_a_shutdown_with_a_checkpoint(
    client: Client, strategy: Path, straight: tuple[Record, list[Record]]
) -> None:
    operation = begin(client, strategy)
    driver = driver_process(client.settings.home)
    os.kill(driver.pid, signal.SIGTERM)
    stopped = operation.wait(DEADLINE_S)
    assert stopped["status"] == "cancelled"
    assert stopped["checkpoint"]["checkpoint_type"] == "shutdown"
    assert stopped["cancel_requested_at"] is not None
    operation.resume()
    same_model(operation, straight)


def test_a_cancel_before_the_first_batch_is_not_lost(
    client: Client, strategy: Path, straight: tuple[Record, list[Record]]
) -> None:
    operation = client.train(strategy)
    stopped = operation.cancel(wait=True)
    assert stopped["status"] == "cancelled"
    if stopped["checkpoint"] is not None:
        operation.resume()
        same_model(operation, straight)


def test_a_loss_that_is_no_number_fails_and_says_so(client: Client, strategy: Path) -> None:
    content = yaml.safe_load(strategy.read_text())
    content["name"] = "diverging"
    content["training"] |= {"learning_rate": 1e30, "optimizer": "sgd", "gradient_clip": None}
    path = strategy.with_name("diverging.yaml")
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    record = client.train(path).wait(DEADLINE_S)
    assert record["status"] == "failed"
    assert record["error"]["reason"] == "non_finite_loss"
    assert record["result"] is None


def test_a_resume_that_finds_something_wrong_changes_nothing(
    client: Client, strategy: Path, straight: tuple[Record, list[Record]]
) -> None:
    path = strategy.with_name("edited.yaml")
    path.write_text(strategy.read_text())
    operation = begin(client, path)
    stopped = operation.cancel(wait=True)
    events = operation.events()

    path.write_text(strategy.read_text().replace("learning_rate: 0.002", "learning_rate: 0.003"))
    with pytest.raises(StrategyChanged, match=r"training\.learning_rate"):
        operation.resume()
    path.unlink()
    with pytest.raises(StrategyNotFound):
        operation.resume()
    path.write_text(strategy.read_text())

    bars = client.bars.read("SAMPLE", "1h")
    volume = bars.volume.copy()
    volume[100] += 1.0
    client.bars.write(replace(bars, volume=volume))
    with pytest.raises(DataChanged):
        operation.resume()
    client.bars.write(bars)

    assert operation.record() == stopped
    assert operation.events() == events
    operation.resume()
    same_model(operation, straight)


def test_the_model_of_a_run_can_be_used(
    client: Client, straight: tuple[Record, list[Record]]
) -> None:
    record, _ = straight
    operation = client.operation(record["operation_id"])
    assert operation.model().class_names == ("BUY", "HOLD", "SELL")
    info = client.model_info("mean_reversion")
    assert info["manifest"]["weights_digest"] == record["result"]["weights_digest"]
    assert operation.checkpoints() == []
    folder = client.settings.storage / "operations" / operation.id
    until(lambda: not folder.exists(), "its folder swept")
