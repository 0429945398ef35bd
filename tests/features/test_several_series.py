"""Several timeframes and symbols in one strategy: each symbol for itself, then side by side."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from ktrdr.data.bars import Bars
from ktrdr.data.market import Market, gather
from ktrdr.data.sample import sample_bars
from ktrdr.errors import InvalidData, InvalidStrategy
from ktrdr.features.cache import cached_dataset, dataset_key
from ktrdr.features.cuts import SPLITS
from ktrdr.features.dataset import Dataset, build_dataset
from ktrdr.features.indicators import IndicatorOutputs
from ktrdr.features.labels import make_labels
from ktrdr.features.pipeline import compute_inputs
from ktrdr.strategy.loading import validate_strategy, with_overrides
from ktrdr.strategy.schema import Strategy
from ktrdr.training.batches import Split

HOUR_US = 3_600_000_000
SYMBOLS = ("ONE", "TWO")
ROWS = 1800


def content(**changes: Any) -> dict[str, Any]:
    """Two symbols at two timeframes, all kinds of inputs."""
    return {
        "name": "several",
        "training_data": {
            "symbols": {"mode": "multi_symbol", "list": list(SYMBOLS)},
            "timeframes": {"mode": "multi_timeframe", "list": ["4h", "1h"], "resample": True},
            "history_required": 60,
        },
        "indicators": {
            "r": {"type": "rsi", "period": 7},
            "m": {"type": "macd", "fast_period": 3, "slow_period": 6, "signal_period": 3},
        },
        "fuzzy_sets": {
            "level": {"indicator": "r", "high": [40, 70, 100], "low": [0, 30, 60]},
            "turn": {"indicator": "m.histogram", "auto": 3},
        },
        "nn_inputs": [
            {"fuzzy_set": "turn"},
            {"raw_indicator": "m.line", "timeframes": ["4h"], "normalization": "zscore"},
            {"fuzzy_set": "level", "timeframes": ["1h"]},
            {"raw_indicator": "r", "normalization": "minmax"},
            {"raw_indicator": "m", "timeframes": ["1h"], "normalization": "robust"},
            {"raw_indicator": "m.signal", "timeframes": ["1h"]},
        ],
        "model": {"type": "mlp"},
        "training": {"labels": BARRIER},
    } | changes


BARRIER = {"source": "triple_barrier", "max_holding_period": 8, "vol_span": 20}
ZIGZAG = {"source": "zigzag", "zigzag_threshold": 0.015}
SEQUENCES = {"type": "lstm", "architecture": {"sequence_length": 5}}
NAMES = (
    "4h_turn_low", "4h_turn_medium", "4h_turn_high",
    "1h_turn_low", "1h_turn_medium", "1h_turn_high",
    "4h_m.line_raw",
    "1h_level_high", "1h_level_low",
    "4h_r_raw", "1h_r_raw",
    "1h_m_raw",
    "1h_m.signal_raw",
)  # fmt: skip


def strategy(**changes: Any) -> Strategy:
    return validate_strategy(content(**changes), "test")


def bars_of(symbol: str, seed: int, gap: int = 0) -> Bars:
    """A market with its own closed hours: every so many bars one is missing."""
    bars = sample_bars(symbol, rows=ROWS, seed=seed)
    if not gap:
        return bars
    kept = np.arange(ROWS) % gap != 3
    columns = {n: getattr(bars, n)[kept] for n in ("open", "high", "low", "close", "volume")}
    return replace(bars, timestamps=bars.timestamps[kept], **columns)


BARS = {"ONE": bars_of("ONE", 7), "TWO": bars_of("TWO", 8, gap=50)}


def market(of: Strategy, bars: dict[str, Bars] | None = None) -> Market:
    found = bars or BARS
    return gather(
        of.symbols,
        of.timeframes,
        of.base_timeframe,
        lambda symbol, timeframe: found[symbol] if timeframe == "1h" else None,
        lambda _: ["1h"],
    )


def dataset(of: Strategy, bars: dict[str, Bars] | None = None, fold: int = 1) -> Dataset:
    return build_dataset(of, market(of, bars), fold)


def rows_of(found: Dataset, symbol: str) -> dict[int, tuple[str, bytes, float]]:
    """By moment what a symbol's row is: its split, inputs and label."""
    rows = {}
    for part in found.segments:
        for row in range(part.start, part.stop):
            if part.symbol == symbol:
                [split] = [name for name in SPLITS if row in getattr(found.splits, name)]
                label = float(found.labels[row])
                rows[int(found.timestamps[row])] = (split, found.inputs[row].tobytes(), label)
    return rows


