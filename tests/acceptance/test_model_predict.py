"""`ktrdr models predict` and `ktrdr.load_model`: a stored model on stored bars."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from running import Run
from stopped_training import ROWS, Site, make_site
from trained_model import train

import ktrdr as package
from ktrdr.data.bars import format_us
from ktrdr.data.sample import sample_bars

BARS = sample_bars(rows=ROWS)
HISTORY = 100
NAME = "mean_reversion"


@pytest.fixture
def site(home: Path) -> Site:
    site = make_site(home, epochs=1)
    train(site)
    return site


@pytest.mark.usefixtures("site")
def test_every_answer_is_given_and_the_same_everywhere(
    ktrdr: Run, program: Run, tmp_path: Path
) -> None:
    ran = program("models", "predict", NAME, "--symbol", "SAMPLE", "--json")
    assert (ran.status, ran.err) == (0, "")
    document = ran.document
    rows = document.pop("predictions")
    assert document == {
        "model": f"{NAME}@v1",
        "symbol": "SAMPLE",
        "timeframe": "1h",
        "rows": ROWS - HISTORY,
        "columns": ["timestamp", "BUY", "HOLD", "SELL"],
        "first": format_us(int(BARS.timestamps[HISTORY])),
        "last": format_us(BARS.last),
        "out": None,
    }
    frame = package.load_model(f"{NAME}@v1").predict(BARS)
    for name in ("BUY", "HOLD", "SELL"):
        assert np.array([row[name] for row in rows], np.float32).tolist() == frame[name].to_list()
    assert [row["timestamp"] for row in rows] == [
        format_us(int(stamp)) for stamp in BARS.timestamps[HISTORY:]
    ]

    for suffix in (".csv", ".parquet"):
        path = tmp_path / f"answers{suffix}"
        words = ("models", "predict", NAME, "--symbol", "SAMPLE", "--out", str(path), "--json")
        assert ktrdr(*words).document == document | {"out": str(path)}
        text = {"BUY": pl.Float32, "HOLD": pl.Float32, "SELL": pl.Float32}
        if suffix == ".csv":
            found = pl.read_csv(path, schema_overrides=text, try_parse_dates=True)
            first = path.read_text().splitlines()[1]
            assert first.startswith(f"{document['first']},")
            assert first.split(",")[1] == str(np.float32(rows[0]["BUY"]))
            found = found.with_columns(pl.col("timestamp").cast(pl.Datetime("us", "UTC")))
        else:
            found = pl.read_parquet(path)
        assert found.equals(frame)
    assert sorted(os.listdir(tmp_path)) == ["answers.csv", "answers.parquet", "home"]


@pytest.mark.usefixtures("site")
def test_dates_choose_the_rows_and_earlier_bars_are_their_history(ktrdr: Run) -> None:
    words = ("models", "predict", NAME, "--symbol", "SAMPLE", "--json")
    everything = ktrdr(*words).document["predictions"]
    ran = ktrdr(*words, "--from", "2020-02-01", "--to", "2020-02-03").document
    assert (ran["first"], ran["last"]) == ("2020-02-01T00:00:00Z", "2020-02-03T23:00:00Z")
    chosen = [row for row in everything if ran["first"] <= row["timestamp"] <= ran["last"]]
    assert len(chosen) == 72
    assert ran["predictions"] == chosen
    told = ktrdr(*words[:-1], "--to", "2020-02-03").out.splitlines()
    assert told[0].startswith(f"{NAME}@v1 on SAMPLE 1h: 716 bars, ")
    assert told[2].split() == ["TIMESTAMP", "BUY", "HOLD", "SELL"]
    assert told[-1].startswith("2020-02-03T23:00:00Z  0.")


@pytest.mark.usefixtures("site")
def test_another_timeframe_is_said_to_be_one(ktrdr: Run, site: Site) -> None:
    site.client.bars.write(sample_bars("OTHER", "15m", rows=150))
    words = ("models", "predict", NAME, "--symbol", "OTHER")
    ran = ktrdr(*words, "--timeframe", "15m", "--json")
    assert (ran.status, ran.document["timeframe"], ran.document["rows"]) == (0, "15m", 50)
    assert ran.err == f"note: {NAME}@v1 was trained on 1h bars\n"
    ran = ktrdr(*words, "--json")
    assert (ran.status, ran.error["code"]) == (3, "DATA_NOT_FOUND")
    assert "no bars of OTHER 1h" in ran.err


REFUSED = (
    (["nobody", "--symbol", "SAMPLE"], 3, "nobody"),
    ([f"{NAME}@v9", "--symbol", "SAMPLE"], 3, "v9"),
    (["../x", "--symbol", "SAMPLE"], 2, "is not the name of a model"),
    ([NAME, "--symbol", "EURUSD"], 3, "no bars of EURUSD 1h"),
    ([NAME, "--symbol", "../x"], 2, "is not a symbol"),
    ([NAME, "--symbol", "SAMPLE", "--timeframe", "7x"], 2, "'7x' is not a timeframe"),
    ([NAME, "--symbol", "SAMPLE", "--from", "soon"], 2, "'soon' is not a date"),
    ([NAME, "--symbol", "SAMPLE", "--to", "2020-01-02"], 2, "none of the 48 bars of SAMPLE"),
    ([NAME, "--symbol", "SAMPLE", "--from", "2030-01-01"], 2, "none of the 0 bars"),
    ([NAME, "--symbol", "SAMPLE", "--out", "a.xlsx"], 2, "ends in .csv or .parquet"),
    ([NAME, "--symbol", "SAMPLE", "--out", "no/such/a.csv"], 2, "there is no folder"),
    ([NAME], 2, "--symbol"),
)


@pytest.mark.usefixtures("site")
def test_what_cannot_be_answered_is_one_line(ktrdr: Run) -> None:
    for words, status, said in REFUSED:
        ran = ktrdr("models", "predict", *words)
        assert (ran.status, ran.out) == (status, ""), words
        assert said in ran.err
        assert len(ran.err.splitlines()) == 1
