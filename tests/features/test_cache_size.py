"""The cache keeps to its size: least recently used first, never what is in use, no litter."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from ktrdr.data.market import Market, one_series
from ktrdr.data.sample import sample_bars
from ktrdr.errors import StorageUnavailable
from ktrdr.features.cache import cached_dataset, dataset_key, prepare_dataset, trim
from ktrdr.features.dataset import build_dataset
from ktrdr.strategy.loading import validate_strategy

STRATEGY = validate_strategy(
    {
        "name": "test",
        "training_data": {
            "symbols": {"symbol": "SAMPLE"},
            "timeframes": {"timeframe": "1h"},
            "history_required": 100,
        },
        "indicators": {"r": {"type": "rsi"}},
        "fuzzy_sets": {"level": {"indicator": "r", "low": [0, 30, 50], "high": [50, 70, 100]}},
        "nn_inputs": [{"fuzzy_set": "level"}],
        "model": {"type": "mlp"},
        "decisions": {"output_format": "regression"},
        "training": {"labels": {"source": "forward_return"}},
    },
    "test",
)
MARKETS = [one_series(sample_bars(rows=2000, seed=seed)) for seed in range(4)]

MAP_AND_WAIT = """
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from ktrdr.features.cache_entry import load_entry
labels = load_entry(Path(sys.argv[1])).labels
print("mapped", flush=True)
sys.stdin.read()
"""


def entry_of(root: Path, market: Market) -> Path:
    return root / "features" / dataset_key(STRATEGY, market.fingerprint)


def prepare(root: Path, market: Market, limit: int | None = None) -> Path:
    """Store a dataset; its age is that of its position in MARKETS, the first the oldest."""
    prepare_dataset(root, STRATEGY, market, limit=limit)
    entry, age = entry_of(root, market), 1000 - MARKETS.index(market)
    now = entry.stat().st_mtime
    os.utime(entry / "manifest.json", (now - age, now - age))
    return entry


def size_of(entry: Path) -> int:
    return sum(path.stat().st_size for path in entry.iterdir())


def kept(root: Path) -> set[Path]:
    return set((root / "features").iterdir()) - {root / "features" / ".lock"}


def test_the_least_recently_used_go_first(tmp_path: Path) -> None:
    first, second, third = (prepare(tmp_path, market) for market in MARKETS[:3])
    prepare_dataset(tmp_path, STRATEGY, MARKETS[0])  # used again
    newest = prepare(tmp_path, MARKETS[3], limit=3 * size_of(first))
    assert kept(tmp_path) == {first, third, newest}
    assert not second.exists()


def test_mapping_a_dataset_is_using_it(tmp_path: Path) -> None:
    first, second = (prepare(tmp_path, market) for market in MARKETS[:2])
    cached_dataset(tmp_path, STRATEGY, MARKETS[0])
    trim(tmp_path / "features", size_of(second))
    assert kept(tmp_path) == {first}


def test_below_the_limit_everything_stays(tmp_path: Path) -> None:
    entries = {prepare(tmp_path, market) for market in MARKETS}
    trim(tmp_path / "features", sum(map(size_of, entries)))
    assert kept(tmp_path) == entries


def test_what_was_just_added_stays_though_it_is_larger_than_the_limit(tmp_path: Path) -> None:
    prepare(tmp_path, MARKETS[0])
    newest = prepare(tmp_path, MARKETS[1], limit=0)
    assert kept(tmp_path) == {newest}


def test_what_a_live_process_has_mapped_stays_until_it_dies(tmp_path: Path) -> None:
    entry = prepare(tmp_path, MARKETS[0])
    words = [sys.executable, "-c", MAP_AND_WAIT, str(entry)]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as reader:
        assert reader.stdout is not None
        assert reader.stdout.readline() == b"mapped\n"
        trim(tmp_path / "features", 0)
        assert kept(tmp_path) == {entry}
        reader.kill()
        reader.wait()
        trim(tmp_path / "features", 0)
    assert kept(tmp_path) == set()


def test_one_array_of_a_dataset_is_enough_to_keep_it(tmp_path: Path) -> None:
    built = build_dataset(STRATEGY, MARKETS[0])
    inputs = cached_dataset(tmp_path, STRATEGY, MARKETS[0]).inputs[10:]
    trim(tmp_path / "features", 0)
    assert np.array_equal(inputs, built.inputs[10:])
    assert len(kept(tmp_path)) == 1
    del inputs
    trim(tmp_path / "features", 0)
    assert kept(tmp_path) == set()


def test_files_of_dead_writers_are_removed(tmp_path: Path) -> None:
    entry = prepare(tmp_path, MARKETS[0])
    for name in (".tmp-", ".trash-"):
        left = entry.with_name(f"{name}{entry.name}-dead")
        left.mkdir()
        (left / "inputs.npy").write_bytes(b"half a fi")
    newest = prepare(tmp_path, MARKETS[1], limit=10**9)
    assert kept(tmp_path) == {entry, newest}


def test_files_of_a_live_writer_stay(tmp_path: Path) -> None:
    entry = prepare(tmp_path, MARKETS[0])
    wait_in_the_middle = (
        "import sys; from pathlib import Path; import numpy as np\n"
        "from ktrdr.features import cache_entry\n"
        "entry = Path(sys.argv[1]); dataset = cache_entry.load_entry(entry)\n"
        "def wait(*_, **__): print('writing', flush=True); sys.stdin.read()\n"
        "cache_entry.np.save = wait\n"
        "cache_entry.store_entry(entry.with_name('0' * 64), dataset)\n"
    )
    words = [sys.executable, "-c", wait_in_the_middle, str(entry)]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == b"writing\n"
        before = kept(tmp_path)
        trim(tmp_path / "features", 0)
        assert kept(tmp_path) == before
        assert len(before) == 2
        writer.kill()
        writer.wait()
        trim(tmp_path / "features", 0)
    assert kept(tmp_path) == set()


def test_what_cannot_be_removed_does_not_keep_the_rest(tmp_path: Path) -> None:
    first, second = (prepare(tmp_path, market) for market in MARKETS[:2])
    odd = [first.with_name("0" * 64), first.with_name(".trash-odd")]  # files, not folders
    for path in odd:
        path.write_text("odd")
    trim(tmp_path / "features", size_of(second))
    assert kept(tmp_path) == {second, *odd}


def test_many_at_once_find_the_right_dataset_while_all_trim(tmp_path: Path) -> None:
    """With no room at all, every addition removes what nobody has mapped just then."""
    expected = {market: build_dataset(STRATEGY, market) for market in MARKETS}

    def work(turn: int) -> bool:
        market = MARKETS[turn % len(MARKETS)]
        digest = prepare_dataset(tmp_path, STRATEGY, market, limit=0)
        found = cached_dataset(tmp_path, STRATEGY, market)
        same = found.inputs.tobytes() == expected[market].inputs.tobytes()
        return same and found.digest == digest == expected[market].digest

    with ThreadPoolExecutor(8) as threads:
        assert all(threads.map(work, range(200)))
    trim(tmp_path / "features", 0)
    assert kept(tmp_path) == set()


def test_what_is_no_entry_is_left_alone(tmp_path: Path) -> None:
    prepare(tmp_path, MARKETS[0])
    note = tmp_path / "features" / "note.txt"
    note.write_text("mine")
    trim(tmp_path / "features", 0)
    assert kept(tmp_path) == {note}


@pytest.mark.parametrize("name", ["manifest.json", "inputs.npy"])
def test_an_error_of_the_disk_is_no_miss(tmp_path: Path, name: str) -> None:
    entry = prepare(tmp_path, MARKETS[0])
    (entry / name).unlink()
    (entry / name).symlink_to(name)  # to itself: the operating system gives up
    for read in (cached_dataset, prepare_dataset):
        with pytest.raises(StorageUnavailable, match=r"cannot read features from .*: Too many"):
            read(tmp_path, STRATEGY, MARKETS[0])
    assert entry.is_dir()


def test_a_stored_dataset_is_prepared_without_reading_its_arrays(tmp_path: Path) -> None:
    """Whoever maps it verifies it, once."""
    entry = prepare(tmp_path, MARKETS[0])
    digest = build_dataset(STRATEGY, MARKETS[0]).digest
    damaged = bytearray((entry / "inputs.npy").read_bytes())
    damaged[-1] ^= 1
    (entry / "inputs.npy").write_bytes(damaged)
    assert prepare_dataset(tmp_path, STRATEGY, MARKETS[0]) == digest
    assert cached_dataset(tmp_path, STRATEGY, MARKETS[0]).inputs.tobytes() != damaged
    assert (entry / "inputs.npy").read_bytes() != damaged


@pytest.mark.parametrize("damage", ["absent", "shorter", "manifest"])
def test_what_is_seen_to_be_damaged_is_prepared_again(tmp_path: Path, damage: str) -> None:
    entry = prepare(tmp_path, MARKETS[0])
    content = (entry / "labels.npy").read_bytes()
    if damage == "absent":
        (entry / "labels.npy").unlink()
    elif damage == "shorter":
        (entry / "labels.npy").write_bytes(content[:-1])
    else:
        (entry / "manifest.json").write_text("{}")
    prepare_dataset(tmp_path, STRATEGY, MARKETS[0])
    assert (entry / "labels.npy").read_bytes() == content
