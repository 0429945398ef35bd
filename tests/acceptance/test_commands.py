"""Commands that need no training: bars, strategies, empty lists, start-up, the frozen surface."""

from __future__ import annotations

import gzip
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from running import PROGRAM, Run

from ktrdr import __version__
from ktrdr.cli.main import app

ROOT = Path(__file__).parents[2]
REAL_BARS = ROOT.parent / "shared" / "data" / "EURUSD_5m.csv.gz"
COMMON = "--home --database-url --storage --json"
SURFACE = {
    "train": "STRATEGY --symbols --timeframes --start-date --end-date --epochs --seed --detach",
    "up": "",
    "down": "",
    "nodes": "",
    "verify-resume": "STRATEGY --symbols --timeframes --start-date --end-date --epochs --seed"
    " --kills --chaos-seed",
    "operations list": "--status --strategy --limit --offset",
    "operations status": "ID",
    "operations cancel": "ID --no-wait --kill",
    "operations resume": "ID --verbose --strategy --allow-changes --detach",
    "operations rerun": "ID --detach",
    "operations watch": "[ID]...",
    "operations events": "ID",
    "operations history": "ID",
    "operations why": "ID",
    "operations delete": "ID",
    "checkpoints list": "",
    "checkpoints show": "ID",
    "checkpoints verify": "ID",
    "checkpoints delete": "ID",
    "checkpoints cleanup": "--older-than --orphans --yes",
    "models list": "",
    "models show": "NAME[@vN]",
    "models rules": "NAME[@vN] --top --plot",
    "models predict": "NAME[@vN] --symbol --timeframe --from --to --out",
    "models evaluate": "NAME[@vN] --symbol --from --to --plot",
    "strategies list": "",
    "strategies validate": "FILE",
    "strategies show": "FILE",
    "strategies migrate": "FILE --out",
    "data import": "FILE --symbol --timeframe --format --timezone --price-scale --fix",
    "strategies check": "FILE --symbols --timeframes --start-date --end-date --points --seed",
    "data list": "",
    "data show": "SYMBOL TF",
    "data sample": "",
    "data check": "SYMBOL TF",
}
HEAVY = ("torch", "ray", "polars", "pyarrow", "talib", "alembic", "rich")


def test_the_surface_is_exactly_this() -> None:
    root = typer.main.get_command(app)
    found: dict[str, str] = {}
    for name, command in root.commands.items():  # type: ignore[attr-defined]
        inner = getattr(command, "commands", {"": command})
        for verb, leaf in inner.items():
            words = [
                p.metavar if p.param_type_name == "argument" else p.opts[0] for p in leaf.params
            ]
            found[f"{name} {verb}".strip()] = " ".join(words)
    assert found == {name: f"{own} {COMMON}".strip() for name, own in SURFACE.items()}


