"""The training set: splits in the order of time, purged so that no label crosses an edge."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from ktrdr.data.bars import Bars, FloatArray
from ktrdr.data.market import one_series
from ktrdr.data.sample import sample_bars
from ktrdr.errors import InvalidData
from ktrdr.features.cuts import LabelledRows, cut, pieces
from ktrdr.features.dataset import Dataset, build_dataset, dataset_digest
from ktrdr.features.labels import make_labels
from ktrdr.strategy.loading import validate_strategy
from ktrdr.strategy.schema import Strategy
from ktrdr.strategy.splits import DataSplit

HOLD_BARS = 24
LABELS: dict[str, dict[str, Any]] = {
    "zigzag": {"source": "zigzag", "zigzag_threshold": 0.02},
    "triple_barrier": {
        "source": "triple_barrier",
        "max_holding_period": HOLD_BARS,
        "pt_multiplier": 4,
        "sl_multiplier": 4,
        "vol_span": 20,
    },
    "forward_return": {"source": "forward_return", "horizon": HOLD_BARS},
}
BARS = sample_bars(rows=3000)
MARKET = one_series(BARS)


VALUES = ("forward_return",)


def sequences(length: int) -> dict[str, Any]:
    return {"type": "gru", "architecture": {"sequence_length": length}}


def make_strategy(
    labels: str = "triple_barrier", length: int | None = None, **training: Any
) -> Strategy:
    data: dict[str, Any] = {
        "name": "test",
        "training_data": {
            "symbols": {"symbol": "SAMPLE"},
            "timeframes": {"timeframe": "1h"},
            "history_required": 100,
        },
        "indicators": {"r": {"type": "rsi"}},
        "fuzzy_sets": {"level": {"indicator": "r", "low": [0, 30, 50], "high": [50, 70, 100]}},
        "nn_inputs": [{"fuzzy_set": "level"}],
        "model": sequences(length) if length else {"type": "mlp"},
        "decisions": {"output_format": "regression" if labels in VALUES else "classification"},
        "training": {"labels": LABELS[labels], **training},
    }
    return validate_strategy(data, "test")


def from_bar(bars: Bars, start: int) -> Bars:
    """The same bars with another market from `start` on."""
    factor = np.where(np.arange(len(bars)) < start, 1.0, 1.7)
    other = sample_bars(rows=len(bars), seed=99)
    prices = [
        np.where(np.arange(len(bars)) < start, mine, theirs * factor)
        for mine, theirs in (
            (bars.open, other.open),
            (bars.high, other.high),
            (bars.low, other.low),
            (bars.close, other.close),
        )
    ]
    return replace(bars, open=prices[0], high=prices[1], low=prices[2], close=prices[3])


def bar_of(dataset: Dataset, row: int) -> int:
    return int(np.searchsorted(BARS.timestamps, dataset.timestamps[row]))


@pytest.mark.parametrize("labels", LABELS)
def test_splits_follow_time_and_their_shares(labels: str) -> None:
    dataset = build_dataset(make_strategy(labels), MARKET)
    parts = dataset.splits
    assert parts.train.start == 0
    assert parts.train.stop == parts.validation.start < parts.validation.stop == parts.test.start
    assert parts.test.stop == len(dataset.labels) == len(dataset.inputs)
    labels_made = make_labels(make_strategy(labels).training.labels, BARS)
    rows = np.flatnonzero(labels_made.valid)
    rows = rows[rows >= 100]
    assert bar_of(dataset, parts.validation.start) == rows[round(0.7 * len(rows))]
    assert bar_of(dataset, parts.test.start) == rows[round(0.85 * len(rows))]
    assert (np.diff(dataset.timestamps) > 0).all()


@pytest.mark.parametrize("labels", ["triple_barrier", "forward_return"])
def test_the_purge_of_a_fixed_horizon_drops_exactly_its_bars(labels: str) -> None:
    dataset = build_dataset(make_strategy(labels), MARKET)
    parts = dataset.splits
    for before, after in ((parts.train, parts.validation), (parts.validation, parts.test)):
        assert bar_of(dataset, after.start) - bar_of(dataset, before.stop - 1) == HOLD_BARS + 1


@pytest.mark.parametrize("labels", LABELS)
@pytest.mark.parametrize("edge", ["validation", "test"])
def test_no_earlier_label_or_input_depends_on_a_bar_from_the_next_split_on(
    labels: str, edge: str
) -> None:
    dataset = build_dataset(make_strategy(labels), MARKET)
    part = dataset.splits.train if edge == "validation" else dataset.splits.validation
    first_bar = bar_of(dataset, getattr(dataset.splits, edge).start)
    strategy = make_strategy(labels)
    changed = make_labels(strategy.training.labels, from_bar(BARS, first_bar))
    bars = [bar_of(dataset, row) for row in range(part.stop)]
    assert changed.valid[bars].all()
    assert changed.values[bars].tolist() == dataset.labels[: part.stop].tolist()


@pytest.mark.parametrize("labels", LABELS)
def test_the_purge_takes_no_row_too_many(labels: str) -> None:
    """The first purged row's label is known only with a bar of the next split."""
    dataset = build_dataset(make_strategy(labels), MARKET)
    known_at = make_labels(make_strategy(labels).training.labels, BARS).known_at
    first_bar = bar_of(dataset, dataset.splits.validation.start)
    last_bar = bar_of(dataset, dataset.splits.train.stop - 1)
    assert known_at[last_bar + 1] >= first_bar
    assert known_at[last_bar] < first_bar