def test_columns_are_inputs_then_timeframes_then_memberships() -> None:
    found = dataset(strategy())
    assert found.input_names == NAMES
    assert found.inputs.shape[1] == len(NAMES)


@pytest.mark.parametrize("labels", [BARRIER, ZIGZAG], ids=lambda labels: labels["source"])
@pytest.mark.parametrize("model", [{"type": "mlp"}, SEQUENCES], ids=lambda m: m["type"])
def test_each_row_is_what_its_symbol_alone_would_show(
    labels: dict[str, Any], model: dict[str, Any]
) -> None:
    of = strategy(training={"labels": labels}, model=model)
    found = dataset(of)
    for symbol in SYMBOLS:
        alone = compute_inputs(of, market(of), symbol, found.transforms)
        truth = make_labels(of.training.labels, BARS[symbol])
        indices = {int(stamp): i for i, stamp in enumerate(alone.base.timestamps)}
        rows = rows_of(found, symbol)
        assert len(rows) > 1000
        for moment, (_, inputs, label) in rows.items():
            place = indices[moment]
            assert inputs == alone.matrix[place - alone.first].tobytes()
            assert truth.valid[place] or model == SEQUENCES
            assert label == truth.values[place]


def test_every_split_has_both_symbols_cut_at_the_same_moments() -> None:
    found = dataset(strategy())
    spans = {
        (symbol, split): sorted(m for m, row in rows_of(found, symbol).items() if row[0] == split)
        for symbol in SYMBOLS
        for split in SPLITS
    }
    for split in SPLITS[1:]:
        begins = [spans[symbol, split][0] for symbol in SYMBOLS]
        assert abs(begins[0] - begins[1]) <= HOUR_US
    for symbol in SYMBOLS:
        for before, after in (SPLITS[:2], SPLITS[1:]):
            assert spans[symbol, after][0] - spans[symbol, before][-1] >= 9 * HOUR_US


def test_features_of_one_symbol_are_never_paired_with_labels_of_another() -> None:
    """Another market of one symbol changes that symbol's rows only."""
    of = strategy(nn_inputs=[{"fuzzy_set": "level"}])
    before = dataset(of)
    after = dataset(of, BARS | {"TWO": bars_of("TWO", 99, gap=50)})
    assert rows_of(before, "ONE") == rows_of(after, "ONE")
    two, other = rows_of(before, "TWO"), rows_of(after, "TWO")
    assert two.keys() == other.keys()
    differing = sum(two[moment][1:] != other[moment][1:] for moment in two)
    assert differing > 0.9 * len(two)


def test_the_order_of_symbols_orders_rows_and_changes_none() -> None:
    of = strategy(nn_inputs=[{"fuzzy_set": "level"}])
    swapped = with_overrides(of, {"symbols": ["TWO", "ONE"]})
    one, two = dataset(of), dataset(swapped)
    assert [part.symbol for part in one.segments] == ["ONE", "TWO"] * 3
    assert [part.symbol for part in two.segments] == ["TWO", "ONE"] * 3
    for symbol in SYMBOLS:
        assert rows_of(one, symbol) == rows_of(two, symbol)


