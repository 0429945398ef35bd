"""A cancel is truthful in whatever phase it comes: cancelled or completed, never both or lost."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from local_cluster import driver_process, until

from ktrdr.client import Client, Operation
from ktrdr.errors import OperationNotCancellable

pytestmark = [pytest.mark.ray, pytest.mark.timeout(180)]

Record = dict[str, Any]
DEADLINE_S = 90.0
SHIPPED = Path(__file__).parents[2] / "strategies" / "mean_reversion.yaml"


@pytest.fixture(scope="module")
def client(shared_client: Client) -> Client:
    return shared_client


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("strategies")


def strategy(folder: Path, epochs: int) -> Path:
    content = yaml.safe_load(SHIPPED.read_text())
    content["training"] |= {
        "epochs": epochs,
        "batch_size": 32,
        "early_stopping": None,
        "checkpoint": {"every_epochs": 1000, "every_seconds": 300},
    }
    path = folder / f"of_{epochs}_epochs.yaml"
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return path


def cancelled_once(operation: Operation) -> None:
    """It ended once, as what it says, and stays so."""
    record = operation.wait(DEADLINE_S)
    assert record["status"] == "cancelled", record
    events = [event["event"] for event in operation.events()]
    assert events.count("cancel_requested") == 1
    assert record["result"] is None
    assert record["cancel_requested_at"] <= record["completed_at"]
    assert sum(event["status"] == "cancelled" for event in operation.events()) == 1
    assert operation.cancel(wait=True)["status"] == "cancelled"  # repeated: the same answer
    assert [event["event"] for event in operation.events()] == events


def in_phase(operation: Operation, phase: str) -> None:
    """Wait for a phase, or for one that follows it."""
    order = ["starting", "preparing_data", "training", "saving"]

    def reached() -> bool:
        record = operation.record()
        seen = record["phase"]
        return record["completed_at"] or seen in order[order.index(phase) :]

    until(reached, f"{operation.id} {phase}")


@pytest.mark.parametrize("phase", ["starting", "preparing_data"])
def test_a_cancel_in_any_phase_before_the_end_is_obeyed(
    client: Client, folder: Path, phase: str
) -> None:
    operation = client.train(strategy(folder, 2000))
    in_phase(operation, phase)
    operation.cancel()
    cancelled_once(operation)
    latest = operation.record()["checkpoint"]  # none when it had not begun to train
    assert latest is None or latest["checkpoint_type"] in ("initial", "cancellation")


def test_a_cancel_while_it_waits_for_resources_takes_its_place_back(
    client: Client, folder: Path
) -> None:
    first, *others = occupy(client, folder)
    operation = client.train(strategy(folder, 2000))
    until(lambda: operation.record()["waiting_for"], "it waits")
    operation.cancel()
    cancelled_once(operation)
    assert operation.record()["checkpoint"] is None
    waited = client.train(strategy(folder, 2))
    until(lambda: waited.record()["waiting_for"], "the next one waits")
    assert first.cancel(wait=True)["status"] == "cancelled"
    assert waited.wait(DEADLINE_S)["status"] == "completed"  # the cancelled one holds no CPU
    for other in others:
        other.cancel(wait=True)


def test_a_cancel_while_it_restarts_beats_the_restart(client: Client, folder: Path) -> None:
    operation = client.train(strategy(folder, 2000))
    in_phase(operation, "training")
    driver = driver_process(client.settings.home)
    driver.kill()
    until(lambda: operation.record()["attempt"] == 2, "the next attempt")
    operation.cancel()
    cancelled_once(operation)
    assert operation.record()["attempt"] == 2


@pytest.mark.parametrize("delay_s", [0.0, 0.05])
def test_a_cancel_near_the_end_ends_one_way_or_the_other(
    client: Client, folder: Path, delay_s: float
) -> None:
    """Several ask at once, in the last batches or while the model is stored."""
    operation = client.train(strategy(folder, 3))
    last = "saving" if delay_s else "training"
    in_phase(operation, last)
    time.sleep(delay_s)
    refused: list[str] = []

    def ask() -> None:
        try:
            operation.cancel()
        except OperationNotCancellable as error:
            refused.append(error.code)

    askers = [threading.Thread(target=ask) for _ in range(4)]
    for asker in askers:
        asker.start()
    for asker in askers:
        asker.join(DEADLINE_S)
    record = operation.wait(DEADLINE_S)
    endings = [e for e in operation.events() if e["status"] in ("cancelled", "completed", "failed")]
    assert len(endings) == 1
    assert (record["status"] == "completed") == (record["result"] is not None)
    models = [m for m in client.models() if m["operation_id"] == operation.id]
    assert len(models) == (record["status"] == "completed")
    if refused:
        assert record["status"] == "completed"


def occupy(client: Client, folder: Path) -> list[Operation]:
    """Trainings on every CPU that is there."""
    [node] = client.nodes()
    found = [client.train(strategy(folder, 2000)) for _ in range(int(node["cpus"]))]
    for operation in found:
        in_phase(operation, "training")
    return found
