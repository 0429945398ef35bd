"""`ktrdr operations resume` as people and programs meet it: refusals, and a verbose success."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from running import PROGRAM, Run
from stopped_training import BATCHES, EPOCHS, Site, make_site

INSIDE = BATCHES + 3


@pytest.fixture
def site(home: Path) -> Iterator[Site]:
    site = make_site(home)
    with site.client:
        yield site


def test_refusals_exit_with_their_statuses_and_one_document(site: Site, ktrdr: Run) -> None:
    operation = site.stopped(INSIDE)
    words = ["operations", "resume", operation.id, "--json"]
    before = operation.record(), operation.events()

    site.edit(training__learning_rate=0.01, training__batch_size=32)
    ran = ktrdr(*words, "--allow-changes")
    assert (ran.status, ran.error["code"]) == (4, "STRATEGY_CHANGED")
    assert ran.error["details"]["changed"] == ["training.batch_size", "training.learning_rate"]
    assert ran.error["details"]["acceptable"] == ["training.learning_rate"]
    assert len(ran.err.splitlines()) == 1
    ran = ktrdr(*words, "--strategy", "nowhere.yaml")
    assert (ran.status, ran.error["code"]) == (3, "STRATEGY_NOT_FOUND")
    site.strategy.unlink()
    assert ktrdr(*words).error["code"] == "STRATEGY_NOT_FOUND"
    assert (operation.record(), operation.events()) == before


def test_a_refused_resume_starts_no_ray(site: Site, environment: dict[str, str]) -> None:
    operation = site.stopped(INSIDE)
    site.edit(training__seed=1)
    code = "import sys; from ktrdr.cli.main import run; status = run(sys.argv[1:]);"
    code += "print(status, 'ray' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code, "operations", "resume", operation.id],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stdout == "4 False\n"
    assert done.stderr.startswith("error: ")
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.ray
@pytest.mark.timeout(180)
def test_a_verbose_resume_with_an_accepted_change(
    site: Site, environment: dict[str, str], tmp_path: Path
) -> None:
    operation, _ = site.damaged()
    site.edit(tmp_path / "new.yaml", training__epochs=EPOCHS + 1, training__learning_rate=0.01)
    words = ["operations", "resume", operation.id, "--verbose", "--json"]
    words += ["--allow-changes", "--strategy", "new.yaml"]
    done = subprocess.run(
        [PROGRAM, *words],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=150,
    )
    assert done.returncode == 0, done.stderr
    record = json.loads(done.stdout)
    assert record["status"] == "completed"
    assert record["result"]["epochs"] == record["request"]["epochs"] == EPOCHS + 1
    assert record["request"]["strategy_path"] == str(tmp_path / "new.yaml")
    said = done.stderr
    assert f"resumed        {operation.id}" in said
    assert "restored       weights, optimizer state, best weights, random states, 2 epochs" in said
    assert "recomputed     learning rate, early stopping counters" in said
    assert "goes on in     epoch 3, after 0 batches of it" in said
    assert f"differs        strategy: training.epochs {EPOCHS} -> {EPOCHS + 1}" in said
    assert "differs        strategy: training.learning_rate 0.002 -> 0.01" in said
    assert "lost           5 batches, to be done again: epoch 2, batch 5 was reported last" in said
    assert "passed over    epoch 2, batch 5 (cancellation checkpoint): " in said
    rates = [row["learning_rate"] for row in operation.history()]
    assert rates == [0.002, 0.002, *[0.01] * (EPOCHS - 1)]