def test_generated_pages_are_up_to_date() -> None:
    check = [sys.executable, str(ROOT / "scripts" / "docs"), "--check"]
    done = subprocess.run(check, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize(
    ("words", "unwanted"),
    [(["--help"], (*HEAVY, "pydantic", "numpy")), (["operations", "list", "--json"], HEAVY)],
    ids=["help", "list"],
)
def test_start_up_loads_nothing_heavy(
    words: list[str], unwanted: tuple[str, ...], environment: dict[str, str], ktrdr: Run
) -> None:
    ktrdr("operations", "list")  # makes the store: its first opening needs alembic
    code = "import sys; from ktrdr.cli.main import run; status = run(sys.argv[1:]);"
    code += f"print([m for m in {unwanted!r} if m in sys.modules], status, file=sys.stderr)"
    done = subprocess.run(
        [sys.executable, "-c", code, *words],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stderr == "[] 0\n"


def test_version_and_help_are_plain(program: Run, ktrdr: Run) -> None:
    ran = program("--version")
    assert (ran.status, ran.out, ran.err) == (0, f"ktrdr {__version__}\n", "")
    assert ktrdr("--help").out == ktrdr().out
    for name in SURFACE:
        ran = ktrdr(*name.split(), "--help", "--json")
        assert ran.status == 0
        assert ran.out.startswith(f"Usage: ktrdr {name} ")


def test_lists_of_an_empty_home(
    ktrdr: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for words, name in (
        (["operations", "list"], "operations"),
        (["operations", "list", "--status", "failed"], "operations"),
        (["checkpoints", "list"], "checkpoints"),
        (["models", "list"], "models"),
        (["data", "list"], "bars"),
        (["strategies", "list"], "strategies"),
    ):
        ran = ktrdr(*words, "--json")
        assert (ran.status, ran.document, ran.err) == (0, {name: [], "total": 0}, "")
        ran = ktrdr(*words)
        assert ran.status == 0
        assert len(ran.out.splitlines()) == 1


def test_flags_go_before_the_environment(ktrdr: Run, home: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    assert ktrdr("data", "sample", "--home", str(other)).status == 0
    assert (other / "storage" / "bars" / "SAMPLE" / "1h.parquet").is_file()
    assert not home.exists()
    ktrdr("data", "sample", "--storage", str(tmp_path / "elsewhere"))
    assert (tmp_path / "elsewhere" / "bars" / "SAMPLE" / "1h.parquet").is_file()
    url = f"sqlite:///{tmp_path / 'mine.db'}"
    assert ktrdr("operations", "list", "--database-url", url).status == 0
    assert (tmp_path / "mine.db").is_file()


def test_sample_bars_are_labelled_and_always_the_same(ktrdr: Run) -> None:
    first = ktrdr("data", "sample", "--json").document
    assert first["source"] == "synthetic"
    assert first["old_range"] is None
    shown = ktrdr("data", "show", "SAMPLE", "1h", "--json").document
    assert (shown["source"], shown["rows"]) == ("synthetic", first["rows"])
    again = ktrdr("data", "sample", "--json").document
    assert again["old_range"] == again["new_range"] == first["new_range"]
    assert ktrdr("data", "show", "SAMPLE", "1h", "--json").document == shown
    assert "synthetic" in ktrdr("data", "list").out


def test_an_import_replaces_and_says_the_old_range_and_the_new(ktrdr: Run, tmp_path: Path) -> None:
    rows = [f"2024-01-01 {h:02}:00,1,2,0.5,1.5,{h}" for h in range(6)]
    head = "timestamp,open,high,low,close,volume"
    path = tmp_path / "a.csv.gz"
    words = ["data", "import", str(path), "--symbol", "A", "--timeframe", "1h"]
    path.write_bytes(gzip.compress("\n".join([head, *rows[:4]]).encode()))
    assert "none were stored before" in ktrdr(*words).out
    path.write_bytes(gzip.compress("\n".join([head, *rows, rows[0]]).encode()))
    refused = ktrdr(*words, "--json")
    assert (refused.status, refused.error["code"]) == (2, "INVALID_DATA")
    assert refused.error["details"]["problems"] == {"duplicate": {"count": 1, "lines": [8]}}
    fixed = ktrdr(*words, "--fix", "--timezone", "Europe/Berlin", "--json").document
    assert (fixed["rows"], fixed["dropped"]) == (6, {"duplicate": 1})
    assert fixed["old_range"]["last"] == "2024-01-01T03:00:00Z"
    assert fixed["new_range"] == {"first": "2023-12-31T23:00:00Z", "last": "2024-01-01T04:00:00Z"}
    shown = ktrdr("data", "show", "A", "1h", "--json").document
    assert [row["volume"] for row in shown["head"] + shown["tail"]] == [0, 1, 2, 3, 4, 5]
    assert shown["imported_from"] == str(path)


@pytest.mark.skipif(not REAL_BARS.exists(), reason="the real bars are not here")
def test_real_bars_are_imported_whole(program: Run) -> None:
    words = ["data", "import", str(REAL_BARS), "--symbol", "EURUSD", "--timeframe", "5m"]
    ran = program(*words, "--json")
    assert (ran.status, ran.err) == (0, "")
    assert (ran.document["rows"], ran.document["dropped"]) == (75_519, {})


def test_shipped_strategies_are_listed_valid_and_shown_whole(
    ktrdr: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    listed = ktrdr("strategies", "list", "--json").document["strategies"]
    assert {s["name"] for s in listed} >= {"trend_follower", "mean_reversion"}
    for strategy in listed:
        assert strategy["error"] is None
        checked = ktrdr("strategies", "validate", strategy["path"], "--json").document
        assert (checked["valid"], checked["notes"]) == (True, [])
        assert checked["fingerprint"] == strategy["fingerprint"]
        shown = ktrdr("strategies", "show", strategy["path"], "--json").document
        assert shown["config"]["training"]["checkpoint"]["every_seconds"] > 0


def test_what_a_strategy_says_without_effect_is_noted(ktrdr: Run, tmp_path: Path) -> None:
    path = tmp_path / "decided.yaml"
    shipped = (ROOT / "strategies" / "trend_follower.yaml").read_text()
    path.write_text(shipped.replace("decisions:", "decisions:\n  confidence_threshold: 0.6"))
    assert "not used in training" in ktrdr("strategies", "validate", str(path)).out


def test_what_strategies_show_prints_is_the_same_strategy(ktrdr: Run, tmp_path: Path) -> None:
    shipped = str(ROOT / "strategies" / "mean_reversion.yaml")
    copy = tmp_path / "copy.yaml"
    copy.write_text(ktrdr("strategies", "show", shipped).out)
    fingerprints = [
        ktrdr("strategies", "validate", str(path), "--json").document["fingerprint"]
        for path in (shipped, copy)
    ]
    assert fingerprints[0] == fingerprints[1]


def test_a_reader_that_goes_away_is_no_error(environment: dict[str, str], ktrdr: Run) -> None:
    ktrdr("operations", "list")
    words = f"'{PROGRAM}' operations list --json; echo $? >&2"
    done = subprocess.run(
        ["bash", "-c", f"({words}) | true"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stderr == "0\n"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_an_answer_that_cannot_be_stored_is_an_error(environment: dict[str, str]) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [PROGRAM, "strategies", "list", "--json"],
            env=environment,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
        )
    assert done.returncode == 1
    assert done.stderr.startswith("error: cannot write the answer")
    assert len(done.stderr.splitlines()) == 1