@pytest.mark.parametrize(
    "split",
    [{"mode": "chronological"}, {"mode": "purged_kfold", "folds": 3, "validation": 0.4}],
    ids=lambda s: s["mode"],
)
@pytest.mark.parametrize("thinned", [False, True])
def test_every_sequence_is_consecutive_bars_of_one_symbol_and_split(
    split: dict[str, Any], thinned: bool
) -> None:
    labels = BARRIER | ({"cusum_threshold": 0.01} if thinned else {})
    of = strategy(model=SEQUENCES, training={"labels": labels, "data_split": split})
    found = dataset(of, fold=2 if split["mode"] == "purged_kfold" else 1)
    marks = np.arange(len(found.inputs), dtype=np.float32)  # each row says which it is
    numbered = replace(found, inputs=np.repeat(marks[:, None], len(NAMES), axis=1))
    seen = 0
    for name in SPLITS:
        rows = getattr(found.splits, name)
        tensors = Split(numbered, rows, torch.device("cpu"), 5)
        indices = range(len(tensors)) if tensors.indices is None else tensors.indices.tolist()
        last = tensors.last_rows[:, 0].to(torch.int64).numpy()
        assert tensors.labels.tolist() == found.labels[last].tolist()
        for place, end in zip(indices, last.tolist(), strict=True):
            window = tensors.inputs[place][:, 0].to(torch.int64).tolist()
            assert window == list(range(end - 4, end + 1))
            [part] = [p for p in found.segments if p.start <= end < p.stop]
            assert part.start <= window[0]
            assert window[0] in rows
            base = BARS[part.symbol].timestamps
            first = int(np.searchsorted(base, found.timestamps[window[0]]))
            assert found.timestamps[window].tolist() == base[first : first + 5].tolist()
            seen += 1
        if found.weights is not None:
            assert (found.weights[last] > 0).all()
    assert seen > 200


@pytest.mark.parametrize(
    "model", [{"type": "mlp"}, {"type": "neuro_fuzzy"}], ids=lambda m: m["type"]
)
def test_cutting_off_the_future_changes_no_bit_of_a_whole_pipeline(model: dict[str, Any]) -> None:
    of = strategy(model=model)
    transforms = dataset(of).transforms
    for symbol in SYMBOLS:
        whole = compute_inputs(of, market(of), symbol, transforms)
        for stop in (whole.first + 1, 333, 1024, 1501):
            shorter = BARS | {symbol: BARS[symbol].rows(0, stop)}
            cut = compute_inputs(of, market(of, shorter), symbol, transforms)
            assert cut.first == whole.first
            assert cut.matrix.tobytes() == whole.matrix[: stop - whole.first].tobytes()


def test_timeframes_of_an_input_are_those_that_it_names() -> None:
    wanted = [{"fuzzy_set": "level", "timeframes": ["1h", "4h"]}]
    found = dataset(strategy(nn_inputs=wanted))
    assert found.input_names == (
        "4h_level_high", "4h_level_low", "1h_level_high", "1h_level_low",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("inputs", "path", "message"),
    [
        ([{"fuzzy_set": "level", "timeframes": ["1d"]}], "nn_inputs.0.timeframes", "4h, 1h"),
        ([{"fuzzy_set": "level"}, {"fuzzy_set": "level"}], "nn_inputs.1", "already"),
        (
            [{"raw_indicator": "r"}, {"raw_indicator": "r", "timeframes": ["1h"]}],
            "nn_inputs.1",
            "already",
        ),
        ([{"raw_indicator": "m.lne"}], "nn_inputs.0.raw_indicator", "did you mean line"),
        ([{"fuzzy_set": "level", "normalization": "minmax"}], "nn_inputs.0", "remove it"),
        ([{"fuzzy_set": "level", "raw_indicator": "r"}], "nn_inputs.0", "exactly one"),
    ],
)
def test_inputs_that_cannot_be_are_refused_at_their_place(
    inputs: list[dict[str, Any]], path: str, message: str
) -> None:
    with pytest.raises(InvalidStrategy, match=message) as caught:
        strategy(nn_inputs=inputs)
    assert [problem["path"] for problem in caught.value.details["problems"]] == [path]


def test_two_inputs_of_one_name_are_refused_for_every_network() -> None:
    sets = {"r_raw": {"indicator": "r", "low": [0, 30, 60], "high": [40, 70, 100]}}
    inputs = [{"fuzzy_set": "r_raw"}, {"raw_indicator": "r"}]
    strategy(fuzzy_sets=sets, nn_inputs=inputs)  # 1h_r_raw_low beside 1h_r_raw
    with pytest.raises(InvalidStrategy, match="2 inputs would be called 1h_r_raw"):
        strategy(fuzzy_sets=sets, nn_inputs=inputs, model={"type": "neuro_fuzzy"})
    sets = {
        "a": {"indicator": "r", "b_c": [0, 30, 60]},
        "a_b": {"indicator": "r", "c": [0, 30, 60]},
    }
    with pytest.raises(InvalidStrategy, match="2 inputs would be called 4h_a_b_c"):
        strategy(fuzzy_sets=sets, nn_inputs=[{"fuzzy_set": "a"}, {"fuzzy_set": "a_b"}])


