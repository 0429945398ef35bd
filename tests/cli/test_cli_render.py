"""What may reach a terminal, and how tables and records look."""

from __future__ import annotations

import io
import sys
from typing import Any

import pytest

from ktrdr.cli import operation_views, render


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        ("plain words", "plain words"),
        ("two\nlines\tand \x1b[31mred\x07", r"two\nlines\tand \x1b[31mred\x07"),
        ("right\u202eleft, surrogate \udcff", r"right\u202eleft, surrogate \udcff"),
        ("na\u00efve", "na\u00efve"),
        ("a " + "x" * 10_000 + " b", "a " + "x" * 75 + "...(10000 characters) b"),
    ],
)
def test_a_message_is_one_printable_line(message: str, shown: str) -> None:
    assert render.one_line(message) == shown


def test_an_endless_message_is_cut() -> None:
    assert len(render.one_line("word " * 10_000)) < 5000


def test_a_table_lines_up_and_shows_text_as_it_is() -> None:
    shown = render.table(("NAME", "REMARK"), [("a" * 40, "[bold]x[/bold]"), ("b", None)])
    assert shown.splitlines() == ["NAME" + " " * 38 + "REMARK", "a" * 40 + "  [bold]x[/bold]", "b"]


def test_a_table_is_drawn_without_touching_stdout(monkeypatch: pytest.MonkeyPatch) -> None:
    class Full(io.StringIO):
        def write(self, text: str) -> int:
            del text
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(sys, "stdout", Full())
    assert render.table(("NAME",), [("a",)]) == "NAME\na"


def test_a_record_shows_what_exists_and_nothing_else() -> None:
    record: dict[str, Any] = {
        "operation_id": "op_training_20240101_000000_00000000",
        "status": "running",
        "lost": False,
        "waiting_for": None,
        "warnings": [{"code": "disk", "message": "the disk was full", "count": 3}],
        "phase": "training",
        "attempt": 2,
        "owner": {"kind": "local", "host": "here", "pid": 7, "alive": True},
        "request": {
            "strategy_path": "/s.yaml",
            "strategy_name": "s",
            "symbols": ["A"],
            "timeframes": ["1h"],
            "start_date": None,
            "end_date": "2020-01-01",
            "epochs": 3,
            "seed": 42,
            "workers": 1,
            "fold": None,
        },
        "progress": {
            "epoch": 1,
            "epochs": 3,
            "batch": 5,
            "batches": 10,
            "percent": 50.0,
            "metrics": {"train_loss": 0.123456789, "val_loss": 0.5, "val_accuracy": None},
        },
        "created_at": "2024-01-01T00:00:00Z",
        "started_at": None,
        "completed_at": None,
        "cancel_requested_at": None,
        "error": None,
        "checkpoint": None,
        "resumed_from": {
            "checkpoint_type": "cancellation",
            "created_at": "2024-01-01T00:00:00Z",
            "epoch": 1,
            "batch": 2,
            "exact": False,
            "differences": ["torch 1 -> 2"],
        },
        "result": None,
    }
    shown = dict(line.split("  ", 1) for line in operation_views.operation(record).splitlines())
    shown = {name: value.strip() for name, value in shown.items()}
    assert shown["progress"] == "epoch 1/3  batch 5/10  50.0%"
    assert shown["owner"] == "local on here, pid 7, alive"
    assert shown["dates"] == "the first bar .. 2020-01-01"
    assert shown["resumed from"].endswith("not exact: torch 1 -> 2")
    assert not {"started", "ended", "checkpoint", "error"} & shown.keys()
    assert shown["warning"] == "the disk was full (3 times)"
    assert operation_views.progress_line(record) == (
        "epoch 1/3  batch 5/10  50.0%  loss 0.1235  val_loss 0.5"
    )
    waiting = {**record, "phase": "waiting_for_resources", "waiting_for": "1 CPU"}
    assert operation_views.progress_line(waiting) == "waiting for resources: 1 CPU"
    assert operation_views.progress_line({**record, "progress": None}) == "training"
    assert operation_views.progress_line({**record, "lost": True}) == "lost: no live process"
    first = {"running_loss": 1.5, "batches_per_s": 120.4}
    record["progress"] = {**record["progress"], "metrics": first}
    assert operation_views.progress_line(record) == (
        "epoch 1/3  batch 5/10  50.0%  loss 1.5  120 batches/s"
    )
    best = {"best_epoch": 1, "best_score": 0.625, "monitor": "val_accuracy"}
    record["progress"] = {**record["progress"], "metrics": {**first, **best}}
    assert "best val_accuracy 0.625 @1" in operation_views.progress_line(record)
