"""`why`: every event in plain words, and a next command that makes sense."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from ktrdr.operations.explanation import TEXTS, explanation
from ktrdr.operations.service import OperationsService
from ktrdr.operations.state_machine import RULES
from ktrdr.operations.types import (
    CheckpointType,
    FailureReason,
    NewCheckpoint,
    Operation,
    Owner,
    OwnerKind,
    Phase,
    Plan,
    Report,
    Request,
    Restored,
    Result,
    ResumedFrom,
    Resumption,
    StopKind,
    TrainingWarning,
)
from ktrdr.store import open_store

AT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
OWNER = Owner("owner-1", OwnerKind.EMBEDDED, "host", 1, 1.0)
REQUEST = Request("/w/my demo.yaml", "demo", ("EURUSD",), ("5m",), None, None, 9, 42, 1)
PLAN = Plan({}, {"epochs": 9, "symbols": ["EURUSD", "GBPUSD"]}, "s", "d", "f", [], "/s")
RESULT = Result("/s/models/demo/v1", "ab" * 32, 4, 2, {})


@pytest.fixture
def service() -> Iterator[OperationsService]:
    store = open_store("sqlite://")
    yield OperationsService(store)
    store.close()


@pytest.fixture
def row(service: OperationsService) -> Operation:
    submitted = service.submit(REQUEST, PLAN, OWNER, "r")
    return service.start(submitted.operation_id, OWNER.id)


def commit(service: OperationsService, row: Operation, number: int, epoch: int = 1) -> int:
    path = f"operations/{row.operation_id}/attempt-{row.attempt:04d}/checkpoint-{number:06d}"
    kind = CheckpointType.PERIODIC
    new = NewCheckpoint(number, path, epoch, 3, kind, AT, 1, "ab")
    service.commit_checkpoint(row.operation_id, row.attempt, new)
    return service.checkpoints(row.operation_id)[-1].id


def why(service: OperationsService, row: Operation, alive: bool = True) -> dict[str, Any]:
    name = row.operation_id
    latest = service.latest_checkpoint(name)
    return explanation(service.get(name), service.events(name), latest, alive)


def told(answer: dict[str, Any]) -> list[str]:
    return [link["text"] for link in answer["chain"]]


def test_every_event_of_the_table_has_a_text() -> None:
    assert set(TEXTS) == {rule.event for rule in RULES if rule.event is not None}


def test_the_chain_tells_when_who_what_and_why(service: OperationsService, row: Operation) -> None:
    name = row.operation_id
    service.report(name, 1, Report(1, Phase.TRAINING))
    for number in (1, 2, 3):
        checkpoint_id = commit(service, row, number, epoch=number)
    service.lose(name, 1, FailureReason.DRIVER_LOST, "killed by signal 9")
    found = ResumedFrom(CheckpointType.PERIODIC, AT, 3, 3, True)
    service.launch(name, 2, OWNER.id)
    service.report(name, 2, Report(1, Phase.TRAINING, restored=Restored(checkpoint_id, found)))
    service.warn(name, 2, TrainingWarning("CHECKPOINT_NOT_SAVED", "the disk is full"))
    service.request_cancel(name, 2, "c")
    service.finish_stopped(name, 2, StopKind.USER)
    answer = why(service, row)
    assert told(answer) == [
        "a user submitted it",
        "attempt 1 was started",
        "the periodic checkpoint of epoch 3, batch 3 was saved",
        "attempt 1 ended because the training process was lost (killed by signal 9);"
        " attempt 2 follows at once",
        "attempt 2 began from the periodic checkpoint of epoch 3, batch 3",
        "warning: the disk is full",
        "a user asked to cancel it",
        "attempt 2 stopped at a batch boundary, because it was asked to;"
        " the operation is cancelled",
    ]
    assert (answer["operation_id"], answer["status"]) == (name, "cancelled")
    assert answer["next"] == f"ktrdr operations resume {name}"
    first = service.events(name)[0]
    assert answer["chain"][0] == {
        "at": first.at.replace(tzinfo=None).isoformat() + "Z",
        "attempt": 0,
        "event": "submitted",
        "text": "a user submitted it",
    }


def test_a_restart_without_progress_says_how_long_it_waits(
    service: OperationsService, row: Operation
) -> None:
    service.lose(row.operation_id, 1, FailureReason.HUNG, "no batch for 90 s")
    assert told(why(service, row))[-1] == (
        "attempt 1 ended because it stopped making progress (no batch for 90 s);"
        " attempt 2 follows in 1 s"
    )


def test_the_next_command_fits_the_state(service: OperationsService, row: Operation) -> None:
    name = row.operation_id
    assert why(service, row)["next"] == f"ktrdr operations watch {name}"
    assert why(service, row)["lost"] is False
    assert why(service, row, alive=False)["next"] == f"ktrdr operations cancel {name}"
    assert why(service, row, alive=False)["lost"] is True
    commit(service, row, 1)
    assert why(service, row, alive=False)["next"] == f"ktrdr operations resume {name}"
    service.finish_failed(name, 1, FailureReason.NON_FINITE_LOSS, "nan")
    answer = why(service, row)
    assert answer["next"] == f"ktrdr operations resume {name} --allow-changes"
    assert told(answer)[-1] == (
        "attempt 1 ended because the loss was no longer a finite number (nan);"
        " the operation failed: it is not restarted, it would fail again"
    )
    service.delete_checkpoints(name)
    answer = why(service, row)
    assert answer["next"] == f"ktrdr operations rerun {name}"
    assert told(answer)[-1] == "a user deleted its checkpoint: it cannot be resumed"


def test_of_what_completed_the_model_is_shown(service: OperationsService, row: Operation) -> None:
    model = service.reserve_model(row.operation_id, 1)
    service.finish_completed(row.operation_id, 1, RESULT, ("demo", model.version))
    answer = why(service, row)
    assert answer["next"] == "ktrdr models show demo@v1"
    assert told(answer)[-1] == (
        "it completed: its model is demo@v1; it stopped early after 4 of 9 epochs"
    )


def test_a_lost_owner_and_a_resume_that_passed_a_checkpoint_over_are_told(
    service: OperationsService, row: Operation
) -> None:
    good, bad = commit(service, row, 1), commit(service, row, 2, epoch=2)
    found = ResumedFrom(CheckpointType.PERIODIC, AT, 1, 3, True)
    other = replace(OWNER, id="owner-2")
    asked = Resumption(good, other, "r2", found, PLAN, ((bad, "model.pt is wrong"),))
    service.try_resume(row.operation_id, 1, asked, presumed_dead=OWNER.id)
    assert told(why(service, row))[-2:] == [
        "it was found lost, with no live process; the operation failed",
        "a user resumed it after it was failed: attempt 2 from the periodic checkpoint of epoch 1,"
        " batch 3; passed over: periodic checkpoint of epoch 2, batch 3: model.pt is wrong",
    ]
