"""Mistakes of a user: the right exit status and code, one line, no traceback, nothing changed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from running import Ran, Run

UNKNOWN = "op_training_20200101_000000_0123abcd"
BAD_WORDS = ["..", "../../etc/passwd", "a/b", " ", "", "x" * 10_000, "a\x1b[31m\nb", "naïve\udcff"]
STRATEGY = str(Path(__file__).parents[2] / "strategies" / "trend_follower.yaml")


def check_refusal(ran: Ran, status: int, code: str) -> None:
    assert (ran.status, ran.error["code"]) == (status, code)
    assert set(ran.error) == {"code", "message", "details"}
    assert len(ran.err.splitlines()) == 1
    assert ran.err.startswith("error: ")
    assert ran.err.rstrip("\n").isprintable()
    assert len(ran.err) < 1000
    assert "Traceback" not in ran.err + ran.out


@pytest.mark.parametrize("word", BAD_WORDS, ids=range(len(BAD_WORDS)))
def test_malformed_ids_names_and_symbols_are_refused_everywhere(ktrdr: Run, word: str) -> None:
    for verb in ("status", "cancel", "resume", "events", "history"):
        check_refusal(ktrdr("operations", verb, word, "--json"), 2, "INVALID_ID")
    check_refusal(ktrdr("checkpoints", "show", word, "--json"), 2, "INVALID_ID")
    check_refusal(ktrdr("models", "show", word, "--json"), 2, "INVALID_ID")
    check_refusal(ktrdr("data", "show", word, "1h", "--json"), 2, "USAGE")
    check_refusal(ktrdr("data", "show", "EURUSD", word, "--json"), 2, "USAGE")
    check_refusal(ktrdr("train", STRATEGY, "--symbols", word, "--json"), 2, "USAGE")
    check_refusal(ktrdr("train", STRATEGY, "--start-date", word, "--json"), 2, "USAGE")
    assert ktrdr("operations", "list", "--json").document["total"] == 0


def test_what_is_not_there_is_status_3(ktrdr: Run, tmp_path: Path) -> None:
    for verb in ("status", "cancel", "resume", "events", "history"):
        ran = ktrdr("operations", verb, UNKNOWN, "--json")
        check_refusal(ran, 3, "OPERATION_NOT_FOUND")
    check_refusal(ktrdr("checkpoints", "show", UNKNOWN, "--json"), 3, "OPERATION_NOT_FOUND")
    check_refusal(ktrdr("models", "show", "nobody@v3", "--json"), 3, "MODEL_NOT_FOUND")
    check_refusal(ktrdr("data", "show", "EURUSD", "5m", "--json"), 3, "DATA_NOT_FOUND")
    check_refusal(ktrdr("train", STRATEGY, "--json"), 3, "DATA_NOT_FOUND")
    gone = str(tmp_path / "gone.yaml")
    for words in (["train", gone], ["strategies", "validate", gone], ["strategies", "show", gone]):
        check_refusal(ktrdr(*words, "--json"), 3, "STRATEGY_NOT_FOUND")
    assert ktrdr("operations", "list", "--json").document["total"] == 0


def test_usage_errors_are_one_document_and_one_line(ktrdr: Run) -> None:
    for words in (
        ["nonsense"],
        ["operations"],
        ["operations", "list", "--nonsense"],
        ["operations", "list", "--status", "sleeping"],
        ["operations", "status"],
        ["operations", "status", "a", "b"],
        ["train"],
        ["train", STRATEGY, "--epochs", "0"],
        ["train", STRATEGY, "--epochs", "many"],
        ["train", STRATEGY, "--seed", "-1"],
        ["train", STRATEGY, "--workers", "2"],
        ["train", STRATEGY, "--symbols", "A,,B"],
        ["train", STRATEGY, "--start-date", "2020-02-30"],
        ["data", "import", "x.csv", "--symbol", "A"],
        ["data", "import", "x.csv", "--symbol", "A", "--timeframe", "1h"],
        ["data", "list", "--storage", "s3://bucket"],
    ):
        check_refusal(ktrdr(*words, "--json"), 2, "USAGE")


def test_a_wrong_strategy_names_every_mistake_with_path_and_nearest_name(
    ktrdr: Run, tmp_path: Path
) -> None:
    path = tmp_path / "wrong.yaml"
    text = Path(STRATEGY).read_text().replace("epochs: 30", "epochs: many\n  learning_rat: 1")
    path.write_text(text.replace("{type: roc,", "{type: rock,"))
    for words in (["strategies", "validate"], ["strategies", "show"], ["train"]):
        ran = ktrdr(*words, str(path), "--json")
        check_refusal(ran, 2, "INVALID_STRATEGY")
        paths = {problem["path"] for problem in ran.error["details"]["problems"]}
        assert paths == {"training.epochs", "training.learning_rat", "indicators.roc_10"}
        assert "did you mean learning_rate?" in ran.err


def test_junk_is_no_bars(ktrdr: Run, tmp_path: Path) -> None:
    for name, junk in (("a.csv", b"hello\nworld\n"), ("b.csv.gz", b"no gzip"), ("c.parquet", b"")):
        path = tmp_path / name
        path.write_bytes(junk)
        ran = ktrdr("data", "import", str(path), "--symbol", "A", "--timeframe", "1h", "--json")
        check_refusal(ran, 2, "INVALID_DATA")
    assert ktrdr("data", "list", "--json").document == {"bars": [], "total": 0}


def test_the_program_itself_says_it_in_one_line_without_json(program: Run) -> None:
    ran = program("operations", "status", "../x\x1b[31m" + "y" * 10_000)
    assert (ran.status, ran.out) == (2, "")
    assert len(ran.err.splitlines()) == 1
    assert "\x1b" not in ran.err
    assert len(ran.err) < 300


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere")
def test_a_home_that_is_read_only_is_status_6(ktrdr: Run, home: Path) -> None:
    home.mkdir(mode=0o500)
    check_refusal(ktrdr("operations", "list", "--json"), 6, "STORE_UNAVAILABLE")


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs /proc, which nobody can fill")
def test_a_home_that_cannot_be_made_is_status_6(ktrdr: Run) -> None:
    for words in (["operations", "list"], ["data", "sample"], ["train", STRATEGY]):
        check_refusal(ktrdr(*words, "--home", "/proc/ktrdr", "--json"), 6, "STORE_UNAVAILABLE")


def test_a_home_that_is_no_folder_is_status_6(ktrdr: Run, home: Path) -> None:
    home.write_text("a file")
    check_refusal(ktrdr("operations", "list", "--json"), 6, "STORE_UNAVAILABLE")
    home.unlink()
    home.mkdir()
    (home / "ktrdr.db").write_text("no database, but long enough to be looked at" * 50)
    check_refusal(ktrdr("operations", "list", "--json"), 6, "STORE_UNAVAILABLE")


def test_a_storage_that_cannot_be_made_is_status_6(ktrdr: Run, home: Path) -> None:
    home.mkdir()
    (home / "storage").write_text("a file")
    check_refusal(ktrdr("data", "sample", "--json"), 6, "STORAGE_UNAVAILABLE")


def test_a_database_password_is_never_shown(ktrdr: Run) -> None:
    url = "postgresql+psycopg2://user:sesame@127.0.0.1:1/none"
    ran = ktrdr("operations", "list", "--database-url", url, "--json")
    check_refusal(ran, 6, "STORE_UNAVAILABLE")
    assert "sesame" not in ran.out + ran.err