def cut_rows(known_after: int, shares: DataSplit) -> list[tuple[str, range]]:
    """Ten rows, the bars 5 to 14, whose labels are known so many bars later."""
    bars = np.arange(5, 15)
    labels, weights = np.zeros(10, np.int64), np.ones(10, np.float32)
    rows = LabelledRows(BARS.rows(0, 15), bars, labels, bars + known_after, weights)
    return list(cut(rows, pieces(rows.moments, shares, 1), shares.embargo))


def test_rows_of_a_split_are_cut_by_hand_made_numbers() -> None:
    shares = DataSplit(train=0.5, validation=0.3, test=0.2)
    names = ("train", "validation", "test")
    for known_after, expected in (
        (2, (range(3), range(5, 6), range(8, 10))),
        (0, (range(5), range(5, 8), range(8, 10))),
    ):
        assert cut_rows(known_after, shares) == list(zip(names, expected, strict=True))
    assert [len(part) for _, part in cut_rows(50, shares)] == [0, 0, 2]
    wider = DataSplit(train=0.5, validation=0.3, test=0.2, embargo=1)
    expected = (range(2), range(5, 5), range(8, 10))
    assert [part for _, part in cut_rows(2, wider)] == list(expected)


def test_a_share_of_zero_makes_an_empty_split_and_still_purges_at_the_next() -> None:
    no_validation = DataSplit(train=0.8, validation=0.0, test=0.2)
    assert cut_rows(1, no_validation) == [("train", range(7)), ("test", range(8, 10))]
    only_training = DataSplit(train=1.0, validation=0.0, test=0.0)
    assert cut_rows(1, only_training) == [("train", range(10))]


def test_the_digest_is_that_of_the_bytes() -> None:
    dataset = build_dataset(make_strategy(), MARKET)
    again = build_dataset(make_strategy(), one_series(sample_bars(rows=3000)))
    assert again.digest == dataset.digest
    inputs, labels = dataset.inputs.copy(), dataset.labels.copy()
    edges = dataset.splits, dataset.segments
    assert dataset_digest(inputs, labels, *edges) == dataset.digest
    inputs[17, 1] = np.nextafter(inputs[17, 1], np.float32(2))
    labels[17] = (labels[17] + 1) % 3
    assert dataset_digest(inputs, dataset.labels, *edges) != dataset.digest
    assert dataset_digest(dataset.inputs, labels, *edges) != dataset.digest
    split = {"train": 0.6, "validation": 0.2, "test": 0.2}
    assert build_dataset(make_strategy(data_split=split), MARKET).digest != dataset.digest


@pytest.mark.parametrize("rows", [101, 125, 140, 200])
def test_too_little_data_is_refused_with_numbers(rows: int) -> None:
    with pytest.raises(InvalidData, match=f"{rows} bars of SAMPLE 1h|no (BUY|HOLD|SELL) "):
        build_dataset(make_strategy(), one_series(BARS.rows(0, rows)))


def test_a_class_that_never_occurs_in_training_is_refused_with_the_counts() -> None:
    with pytest.raises(InvalidData, match=r"no BUY .*among the 589 training rows \(BUY 0, "):
        build_dataset(make_strategy(), one_series(falling()))


def test_the_labels_of_a_regression_are_values_without_names() -> None:
    dataset = build_dataset(make_strategy("forward_return"), MARKET)
    assert dataset.labels.dtype == np.float32
    assert dataset.class_names == ()
    first = bar_of(dataset, 0)
    change = BARS.close[first + HOLD_BARS] / BARS.close[first] - 1
    assert dataset.labels[0] == np.float32(change)


def test_a_price_that_does_not_move_teaches_nothing() -> None:
    prices = np.full(1000, 100.0)
    still = replace(sample_bars(rows=1000), open=prices, high=prices, low=prices, close=prices)
    with pytest.raises(InvalidData, match="are 0 in all 589 training rows: there is nothing"):
        build_dataset(make_strategy("forward_return"), one_series(still))


@pytest.mark.parametrize("labels", ["triple_barrier", "forward_return"])
def test_a_split_needs_a_whole_sequence_and_says_how_long_it_is(labels: str) -> None:
    rows = len(build_dataset(make_strategy(labels), MARKET).splits.validation)
    build_dataset(make_strategy(labels, length=rows), MARKET)
    expected = rf"the validation split has {rows:,} rows, too few for one sequence of {rows + 1:,} "
    with pytest.raises(InvalidData, match=expected):
        build_dataset(make_strategy(labels, length=rows + 1), MARKET)


def test_a_split_without_a_share_needs_no_sequence() -> None:
    split = {"train": 1.0, "validation": 0.0, "test": 0.0}
    dataset = build_dataset(make_strategy(length=2000, data_split=split), MARKET)
    assert len(dataset.splits.validation) == 0


def test_a_class_only_among_the_rows_before_the_first_sequence_is_refused() -> None:
    labels = build_dataset(make_strategy(), MARKET).labels[:2000]
    last = min(int(np.flatnonzero(labels == value)[-1]) for value in range(3))
    split = {"train": 1.0, "validation": 0.0, "test": 0.0}
    bars = BARS.rows(0, bar_of(build_dataset(make_strategy(), MARKET), 1999) + HOLD_BARS + 1)
    build_dataset(make_strategy(length=last + 1, data_split=split), one_series(bars))
    with pytest.raises(InvalidData, match=r"no (BUY|HOLD|SELL) among the"):
        build_dataset(make_strategy(length=last + 2, data_split=split), one_series(bars))


def falling() -> Bars:
    """Prices that only fall: nothing to buy."""
    bars = sample_bars(rows=1000)
    opens: FloatArray = 100 * 0.999 ** np.arange(1000.0)
    return replace(bars, open=opens, high=opens, low=opens * 0.998, close=opens * 0.999)
