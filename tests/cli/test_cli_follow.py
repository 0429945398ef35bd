"""Following a training: what each signal asks for, what is said, and the exit status."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from ktrdr.cli.command import Call
from ktrdr.cli.follow import Progress, follow
from ktrdr.cli.interrupts import SIGNALS, Interrupted, Interrupts
from ktrdr.errors import OperationNotCancellable

NAME = "op_training_20240101_000000_00000000"
CALL = Call(None, None, None, as_json=True)


def record(status: str = "running", phase: str | None = "training", epoch: int = 0) -> Any:
    progress = {"epoch": epoch, "epochs": 9, "batch": 0, "batches": 4, "percent": 0.0}
    return {
        "operation_id": NAME,
        "status": status,
        "lost": False,
        "waiting_for": None,
        "warnings": [],
        "result": None,
        "phase": phase,
        "attempt": 1,
        "owner": {"kind": "local", "host": "here", "pid": 7, "alive": status != "failed"},
        "progress": {**progress, "metrics": None},
        "error": {"message": "it broke"} if status == "failed" else None,
        "checkpoint": {"epoch": epoch},
        "request": {"fold": None},
    }


class Scripted:
    """Stands for an operation: `looks` happen one by one while the command waits."""

    def __init__(self, looks: list[Callable[[], Any]]) -> None:
        self.looks = looks
        self.done: list[str] = []
        self.refuses_cancel = False
        self.happened: list[dict[str, Any]] = []

    def history(self) -> list[dict[str, Any]]:
        return []

    def events(self, after: int = 0) -> list[dict[str, Any]]:
        return [event for event in self.happened if event["id"] > after]

    def cancel(self) -> None:
        self.done.append("cancel")
        if self.refuses_cancel:
            raise OperationNotCancellable("it has ended")

    def kill(self) -> None:
        self.done.append("kill")

    def wait(self, on_record: Callable[[Any], None]) -> Any:
        for look in self.looks:
            current = look()
            on_record(current)
        return current


@pytest.fixture
def interrupts() -> Iterator[Interrupts]:
    """Installed over handlers that do nothing: a broken `install` must not end the test run."""
    before = {number: signal.signal(number, lambda *_: None) for number in SIGNALS}
    made = Interrupts()
    made.install()
    yield made
    for number, handler in before.items():
        signal.signal(number, handler)


def run(script: Scripted, interrupts: Interrupts) -> int:
    return follow(CALL, script, interrupts)  # type: ignore[arg-type]


def signalled(number: int, answer: Any) -> Callable[[], Any]:
    def look() -> Any:
        os.kill(os.getpid(), number)
        return answer

    return look


@pytest.mark.parametrize(
    ("status", "exit_status"), [("completed", 0), ("failed", 1), ("cancelled", 130)]
)
def test_the_exit_status_says_how_it_ended(
    status: str, exit_status: int, interrupts: Interrupts, capsys: pytest.CaptureFixture[str]
) -> None:
    final = record(status, None)
    assert run(Scripted([record, lambda: final]), interrupts) == exit_status
    printed = capsys.readouterr()
    assert json.loads(printed.out) == final
    assert (f"operations resume {NAME}" in printed.err) == (status != "completed")


@pytest.mark.parametrize("number", SIGNALS)
def test_first_signal_cancels_second_kills(number: int, interrupts: Interrupts) -> None:
    script = Scripted(
        [record, signalled(number, record()), record, signalled(number, record()), record]
    )
    script.looks.append(lambda: record("cancelled", None))
    assert run(script, interrupts) == 130
    assert script.done == ["cancel", "kill"]


def test_two_signals_at_once_cancel_and_kill(interrupts: Interrupts) -> None:
    os.kill(os.getpid(), signal.SIGINT)
    os.kill(os.getpid(), signal.SIGTERM)
    script = Scripted([record, lambda: record("cancelled", None)])
    assert run(script, interrupts) == 130
    assert script.done == ["cancel", "kill"]


def test_a_signal_that_comes_when_it_has_completed_changes_nothing(interrupts: Interrupts) -> None:
    script = Scripted([signalled(signal.SIGINT, record("completed", None))])
    script.refuses_cancel = True
    assert run(script, interrupts) == 0


def test_a_signal_that_came_during_the_submission_cancels(interrupts: Interrupts) -> None:
    os.kill(os.getpid(), signal.SIGTERM)
    script = Scripted([record, lambda: record("cancelled", None)])
    assert run(script, interrupts) == 130
    assert script.done == ["cancel"]


def test_before_anything_is_recorded_a_signal_just_ends_the_command(
    interrupts: Interrupts,
) -> None:
    interrupts.leave_if_asked()
    os.kill(os.getpid(), signal.SIGINT)
    with pytest.raises(Interrupted, match="before anything was recorded") as stopped:
        interrupts.leave_if_asked()
    assert stopped.value.exit_status == 130


def test_new_warnings_are_said_once_also_the_last_one(
    interrupts: Interrupts, capsys: pytest.CaptureFixture[str]
) -> None:
    def happens(event: str, message: str, then: Any) -> Callable[[], Any]:
        def look() -> Any:
            number = len(script.happened) + 1
            script.happened.append({"id": number, "event": event, "details": {"message": message}})
            return then

        return look

    script = Scripted([])
    happens("warned", "of an earlier attempt", None)()
    script.looks = [
        record,
        happens("warned", "disk full", record()),
        record,
        happens("reported", "no trouble", record()),
        happens("warned", "last one not saved", record("cancelled", None)),
    ]
    run(script, interrupts)
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("warning")]
    assert said == ["warning: disk full", "warning: last one not saved"]


def test_without_a_terminal_epochs_are_said_every_few_seconds_only(
    capsys: pytest.CaptureFixture[str],
) -> None:
    now = 0.0
    progress = Progress(None, clock=lambda: now)
    for epoch, at in ((0, 0.0), (1, 1.0), (2, 2.0), (3, 6.0), (3, 20.0), (4, 21.0)):
        now = at
        progress.show(record(epoch=epoch))
    progress.show(record(epoch=4, phase="saving"))
    progress.show(record(epoch=4, phase="stopping"))
    said = [line.split()[1] for line in capsys.readouterr().err.splitlines()]
    assert said == ["0/9", "3/9", "4/9", "4/9"]
