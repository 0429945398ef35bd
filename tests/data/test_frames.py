"""Bars and answers as data frames: what is written reads back, and nothing is half written."""

from __future__ import annotations

import os
import resource
import signal
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from ktrdr.data.frames import output_path, to_frame, with_plain_values, write_frame
from ktrdr.errors import Usage

HOUR_US = 3_600_000_000


def some(rows: int = 5, seed: int = 1) -> pl.DataFrame:
    random = np.random.default_rng(seed)
    values = (random.random(rows) * 10.0 ** random.integers(-30, 30, rows)).astype(np.float32)
    return to_frame(np.arange(rows) * HOUR_US, {"UP": values, "DOWN": -values})


@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".CSV"])
def test_every_float32_comes_back_to_the_last_bit(suffix: str, tmp_path: Path) -> None:
    frame, path = some(1000), output_path(str(tmp_path / f"a{suffix}"))
    write_frame(frame, path)
    if suffix == ".parquet":
        assert pl.read_parquet(path).equals(frame)
        return
    lines = path.read_text().splitlines()
    assert lines[0] == "timestamp,UP,DOWN"
    assert [line.split(",")[0] for line in lines[1:3]] == [
        "1970-01-01T00:00:00Z",
        "1970-01-01T01:00:00Z",
    ]
    found = [[np.float32(word) for word in line.split(",")[1:]] for line in lines[1:]]
    assert np.array_equal(np.array(found, np.float32), frame.drop("timestamp").to_numpy())


def test_times_are_written_with_z_and_a_fraction_where_there_is_one() -> None:
    values = {"x": np.array([0.1, 1 / 3], np.float32)}
    plain = with_plain_values(to_frame(np.array([0, HOUR_US]), values))
    assert plain.rows() == [("1970-01-01T00:00:00Z", 0.1), ("1970-01-01T01:00:00Z", 0.33333334)]
    nothing = to_frame(np.array([0, 1]), {"x": np.array([np.nan, np.inf], np.float32)})
    assert with_plain_values(nothing)["x"].to_list() == [None, None]
    odd = with_plain_values(to_frame(np.array([0, HOUR_US + 5]), values))
    assert odd["timestamp"].to_list() == [
        "1970-01-01T00:00:00.000000Z",
        "1970-01-01T01:00:00.000005Z",
    ]


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_a_disk_that_is_full_leaves_what_was_there(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"a{suffix}"
    path.write_text("before")
    before, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.SIG_IGN
    old = signal.signal(signal.SIGXFSZ, handler)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        with pytest.raises(Usage, match=r"cannot write .*a\.\w+: "):
            write_frame(some(5000), path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, old)
    assert path.read_text() == "before"
    assert os.listdir(tmp_path) == [path.name]


@pytest.mark.parametrize("name", ["a.txt", "a", "no/a.csv", ".csv"])
def test_a_name_that_no_answer_can_have_is_refused(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(Usage):
        output_path(name)
    (tmp_path / "b.csv").mkdir()
    with pytest.raises(Usage, match="is a folder"):
        output_path("b.csv")
    endless = output_path("x" * 5000 + ".csv")
    with pytest.raises(Usage, match=r"cannot write x+: File name too long"):
        write_frame(some(3), endless)
