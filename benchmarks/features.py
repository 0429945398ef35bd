"""How quickly bars become features and labels, how quickly files become bars, and in what memory.

On 1.54 million real minutes of BTCUSD where they lie beside the repository, else on as many sample
bars, with plain pandas beside in turn where it can do the same: every indicator of the grammar; the
whole of `thirty_inputs.yaml` on one core; an import of a CSV file; a second run from the cache.
Rates are medians, by the wall clock and by processor time: both tell the same on an idle machine.

    python benchmarks/features.py [--json] [--rounds N]
"""

from __future__ import annotations

import argparse
import contextlib
import json
import multiprocessing
import os
import platform
import re
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import with_pandas

from ktrdr.data.bars import PRICE_COLUMNS, Bars
from ktrdr.data.importing.importer import import_file
from ktrdr.data.market import Market, gather, one_series
from ktrdr.data.resampling import resample
from ktrdr.data.sample import sample_bars
from ktrdr.data.store import BarStore
from ktrdr.features.cache import cached_dataset
from ktrdr.features.dataset import Dataset, build_dataset
from ktrdr.features.indicators import IndicatorOutputs
from ktrdr.strategy.candle_patterns import CANDLE_PATTERNS
from ktrdr.strategy.indicator_types import INDICATOR_CLASSES
from ktrdr.strategy.loading import load_strategy, with_overrides
from ktrdr.strategy.schema import Strategy

Seconds = tuple[float, float]  # by the wall clock, of the processor

REAL_BARS = Path(__file__).parents[2] / "shared" / "data" / "BTCUSD_1m.parquet"
STRATEGY = Path(__file__).with_name("thirty_inputs.yaml")
SYMBOL, TIMEFRAME, ROWS = "BTCUSD", "1m", 1_538_435
COLUMNS = ("timestamp", *PRICE_COLUMNS, "volume")
BEGUN_ALIKE = 20_000  # bars after which pandas' recursive averages and ours have the same past


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.add_argument("--rounds", type=int, default=5, help="times that each figure is taken")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        document = measure(Path(folder), options.rounds)
    print(json.dumps(document, indent=1) if options.json else table(document))


def measure(folder: Path, rounds: int) -> dict[str, Any]:
    bars, data = read_bars()
    np.save(folder / "bars.npy", np.array([getattr(bars, n) for n in COLUMNS[1:]]))
    np.save(folder / "stamps.npy", bars.timestamps)
    with on_one_core():
        one_core = {
            "indicators": in_child(indicator_speeds, folder, rounds),
            "dataset": in_child(dataset_speeds, folder, rounds),
            "two_timeframes": in_child(two_timeframes_speed, folder, rounds),
        }
    return {
        "machine": {"cpus": os.cpu_count(), "processor": platform.processor() or "unknown"},
        "versions": {"numpy": np.__version__, "pandas": version("pandas")},
        "data": data,
        "rows": len(bars),
        **one_core,
        "csv_import": import_speeds(bars, folder, rounds),
        "memory": in_child(memory, folder, rounds),
        "cache": cache_seconds(bars, folder, rounds),
    }


def read_bars() -> tuple[Bars, str]:
    """The real bars, or sample bars in their number; and which."""
    if not REAL_BARS.exists():
        return sample_bars(SYMBOL, TIMEFRAME, ROWS), f"sample bars: no {REAL_BARS.name} was found"
    frame = pl.read_parquet(REAL_BARS, columns=list(COLUMNS))
    numbers = [frame[name].to_numpy() for name in COLUMNS[1:]]
    stamps = frame["timestamp"].dt.epoch("us").to_numpy()
    return Bars(SYMBOL, TIMEFRAME, stamps, *numbers), REAL_BARS.name


def indicator_speeds(folder: Path, rounds: int) -> dict[str, Any]:
    """Bars per second by type, each with its default parameters, the slowest first."""
    bars = bars_in(folder)
    frame, alternatives = with_pandas.frame_of(bars), with_pandas.indicators()
    found: dict[str, Any] = {}
    for name, kind in INDICATOR_CLASSES.items():
        indicator, plain = kind(type=name), alternatives.get(name)
        ours, theirs = list[Seconds](), list[Seconds]()
        for _ in range(rounds):
            ours.append(timed(partial(_compute, indicator, bars)))
            if plain is not None:
                theirs.append(timed(partial(plain, frame)))
        found[name] = rates(len(bars), ours)
        if theirs:
            found[name]["pandas"] = rates(len(bars), theirs)
    return dict(sorted(found.items(), key=lambda item: item[1]["per_cpu_s"]))


