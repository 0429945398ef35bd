"""Following the folds of a strategy at once: signals, warnings, the summary, the exit status."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest

from ktrdr.cli import operation_views
from ktrdr.cli.command import Call
from ktrdr.cli.follow import follow_folds
from ktrdr.cli.interrupts import SIGNALS, Interrupts
from ktrdr.errors import OperationNotCancellable
from ktrdr.operations.fold_summary import summarise

CALL = Call(None, None, None, as_json=True)


def record(fold: int, status: str = "running", **metrics: Any) -> dict[str, Any]:
    ended = status in ("completed", "failed", "cancelled")
    return {
        "operation_id": f"op_{fold}",
        "status": status,
        "lost": False,
        "waiting_for": None,
        "warnings": [],
        "phase": None if ended else "training",
        "attempt": 1,
        "owner": {"kind": "local", "host": "here", "pid": 7, "alive": True},
        "request": {"fold": fold},
        "progress": None,
        "error": {"message": "it broke"} if status == "failed" else None,
        "checkpoint": None,
        "result": {"best_epoch": fold + 1, "metrics": metrics, "stopped_early": False}
        if status == "completed"
        else None,
    }


class Fold:
    """Stands for an operation: `looks` happen one by one while the command waits for it."""

    def __init__(self, fold: int, *looks: Callable[[], Any]) -> None:
        self.fold = fold
        self.looks = looks
        self.done: list[str] = []
        self.happened: list[dict[str, Any]] = []

    def record(self) -> Any:
        return record(self.fold)

    def history(self) -> list[dict[str, Any]]:
        return []

    def events(self, after: int = 0) -> list[dict[str, Any]]:
        return [event for event in self.happened if event["id"] > after]

    def warn(self, message: str) -> None:
        number = len(self.happened) + 1
        self.happened.append({"id": number, "event": "warned", "details": {"message": message}})

    def cancel(self) -> None:
        self.done.append("cancel")
        if self.done.count("ended"):
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
    before = {number: signal.signal(number, lambda *_: None) for number in SIGNALS}
    made = Interrupts()
    made.install()
    yield made
    for number, handler in before.items():
        signal.signal(number, handler)


def run(interrupts: Interrupts, *folds: Fold) -> int:
    return follow_folds(CALL, folds, interrupts)  # type: ignore[arg-type]


def interrupted(answer: Any) -> Callable[[], Any]:
    def look() -> Any:
        os.kill(os.getpid(), signal.SIGINT)
        return answer

    return look


@pytest.mark.parametrize(
    ("ends", "exit_status"),
    [
        (("completed", "completed"), 0),
        (("completed", "failed"), 1),
        (("failed", "completed"), 1),
        (("cancelled", "completed"), 130),
    ],
)
def test_the_exit_status_is_that_of_the_worst_end(
    ends: tuple[str, str],
    exit_status: int,
    interrupts: Interrupts,
    capsys: pytest.CaptureFixture[str],
) -> None:
    finals = [record(n, end, test_loss=0.5) for n, end in enumerate(ends, start=1)]
    folds = [Fold(n, partial(dict, final)) for n, final in enumerate(finals, start=1)]
    assert run(interrupts, *folds) == exit_status
    printed = json.loads(capsys.readouterr().out)
    assert printed == {"operations": finals, "total": 2, "summary": summarise(finals)}
    assert [fold.done for fold in folds] == [[], []]


def test_one_interrupt_cancels_every_fold_and_a_second_kills_every_one(
    interrupts: Interrupts,
) -> None:
    one = Fold(1, interrupted(record(1)), interrupted(record(1)), lambda: record(1, "cancelled"))
    two, three = Fold(2, lambda: record(2, "cancelled")), Fold(3, lambda: record(3, "cancelled"))
    assert run(interrupts, one, two, three) == 130
    for fold in (one, two, three):
        assert fold.done == ["cancel", "kill"]


def test_a_fold_that_has_ended_does_not_keep_the_others_from_being_cancelled(
    interrupts: Interrupts,
) -> None:
    one = Fold(1, lambda: record(1, "completed", test_loss=0.1))
    one.done.append("ended")
    two = Fold(2, interrupted(record(2)), lambda: record(2, "cancelled"))
    three = Fold(3, lambda: record(3, "cancelled"))
    assert run(interrupts, one, two, three) == 130
    assert "cancel" in two.done
    assert "cancel" in three.done


def test_warnings_of_every_fold_are_said_whichever_is_waited_for(
    interrupts: Interrupts, capsys: pytest.CaptureFixture[str]
) -> None:
    def warning() -> Any:
        two.warn("of the second while the first is waited for")
        return record(1)

    def late() -> Any:
        one.warn("of the first, at its end")
        return record(1, "completed")

    two = Fold(2, lambda: record(2, "completed"))
    two.warn("of an earlier attempt")
    one = Fold(1, warning, late)
    run(interrupts, one, two)
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("warning")]
    assert said == [
        "warning: of the second while the first is waited for",
        "warning: of the first, at its end",
    ]


def test_a_summary_is_over_the_completed_folds_and_their_numbers() -> None:
    records = [
        record(1, "completed", test_loss=0.25, flag=True, report={"BUY": 1}),
        record(2, "failed"),
        record(3, "completed", test_loss=0.75, only_here=2),
    ]
    found = summarise(records)
    assert {key: found[key] for key in ("folds", "completed", "failed", "cancelled")} == {
        "folds": 3, "completed": 2, "failed": 1, "cancelled": 0,
    }  # fmt: skip
    assert found["metrics"] == {
        "only_here": {"mean": 2.0, "std": None, "min": 2.0, "max": 2.0, "folds": 1},
        "test_loss": {
            "mean": 0.5, "std": pytest.approx(0.125**0.5), "min": 0.25, "max": 0.75, "folds": 2,
        },
    }  # fmt: skip
    shown = operation_views.folds(records, found).splitlines()
    assert shown[0].split() == ["FOLD", "ID", "STATUS", "BEST", "EPOCH"]
    assert [line.split() for line in shown[1:4]] == [
        ["1", "1", "completed", "2"], ["2", "2", "failed"], ["3", "3", "completed", "4"],
    ]  # fmt: skip
    assert shown[5].split() == ["METRIC", "MEAN", "STD", "MIN", "MAX", "FOLDS"]
    assert shown[7].split()[:2] == ["test_loss", "0.5"]


def test_folds_of_which_none_completed_have_no_metrics() -> None:
    records = [record(1, "cancelled"), record(2, "failed")]
    assert summarise(records)["metrics"] == {}
    assert len(operation_views.folds(records, summarise(records)).splitlines()) == 3