# What is fitted -----------------------------------------------------------------------------------


def wild_from(bars: Bars, moment: int) -> Bars:
    """Another market from a moment on."""
    factor = np.where(bars.timestamps < moment, 1.0, 1.0 + 0.5 * (np.arange(len(bars)) % 7))
    prices = {name: getattr(bars, name) * factor for name in ("open", "high", "low", "close")}
    return replace(bars, **prices)


def test_what_is_fitted_knows_the_training_rows_only() -> None:
    of = strategy()
    before = dataset(of)
    edge = int(before.timestamps[before.splits.validation.start])
    after = dataset(of, {symbol: wild_from(bars, edge) for symbol, bars in BARS.items()})
    assert after.transforms == before.transforms
    rows = before.splits.train
    assert after.inputs[: rows.stop].tobytes() == before.inputs[: rows.stop].tobytes()
    assert after.inputs[rows.stop :].tobytes() != before.inputs[rows.stop :].tobytes()
    # and it does know them
    early = int(before.timestamps[rows.stop // 4])
    changed = dataset(of, {symbol: wild_from(bars, early) for symbol, bars in BARS.items()})
    assert changed.transforms != before.transforms


def test_a_fold_between_training_rows_is_not_seen_by_what_is_fitted() -> None:
    """The test fold's own values count for nothing; those after it look back into it for a while,
    and are left alone by an embargo as long as the indicators remember."""
    sets = {"turn": {"indicator": "c", "auto": 3}}
    of = strategy(
        indicators={"c": {"type": "roc", "period": 1}},
        fuzzy_sets=sets,
        nn_inputs=[
            {"fuzzy_set": "turn", "timeframes": ["1h"]},
            {"raw_indicator": "c", "timeframes": ["1h"], "normalization": "zscore"},
        ],
        training={
            "labels": BARRIER,
            "data_split": {"mode": "purged_kfold", "folds": 3, "validation": 0, "embargo": 5},
        },
    )
    before = dataset(of, fold=2)
    tested = before.timestamps[before.splits.test.start : before.splits.test.stop]
    changed = {}
    for symbol, bars in BARS.items():
        inside = (bars.timestamps >= tested.min()) & (bars.timestamps <= tested.max())
        factor = np.where(inside, 1.0 + 0.01 * (np.arange(len(bars)) % 7), 1.0)
        prices = {name: getattr(bars, name) * factor for name in ("open", "high", "low", "close")}
        changed[symbol] = replace(bars, **prices)
    after = dataset(of, changed, fold=2)
    assert after.transforms == before.transforms


def test_scalers_and_placed_sets_pool_the_training_samples_of_all_symbols() -> None:
    of = strategy()
    found = dataset(of)
    values = []
    for part in found.segments:
        if part.stop <= found.splits.train.stop:
            series = IndicatorOutputs(of.indicators, BARS[part.symbol]).series("r")
            moments = found.timestamps[part.start : part.stop]
            values.append(series[np.searchsorted(BARS[part.symbol].timestamps, moments)])
    pooled = np.concatenate(values)
    column = NAMES.index("1h_r_raw")
    scaler = found.transforms[5].scaler
    assert found.transforms[5].names == ("1h_r_raw",)
    assert scaler is not None
    assert (scaler.centre, scaler.centre + scaler.scale) == pytest.approx(
        (pooled.min(), pooled.max())
    )
    train = found.inputs[: found.splits.train.stop]
    assert (train[:, column].min(), train[:, column].max()) == (0.0, 1.0)
    zscored = train[:, NAMES.index("4h_m.line_raw")].astype(np.float64)
    assert (zscored.mean(), zscored.std()) == pytest.approx((0, 1), abs=1e-5)
    robust = train[:, NAMES.index("1h_m_raw")]
    quartiles = np.quantile(robust.astype(np.float64), [0.25, 0.5, 0.75])
    assert quartiles[1] == pytest.approx(0, abs=1e-5)
    assert quartiles[2] - quartiles[0] == pytest.approx(1, abs=1e-5)
    for timeframe in ("1h", "4h"):
        names = [NAMES.index(f"{timeframe}_turn_{name}") for name in ("low", "medium", "high")]
        np.testing.assert_allclose(train[:, names].sum(axis=1), 1, atol=1e-6)


def test_only_samples_are_fitted_to_where_sequences_need_other_rows() -> None:
    labels = BARRIER | {"cusum_threshold": 0.01}
    sequences = dataset(strategy(model=SEQUENCES, training={"labels": labels}))
    single = dataset(strategy(training={"labels": labels}))
    assert sequences.transforms == single.transforms


def test_a_network_that_grades_itself_gets_the_values_and_the_curves() -> None:
    of = strategy(model={"type": "neuro_fuzzy"})
    found, graded = dataset(of), dataset(strategy())
    assert found.input_names == (
        "4h_turn", "1h_turn", "4h_m.line_raw", "1h_level", "4h_r_raw", "1h_r_raw", "1h_m_raw",
        "1h_m.signal_raw",
    )  # fmt: skip
    curves = {column.name: [name for name, _ in column.memberships] for column in found.columns}
    assert curves["1h_level"] == ["high", "low"]
    assert curves["4h_turn"] == ["low", "medium", "high"]
    assert curves["1h_r_raw"] == []
    assert [t.memberships for t in found.transforms] == [t.memberships for t in graded.transforms]
    one = BARS["ONE"]
    outputs = IndicatorOutputs(of.indicators, one)
    part = found.segments[0]
    indices = np.searchsorted(one.timestamps, found.timestamps[part.start : part.stop])
    shown = found.inputs[part.start : part.stop, found.input_names.index("1h_level")]
    assert shown.tolist() == outputs.series("r")[indices].astype(np.float32).tolist()


def test_a_raw_value_beyond_float32_is_refused() -> None:
    one = BARS["ONE"]
    huge = {**BARS, "ONE": replace(one, volume=one.volume * 1e37)}
    volume = {"v": {"type": "sma", "source": "volume", "period": 2}}
    sets = {"level": {"indicator": "v", "low": [0, 30, 60]}}
    raw = [{"raw_indicator": "v", "timeframes": ["1h"]}]
    of = strategy(indicators=volume, fuzzy_sets=sets, nn_inputs=raw)
    with pytest.raises(InvalidData, match=r"input 1h_v_raw has values beyond what float32"):
        dataset(of, huge)
    scaled = [raw[0] | {"normalization": "minmax"}]
    dataset(strategy(indicators=volume, fuzzy_sets=sets, nn_inputs=scaled), huge)


# The cache ----------------------------------------------------------------------------------------


def test_a_dataset_of_several_series_comes_back_from_the_cache_as_it_was(tmp_path: Any) -> None:
    labels = BARRIER | {"compute_weights": True}
    split = {"mode": "purged_kfold", "folds": 2}
    of = strategy(training={"labels": labels, "data_split": split})
    for fold in (1, 2):
        made = dataset(of, fold=fold)
        for _ in range(2):
            found = cached_dataset(tmp_path, of, market(of), fold)
            assert found.weights is not None
            assert made.weights is not None
            for name in ("inputs", "labels", "timestamps", "weights"):
                assert getattr(found, name).tobytes() == getattr(made, name).tobytes()
            for name in ("columns", "class_names", "splits", "digest", "segments", "transforms"):
                assert getattr(found, name) == getattr(made, name)
    assert len(list((tmp_path / "features").glob("[!.]*"))) == 2


def key_of(strategy: Strategy, fold: int = 1) -> str:
    return dataset_key(strategy, market(strategy).fingerprint, fold)


def test_all_that_shapes_a_dataset_is_part_of_its_key() -> None:
    of = strategy()
    keys = {key_of(of), key_of(of, fold=2)}
    other = strategy(nn_inputs=[{"raw_indicator": "r", "normalization": "zscore"}])
    keys |= {key_of(other)}
    other = strategy(nn_inputs=[{"raw_indicator": "r"}])
    keys |= {key_of(other)}
    other = strategy(model={"type": "neuro_fuzzy"})
    keys |= {key_of(other)}
    other = with_overrides(of, {"symbols": ["TWO", "ONE"]})
    keys |= {key_of(other)}
    other = strategy(training={"labels": BARRIER, "data_split": {"embargo": 3}})
    keys |= {key_of(other)}
    appended = market(of, {**BARS, "ONE": BARS["ONE"].rows(0, ROWS - 1)})
    keys |= {dataset_key(of, appended.fingerprint)}
    assert len(keys) == 8