def _compute(indicator: Any, bars: Bars) -> None:
    IndicatorOutputs({"it": indicator}, bars).series("it")


def dataset_speeds(folder: Path, rounds: int) -> dict[str, Any]:
    """Bars per second of the strategy's features and labels; and how alike pandas' are."""
    bars = bars_in(folder)
    strategy, market, frame = load_strategy(STRATEGY), one_series(bars), with_pandas.frame_of(bars)
    dataset = build_dataset(strategy, market)
    trained = dataset.timestamps[dataset.splits.train.start : dataset.splits.train.stop]
    train_rows = range(*np.searchsorted(bars.timestamps, trained[[0, -1]]).tolist())
    ours, theirs = list[Seconds](), list[Seconds]()
    for _ in range(rounds):
        ours.append(timed(lambda: build_dataset(strategy, market)))
        theirs.append(timed(lambda: _plain_dataset(frame, train_rows)))
    return {
        "shape": list(dataset.inputs.shape),
        **rates(len(bars), ours),
        "pandas": rates(len(bars), theirs),
        "agreement": _agreement(dataset, bars, _plain_dataset(frame, train_rows)),
    }


def _plain_dataset(frame: Any, train_rows: range) -> tuple[Any, Any]:
    return with_pandas.inputs(frame, train_rows), with_pandas.triple_barrier(frame)


def _agreement(dataset: Dataset, bars: Bars, plain: tuple[Any, Any]) -> dict[str, float]:
    """The shares of inputs within 1e-5 of pandas', and of labels that are the same.

    The other inputs are those whose window has next to no deviation: pandas keeps running sums.
    """
    rows = np.searchsorted(bars.timestamps, dataset.timestamps[BEGUN_ALIKE:])
    inputs, labels = plain
    return {
        "inputs_alike": float((np.abs(inputs[rows] - dataset.inputs[BEGUN_ALIKE:]) < 1e-5).mean()),
        "labels_same": float((labels[rows] == dataset.labels[BEGUN_ALIKE:]).mean()),
    }


def two_timeframes_speed(folder: Path, rounds: int) -> dict[str, Any]:
    """The same strategy with every input at 1m and at 1h."""
    bars = bars_in(folder)
    names = (TIMEFRAME, "1h")
    strategy = with_overrides(load_strategy(STRATEGY), {"timeframes": names})
    by_name = {TIMEFRAME: bars, "1h": resample(bars, "1h")}
    market = gather((SYMBOL,), names, TIMEFRAME, lambda _, timeframe: by_name[timeframe])
    taken = [timed(lambda: build_dataset(strategy, market)) for _ in range(rounds)]
    return {"inputs": 2 * 30, **rates(len(bars), taken)}


def import_speeds(bars: Bars, folder: Path, rounds: int) -> dict[str, Any]:
    """Rows per second of a CSV file with ISO times."""
    path = folder / "bars.csv"
    stamps = pl.Series(bars.timestamps).cast(pl.Datetime("us", "UTC")).dt.to_string("iso:strict")
    numbers = {name: getattr(bars, name) for name in COLUMNS[1:]}
    pl.DataFrame({"timestamp": stamps, **numbers}).write_csv(path)
    first = path.read_text().split("\n", 2)[1]
    ours, theirs = list[Seconds](), list[Seconds]()
    for _ in range(rounds):
        ours.append(timed(lambda: import_file(path, SYMBOL, TIMEFRAME)))
        theirs.append(timed(lambda: with_pandas.read_csv(path)))
    return {
        "first_row": first,
        **rates(len(bars), ours),
        "pandas": rates(len(bars), theirs),
    }


def memory(folder: Path, rounds: int) -> dict[str, Any]:
    """What `build_dataset` needs beside the bars, at its peak, over what its matrix takes."""
    del rounds
    bars, strategy = bars_in(folder), load_strategy(STRATEGY)
    build_dataset(strategy, one_series(bars.rows(0, 50_000)))  # what is needed once for all
    before = resident_bytes("VmRSS")
    dataset = build_dataset(strategy, one_series(bars))
    growth = resident_bytes("VmHWM") - before
    return {
        "matrix_bytes": dataset.inputs.nbytes,
        "growth_bytes": growth,
        "ratio": round(growth / dataset.inputs.nbytes, 2),
    }


