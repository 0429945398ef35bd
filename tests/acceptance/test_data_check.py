"""`ktrdr data check`: a report, whose exit status says only that it could be made."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from running import Run

from ktrdr.data.bars import Bars, columns
from ktrdr.data.sample import sample_bars
from ktrdr.data.store import BarStore


def store(home: Path, bars: Bars) -> None:
    BarStore(home / "storage").write(bars)


def test_good_bars_in_json_and_for_people(ktrdr: Run) -> None:
    ktrdr("data", "sample")
    ran = ktrdr("data", "check", "SAMPLE", "1h", "--json")
    assert ran.status == 0
    assert list(ran.document) == [
        *("symbol", "timeframe", "rows", "first", "last", "verdict", "reasons", "findings")
    ]
    assert (ran.document["verdict"], ran.document["reasons"]) == ("good", [])
    lines = ktrdr("data", "check", "SAMPLE", "1h").out.splitlines()
    assert lines[0] == "good"
    assert [line.split(":")[0] for line in lines[2:]] == [
        name.replace("_", " ") for name in ran.document["findings"]
    ]


def test_bad_bars_are_a_report_too(ktrdr: Run, home: Path) -> None:
    bars = sample_bars()
    broken = np.r_[0:5000, 9000 : len(bars)]
    ktrdr("data", "sample")
    stamps, *prices = columns(bars)
    store(home, Bars("BROKEN", "1h", stamps[broken], *(column[broken] for column in prices)))
    ran = ktrdr("data", "check", "BROKEN", "1h")
    assert ran.status == 0
    assert ran.out.startswith("bad: 20.00% of the usual bars are missing\nBROKEN 1h: 16,000 bars,")
    assert "gaps: 1, 4,000 bars missing (20.00%): 2020-07-27T08:00:00Z .. 2021-01-" in ran.out


def test_bars_that_are_not_stored_are_not_found(ktrdr: Run) -> None:
    assert ktrdr("data", "check", "NOTHING", "1h").status == 3
