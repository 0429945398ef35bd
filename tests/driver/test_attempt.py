"""Whole attempts in this process: the row, data, Ray Train's local mode, the model, the end."""

from __future__ import annotations

import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from service_call import ServiceCall
from stopped_training import BATCHES, ROWS, Site, make_site

from ktrdr.client import Operation
from ktrdr.data.sample import sample_bars
from ktrdr.driver import preparation
from ktrdr.driver.attempt import run_attempt
from ktrdr.driver.heartbeat import HeartbeatSource
from ktrdr.operations.types import CheckpointType, FailureReason, Phase, Report, StopKind

INSIDE = 2 * BATCHES + 3


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    site = make_site(tmp_path / "home")
    with site.client:
        yield site


def run(
    site: Site, operation: Operation, stop_kind: Callable[[], StopKind | None] = lambda: None
) -> ServiceCall:
    """Run the operation's current attempt to its end."""
    row = site.row(operation)
    call = ServiceCall(site.service, row)
    run_attempt((row.operation_id, row.attempt), call, stop_kind, HeartbeatSource())
    return call


def reports(call: ServiceCall) -> list[Report]:
    return [argument for verb, argument in call.called if verb == "report"]


def test_a_resume_goes_on_to_the_same_model_and_tells_the_history_first(site: Site) -> None:
    straight = site.submit()
    run(site, straight)
    stopped = site.stopped(INSIDE)
    stopped.resume()
    call = run(site, stopped)
    expected, resumed = straight.record()["result"], stopped.record()["result"]
    assert resumed["weights_digest"] == expected["weights_digest"]
    assert resumed["metrics"] == expected["metrics"]
    first, *later = reports(call)
    assert first.restored is not None
    assert [row.epoch for row in first.history] == [1, 2]
    assert [row.epoch for report in later for row in report.history] == [3, 4]
    assert [row["epoch"] for row in stopped.history()] == [1, 2, 3, 4]


def test_exact_is_judged_where_the_batches_are_computed(site: Site) -> None:
    operation = site.submit()
    site.run(operation, INSIDE, environment={"threads": 4})
    assert operation.resume()["resumed_from"]["exact"] is True  # as far as is known there
    run(site, operation)
    resumed = operation.record()["resumed_from"]
    assert (resumed["exact"], resumed["differences"]) == (False, ["threads: 4 -> 1"])


def test_a_resume_is_claimed_without_torch(site: Site) -> None:
    operation = site.stopped(INSIDE)
    program = (
        "import sys\n"
        "from pathlib import Path\n"
        "sys.path.insert(0, sys.argv[3])\n"
        "from local_cluster import RowsClient\n"
        "from ktrdr.settings import read_settings\n"
        "with RowsClient(read_settings({}, home=Path(sys.argv[1]))) as client:\n"
        "    client.operation(sys.argv[2]).resume()\n"
        "print([name for name in ('torch', 'ray') if name in sys.modules])\n"
    )
    home = site.client.settings.home
    support = Path(__file__).parents[1] / "support"
    command = [sys.executable, "-c", program, str(home), operation.id, str(support)]
    assert subprocess.check_output(command, text=True) == "[]\n"
    assert operation.record()["resumed_from"]["exact"] is True


def test_a_restart_begins_from_the_newest_good_checkpoint_and_says_so(site: Site) -> None:
    operation, good = site.damaged()
    operation.resume()
    row = site.row(operation)
    site.service.lose(row.operation_id, row.attempt, FailureReason.DRIVER_LOST, "was killed")
    call = run(site, operation)
    restored = reports(call)[0].restored
    assert restored is not None
    assert restored.resumed_from is not None
    assert restored.resumed_from.exact
    assert restored.resumed_from.epoch == good["epoch"]
    assert [why for _, why in restored.passed_over]
    assert operation.record()["status"] == "completed"


def test_a_driver_whose_attempt_is_over_leaves_before_it_prepares_anything(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepared: list[Any] = []
    monkeypatch.setattr(preparation, "prepare", lambda *given: prepared.append(given))
    operation = site.submit()
    row = site.row(operation)
    call = ServiceCall(site.service, row)
    site.service.finish_stopped(row.operation_id, row.attempt, StopKind.USER)
    before = site.service.events(operation.id)
    run_attempt((row.operation_id, row.attempt), call, lambda: None, HeartbeatSource())
    assert (call.called, prepared) == ([], [])
    assert site.service.events(operation.id) == before


@pytest.mark.parametrize("kind", [StopKind.USER, StopKind.SHUTDOWN])
def test_a_stop_is_heard_while_data_are_prepared(
    site: Site, monkeypatch: pytest.MonkeyPatch, kind: StopKind
) -> None:
    """The data here never come: only a stop ends that."""
    begun, released = threading.Event(), threading.Event()

    def endless(*_: Any) -> None:
        begun.set()
        released.wait()

    monkeypatch.setattr(preparation, "planned_dataset", endless)
    operation = site.stopped(INSIDE)
    held = operation.record()["checkpoint"]
    operation.resume()
    run(site, operation, lambda: kind if begun.is_set() else None)
    released.set()
    record = operation.record()
    assert (record["status"], record["checkpoint"]) == ("cancelled", held)
    phases = [
        e.details["phase"] for e in site.service.events(operation.id) if e.event == "reported"
    ]
    assert phases[-1] == Phase.PREPARING_DATA


def test_bars_revised_before_it_starts_end_it_with_that_reason(site: Site) -> None:
    operation = site.submit()
    site.client.bars.write(sample_bars(rows=ROWS - 1))
    shutil.rmtree(site.client.settings.storage / "features")  # else it has what was submitted
    call = run(site, operation)
    record = operation.record()
    assert (record["status"], record["error"]["reason"]) == ("failed", "data_error")
    assert [verb for verb, _ in call.called][-1] == "finish_failed"


def test_an_error_of_the_delivery_ends_the_training_with_its_reason(site: Site) -> None:
    operation = site.submit(epochs=100_000)
    row = site.row(operation)
    call = ServiceCall(site.service, row)

    def stop_kind() -> None:
        if any(verb == "commit_checkpoint" for verb, _ in call.called):
            call.errors["report"] = TypeError("a report cannot be sent")

    run_attempt((row.operation_id, row.attempt), call, stop_kind, HeartbeatSource())
    record = operation.record()
    assert (record["status"], record["error"]["message"]) == ("failed", "a report cannot be sent")
    assert record["checkpoint"]["checkpoint_type"] == CheckpointType.INITIAL
