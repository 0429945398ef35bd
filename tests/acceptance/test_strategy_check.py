"""`ktrdr strategies check`: a verdict that a script can act on, and a report that people can."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from running import Run

from ktrdr.data.bars import Bars, FloatArray
from ktrdr.features.indicators.definition import IndicatorDefinition, Outputs, Parameters
from ktrdr.features.indicators.outputs import DEFINITIONS

STRATEGY = str(Path(__file__).parents[2] / "strategies" / "trend_follower.yaml")
ALWAYS = (
    *("strategy", "symbols", "timeframes", "folds", "seed", "points", "clean", "leaks"),
    *("labels", "splits", "features", "warnings"),
)


@pytest.fixture
def leaky(monkeypatch: pytest.MonkeyPatch) -> None:
    """A rate of change that knows the next bar."""
    right = DEFINITIONS["roc"]

    def compute(bars: Bars, source: FloatArray, parameters: Parameters) -> Outputs:
        return tuple(np.append(s[1:], s[-1]) for s in right.compute(bars, source, parameters))

    monkeypatch.setitem(DEFINITIONS, "roc", IndicatorDefinition(compute, right.warm_ups))


def test_a_clean_strategy_has_status_0(ktrdr: Run, home: Path) -> None:
    ktrdr("data", "sample")
    stored = sorted(home.rglob("*"))
    ran = ktrdr("strategies", "check", STRATEGY, "--end-date", "2020-06-30", "--seed", "5")
    assert (ran.status, ran.err) == (0, "")
    lines = ran.out.splitlines()
    assert lines[0] == "clean: nothing changed with the future, at 8 points"
    assert "sampled from  --seed 5" in lines
    assert [line.split()[0] for line in lines if " SAMPLE " in line and "BUY" in line] == [
        *("train", "validation", "test")
    ]
    words = ("--symbols", "SAMPLE", "--end-date", "2020-06-30", "--points", "3", "--json")
    found = ktrdr("strategies", "check", STRATEGY, *words).document
    assert tuple(found) == ALWAYS
    assert (found["clean"], found["leaks"], len(found["points"])) == (True, [], 3)
    again = ktrdr("strategies", "check", STRATEGY, *words, "--seed", str(found["seed"]))
    assert again.document == found
    assert sorted(home.rglob("*")) == stored


@pytest.mark.usefixtures("leaky")
def test_a_leak_has_status_1_and_a_name(ktrdr: Run) -> None:
    ktrdr("data", "sample")
    words = ("strategies", "check", STRATEGY, "--end-date", "2020-06-30", "--seed", "5")
    ran = ktrdr(*words)
    names = [f"1h_change_{name}" for name in ("falling", "flat", "rising")]
    assert ran.status == 1
    assert ran.out.splitlines()[0].startswith("LEAK: knows the future: 1h_change_")
    ran = ktrdr(*words, "--json")
    assert (ran.status, ran.err, ran.document["clean"]) == (1, "", False)
    leaks = ran.document["leaks"]
    assert {leak["feature"] for leak in leaks} == set(names)
    assert {leak["source"] for leak in leaks} == {"roc_10"}
    assert {leak["kind"] for leak in leaks} == {"cut", "perturbed"}
    assert all(
        list(leak)
        == [*("feature", "source", "kind", "symbol", "first", "rows", "largest_change", "at")]
        for leak in leaks
    )


def test_what_cannot_be_checked_is_refused(ktrdr: Run, tmp_path: Path) -> None:
    assert ktrdr("strategies", "check", STRATEGY).status == 3
    assert ktrdr("strategies", "check", str(tmp_path / "none.yaml")).status == 3
    ktrdr("data", "sample")
    for words in (["--end-date", "2020-01-05"], ["--points", "0"], ["--symbols", "A,A"]):
        ran = ktrdr("strategies", "check", STRATEGY, *words)
        assert ran.status == 2
        assert ran.err.startswith("error: ")
