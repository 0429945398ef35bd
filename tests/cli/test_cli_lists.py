"""Lists as a terminal of 80 columns shows them, and as a pipe gets them."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import struct
import subprocess
import sys
import termios
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from store_bench import OWNER, Bench, opened, plan, request, result

from ktrdr.operations.types import Operation, Progress, Report

START = "from ktrdr.cli.main import main; main()"
LONG = "a_strategy_whose_name_is_rather_long_v2"


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    with opened("sqlite", tmp_path) as bench:
        asked = replace(request(), strategy_name=LONG, symbols=("EURUSD", "GBPUSD", "USDJPY"))
        for n in range(3):
            row = bench.service.submit(asked, plan(), OWNER, f"r{n}")
            bench.service.start(row.operation_id, OWNER.id)
        stop_early(bench, bench.service.list()[0][0])
        yield tmp_path / "home"


def stop_early(bench: Bench, row: Operation) -> None:
    at = Progress(2, 4, 0, None, 50.0, None)
    bench.service.report(row.operation_id, 1, Report(1, progress=at))
    model = bench.service.reserve_model(row.operation_id, 1)
    ended = replace(result(), epochs=2)
    bench.service.finish_completed(row.operation_id, 1, ended, (LONG, model.version))


def ktrdr(home: Path, *words: str) -> list[str]:
    return [sys.executable, "-c", START, *words, "--home", str(home)]


def on_terminal(words: list[str], columns: int) -> list[str]:
    """The lines that a command writes to a terminal."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    environment = {k: v for k, v in os.environ.items() if k not in ("COLUMNS", "LINES")}
    with subprocess.Popen(
        words, stdin=theirs, stdout=theirs, stderr=theirs, env=environment | {"TERM": "xterm"}
    ):
        os.close(theirs)
        written = b""
        with contextlib.suppress(OSError):  # Linux's end of a terminal
            while piece := os.read(ours, 65536):
                written += piece
    os.close(ours)
    return written.decode().splitlines()


@pytest.mark.parametrize("words", [("operations", "list"), ("models", "list")])
def test_80_columns_hold_a_row_in_one_line(home: Path, words: tuple[str, ...]) -> None:
    lines = on_terminal(ktrdr(home, *words), 80)
    assert len(lines) == (4 if words[0] == "operations" else 2)
    assert max(map(len, lines)) <= 80
    wide = on_terminal(ktrdr(home, *words), 250)
    assert len(wide) == len(lines)
    assert all(LONG in line for line in wide[1:])


def test_a_pipe_gets_one_whole_line_for_each(home: Path) -> None:
    piped = subprocess.run(
        ktrdr(home, "operations", "list"), capture_output=True, text=True, check=True
    )
    lines = piped.stdout.splitlines()
    assert len(lines) == 4
    assert all(LONG in line and "EURUSD,GBPUSD,USDJPY 5m" in line for line in lines[1:])
    assert sum("stopped early 2/4" in line for line in lines) == 1