def resident_bytes(which: str) -> int:
    """What this process takes (VmRSS), or took at most since it began (VmHWM)."""
    found = re.search(rf"{which}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1]) * 1024


def cache_seconds(bars: Bars, folder: Path, rounds: int) -> dict[str, Any]:
    """Seconds to a strategy's dataset: computed and stored, and found again.

    `second` has the market that it was made from in memory; `second_new_market` digests the same
    bars anew; `read_bars` is what reading them from the store takes before that.
    """
    strategy, market, root = load_strategy(STRATEGY), one_series(bars), folder / "storage"
    store = BarStore(root)
    store.write(bars)
    first = timed(lambda: cached_dataset(root, strategy, market))
    ways: dict[str, Callable[[], object]] = {
        "second": lambda: _load(root, strategy, market),
        "second_new_market": lambda: _load(root, strategy, one_series(bars)),
        "read_bars": lambda: store.read(SYMBOL, TIMEFRAME),
    }
    taken: dict[str, list[Seconds]] = {name: [] for name in ways}
    for _ in range(max(rounds, 5)):
        for name, way in ways.items():
            taken[name].append(timed(way))
    return {
        "first": {"s": round(first[0], 3), "cpu_s": round(first[1], 3)},
        **{name: _middle(seconds) for name, seconds in taken.items()},
    }


def _load(root: Path, strategy: Strategy, market: Market) -> None:
    assert not cached_dataset(root, strategy, market).inputs.flags.writeable  # a memory map


def bars_in(folder: Path) -> Bars:
    """The bars that `measure` left for its children."""
    return Bars(SYMBOL, TIMEFRAME, np.load(folder / "stamps.npy"), *np.load(folder / "bars.npy"))


@contextlib.contextmanager
def on_one_core() -> Iterator[None]:
    """What is started inside has one processor, and a polars of one thread."""
    allowed = os.sched_getaffinity(0)
    os.environ["POLARS_MAX_THREADS"] = "1"
    os.sched_setaffinity(0, {max(allowed)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, allowed)
        del os.environ["POLARS_MAX_THREADS"]


def in_child(job: Callable[[Path, int], Any], folder: Path, rounds: int) -> Any:
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as child:
        return child.submit(job, folder, rounds).result()


def timed(work: Callable[[], object]) -> Seconds:
    began, used = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - began, time.process_time() - used


def rates(rows: int, taken: list[Seconds]) -> dict[str, Any]:
    wall, used = (statistics.median(column) for column in zip(*taken, strict=True))
    return {"per_s": round(rows / wall), "per_cpu_s": round(rows / used)}


def _middle(taken: list[Seconds]) -> dict[str, float]:
    wall, used = (statistics.median(column) for column in zip(*taken, strict=True))
    return {"s": round(wall, 3), "cpu_s": round(used, 3)}


def table(document: dict[str, Any]) -> str:
    lines = [
        f"{document['rows']:,} bars of {document['data']}; millions of rows per second, in "
        "brackets per second of the processor",
        _line("features and labels, one core", document["dataset"]),
        _line("  every input at 1m and 1h", document["two_timeframes"]),
        _line("CSV import", document["csv_import"]),
        f"memory: {document['memory']['ratio']} times the matrix",
        f"cache, seconds: {document['cache']}",
        f"agreement with pandas: {document['dataset']['agreement']}",
        "indicators, the slowest first; of the candle patterns the slowest only:",
    ]
    patterns = [name for name in document["indicators"] if name in CANDLE_PATTERNS]
    for name, found in document["indicators"].items():
        if name not in patterns[1:]:
            lines.append(_line(f"  {name}", found))
    return "\n".join(lines)


def _line(name: str, found: dict[str, Any]) -> str:
    beside = f"   pandas {_rate(found['pandas'])}" if "pandas" in found else ""
    return f"{name:32} {_rate(found)}{beside}"


def _rate(found: dict[str, Any]) -> str:
    return f"{found['per_s'] / 1e6:7.2f} ({found['per_cpu_s'] / 1e6:.2f})"


if __name__ == "__main__":
    main()
