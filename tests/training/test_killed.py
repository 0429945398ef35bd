"""A training whose process is killed goes on from what was durable, to the same bits."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tiny_training import MLP, OPERATION, REGRESSION, Bench, make_strategy, outcome, recurrent

from ktrdr.checkpoints.layout import operation_folder
from ktrdr.checkpoints.retention import sweep

SCRIPT = Path(__file__).parents[1] / "support" / "killed_training.py"
SEED = 20260101
KILLS = 2


@pytest.mark.parametrize(
    ("model", "more"), [(MLP, {}), (recurrent("lstm"), REGRESSION)], ids=["mlp", "lstm regression"]
)
def test_killed_at_random_batches_and_resumed_equals_straight(
    tmp_path: Path, model: dict[str, Any], more: dict[str, Any]
) -> None:
    strategy = make_strategy(
        model,
        **more,
        epochs=100,
        lr_scheduler={"type": "cosine"},
        checkpoint={"every_epochs": 1, "every_seconds": 0.001},
    )
    expected = outcome(Bench(tmp_path / "straight", strategy).complete())
    bench = Bench(tmp_path / "killed", strategy)
    chosen = random.Random(SEED)
    started_at = []
    for attempt in range(1, KILLS + 1):
        command = [str(bench.storage.root), str(attempt), strategy.model_dump_json()]
        started_at.append(_killed_after(command, chosen.randint(80, 160)))
        bench.attempt = attempt
    sweep(bench.storage, OPERATION, range(1, KILLS + 1))

    resume = bench.restored()
    assert resume is not None
    assert 0 == started_at[0] < started_at[-1] <= resume.manifest.epoch * 4 + resume.start_batch
    assert outcome(bench.complete(resume)) == expected, f"seed {SEED}"
    assert not list(operation_folder(bench.storage, OPERATION).rglob(".*"))


def _killed_after(arguments: list[str], batches: int) -> int:
    """Run until so many batches were begun, then SIGKILL; the step that it started from."""
    process = subprocess.Popen(
        [sys.executable, str(SCRIPT), *arguments], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    with process:
        first = int(process.stdout.readline())
        for _ in range(batches):
            assert process.stdout.readline()
        process.kill()
    assert process.returncode == -9
    return first
