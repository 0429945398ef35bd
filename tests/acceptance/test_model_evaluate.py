"""`ktrdr models evaluate`: a stored model judged on stored bars."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from running import Run
from stopped_training import ROWS, Site, make_site
from trained_model import train

from ktrdr.data.sample import sample_bars

NAME = "mean_reversion"
PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture
def site(home: Path) -> Site:
    return make_site(home, epochs=1)


def test_a_model_is_judged_on_its_test_split_and_drawn(
    site: Site, ktrdr: Run, program: Run, tmp_path: Path
) -> None:
    metrics = train(site).metrics
    picture = tmp_path / "judged.png"
    ran = program("models", "evaluate", f"{NAME}@v1", "--plot", str(picture), "--json")
    assert (ran.status, ran.err) == (0, f"evaluation drawn to {picture}\n")
    document = ran.document
    assert (document["model"], document["rows_from"]) == (f"{NAME}@v1", "test split")
    assert document["overall"]["metrics"]["accuracy"] == metrics["test_accuracy"]
    assert document["notes"] == ["its strategy has no decisions.cost_model: net is gross"]
    assert picture.read_bytes().startswith(PNG)
    assert sorted(os.listdir(tmp_path)) == ["home", "judged.png"]

    lines = ktrdr("models", "evaluate", NAME).out.splitlines()
    rows = document["overall"]["rows"]
    assert lines[0].startswith(f"{NAME}@v1 on SAMPLE 1h: {rows:,} rows of its test split, ")
    heads = [line.split()[0] for line in lines if line and line[0].isupper()]
    assert heads == ["CLASS", "BUY", "HOLD", "SELL", "FOLLOWED"]
    found = f"{document['overall']['metrics']['accuracy']:.4g}"
    assert next(line for line in lines if line.startswith("accuracy")).split()[1] == found
    assert lines[-1] == "note: its strategy has no decisions.cost_model: net is gross"


def test_values_and_several_symbols_are_told_too(site: Site, ktrdr: Run, tmp_path: Path) -> None:
    site.client.bars.write(sample_bars("OTHER", rows=ROWS, seed=3))
    site.edit(
        training_data__symbols={"mode": "multi_symbol", "list": ["SAMPLE", "OTHER"]},
        training__labels={"source": "forward_return", "horizon": 5},
        training__loss="mse",
        training__focal_gamma=None,
        decisions={"output_format": "regression", "cost_model": {"round_trip_cost": 0.001}},
    )
    train(site)
    picture = tmp_path / "values.png"
    ran = ktrdr("models", "evaluate", NAME, "--plot", str(picture))
    assert ran.status == 0
    assert picture.read_bytes().startswith(PNG)
    lines = ran.out.splitlines()
    assert [line.split()[0] for line in lines[2:8]] == [
        *("MODEL", "mae", "rmse", "r2", "sign", "correlation"),
    ]
    assert "AFTER COSTS (0.001)" in ran.out
    assert [line.split()[0] for line in lines[-3:]] == ["SYMBOL", "SAMPLE", "OTHER"]
    ran = ktrdr("models", "evaluate", NAME, "--symbol", "OTHER", "--from", "2020-02-01", "--json")
    assert ran.document["overall"]["seen"]["train"] > 0
    assert "trained on" in ran.document["notes"][0]
    answers = ktrdr("models", "predict", NAME, "--symbol", "OTHER", "--json").document
    assert answers["columns"] == ["timestamp", "value"]


REFUSED = (
    (["nobody"], 3, "nobody"),
    ([NAME, "--symbol", "EURUSD"], 3, "no bars of EURUSD 1h"),
    ([NAME, "--from", "2030-01-01"], 2, "none of the 0 bars of SAMPLE 1h"),
    ([NAME, "--from", "2020-05-04"], 2, "none of the 24 rows of SAMPLE 1h"),
    ([NAME, "--from", "2020-02-01", "--to", "2020-01-01"], 2, "before the start date"),
    ([NAME, "--plot", "a.svg"], 2, "ends in .png"),
)


def test_what_cannot_be_judged_is_one_line(site: Site, ktrdr: Run) -> None:
    train(site)
    for words, status, said in REFUSED:
        ran = ktrdr("models", "evaluate", *words)
        assert (ran.status, ran.out) == (status, ""), words
        assert said in ran.err
        assert len(ran.err.splitlines()) == 1
