"""Splits and folds: every row decided by the definition, and what leaves nothing is refused."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest

from ktrdr.data.bars import Bars, IntArray
from ktrdr.data.market import Market, one_series
from ktrdr.data.sample import sample_bars
from ktrdr.errors import InvalidData
from ktrdr.features.cuts import SPLITS, Cut, LabelledRows, Piece, cut, pieces
from ktrdr.features.dataset import Dataset, build_dataset
from ktrdr.strategy.loading import validate_strategy
from ktrdr.strategy.schema import Strategy
from ktrdr.strategy.splits import AnySplit, DataSplit, PurgedKFold, WalkForward

HOUR_US = 3_600_000_000


@dataclass(frozen=True)
class Case:
    """Symbols of random gaps, labels and samples, and a way to split them."""

    symbols: list[LabelledRows]
    spec: AnySplit

    @property
    def moments(self) -> IntArray:
        return np.concatenate([rows.moments for rows in self.symbols])

    def cuts(self, fold: int) -> list[Cut]:
        stretches = pieces(self.moments, self.spec, fold)
        return [cut(rows, stretches, self.spec.embargo) for rows in self.symbols]


def random_rows(source: random.Random, most: int) -> LabelledRows:
    """Rows of one symbol: bars with gaps, of which some are no samples."""
    count = source.randint(1, most)
    hours = np.cumsum([source.choice([1, 1, 1, 1, 2, 30]) for _ in range(count)])
    bars = replace(sample_bars(rows=count), timestamps=hours * HOUR_US)
    first = source.randint(0, count // 4)
    rows = np.array([bar for bar in range(first, count) if source.random() < 0.9], np.int64)
    horizon = source.randint(0, 4)
    known = np.maximum.accumulate([min(bar + source.randint(0, horizon), count) for bar in rows])
    sampled = source.choice([1.0, 1.0, 0.4])
    weights = [float(source.random() < sampled) for _ in rows]
    return LabelledRows(
        bars,
        rows,
        np.zeros(len(rows), np.int64),
        np.asarray(known, np.int64).reshape(-1),
        np.array(weights, np.float32),
    )


def random_case(seed: int) -> Case:
    source = random.Random(seed)
    most = source.choice([4, 12, 60])
    symbols = [random_rows(source, most) for _ in range(source.randint(1, 3))]
    embargo, folds = source.choice([0, 0, 1, 3]), source.randint(2, 5)
    validation = source.choice([0.0, 0.1, 0.3])
    specs: list[AnySplit] = [
        DataSplit(train=0.6, validation=0.2, test=0.2, embargo=embargo),
        DataSplit(train=0.7, validation=0.3, test=0.0, embargo=embargo),
        WalkForward(
            mode="walk_forward",
            folds=folds,
            anchored=source.random() < 0.5,
            train=0.7 - validation,
            validation=validation,
            test=0.3,
            embargo=embargo,
        ),
        PurgedKFold(mode="purged_kfold", folds=folds, validation=validation, embargo=embargo),
    ]
    return Case(symbols, source.choice(specs))


def assigned(case: Case, fold: int) -> dict[int, str]:
    """Which moment is for what, by place among the sorted samples: the shares, written out."""
    count, spec = len(case.moments), case.spec
    if isinstance(spec, PurgedKFold):
        tested = range(round(count * (fold - 1) / spec.folds), round(count * fold / spec.folds))
        others = [place for place in range(count) if place not in tested]
        trained = round(len(others) * (1 - spec.validation))
        used = dict.fromkeys(tested, "test") | dict.fromkeys(others[:trained], "train")
        return used | dict.fromkeys(others[trained:], "validation")
    if isinstance(spec, WalkForward):
        step = count * spec.test / spec.folds
        start = round(count * (1 - spec.test) + step * (fold - 1))
        stop = round(count * (1 - spec.test) + step * fold) if fold < spec.folds else count
        validated = max(0, start - round(count * spec.validation))
        first = 0 if spec.anchored else max(0, validated - round(count * spec.train))
        used = dict.fromkeys(range(first, validated), "train")
        used |= dict.fromkeys(range(validated, start), "validation")
        return used | dict.fromkeys(range(start, stop), "test")
    ends = round(count * spec.train), round(count * (spec.train + spec.validation))
    used = dict.fromkeys(range(ends[0]), "train")
    used |= dict.fromkeys(range(ends[0], ends[1] if spec.test else count), "validation")
    return used | (dict.fromkeys(range(ends[1], count), "test") if spec.test else {})


def stretches_of(case: Case, fold: int) -> list[tuple[str, int, float]]:
    """Uses and the time that each lasts: from its first moment to the first of the next."""
    ordered, used = np.sort(case.moments).tolist(), assigned(case, fold)
    found: list[tuple[str, int, float]] = []
    place = 0
    while place < len(ordered):
        use, stop = used.get(place), place
        while stop < len(ordered) and used.get(stop) == use:
            stop += 1
        end = ordered[stop] if stop < len(ordered) else float("inf")
        if use is not None:
            found.append((use, ordered[place], end))
        place = stop
    return found


def stays(
    case: Case,
    rows: LabelledRows,
    row: int,
    index: int,
    stretches: list[tuple[str, int, float]],
    kept: dict[int, set[int]],
) -> bool:
    """Whether a row is a sample of the stretch that no judging one knows, or is known by."""
    use, start, end = stretches[index]
    stamps, bar, embargo = rows.base.timestamps.tolist(), int(rows.bars[row]), case.spec.embargo
    if rows.weights[row] == 0 or not start <= stamps[bar] < end:
        return False
    for other, (judge, begins, _) in enumerate(stretches):
        if SPLITS.index(judge) <= SPLITS.index(use):
            continue
        if other > index:
            first_bar = next((i for i, stamp in enumerate(stamps) if stamp >= begins), len(stamps))
            if int(rows.known_at[row]) + embargo >= first_bar:
                return False
        elif kept[other] and bar <= max(rows.known_at[list(kept[other])]) + embargo:
            return False
    return True


def expected(case: Case, fold: int, rows: LabelledRows) -> dict[str, set[int]]:
    """The samples that are kept for each use, every row decided by itself."""
    stretches = stretches_of(case, fold)
    kept: dict[int, set[int]] = {}
    for index in sorted(range(len(stretches)), key=lambda i: -SPLITS.index(stretches[i][0])):
        kept[index] = {
            row for row in range(len(rows.bars)) if stays(case, rows, row, index, stretches, kept)
        }
    return {
        use: {row for index, rows in kept.items() if stretches[index][0] == use for row in rows}
        for use in SPLITS
    }


@pytest.mark.parametrize("block", range(10))
def test_every_sample_stays_exactly_where_the_definition_lets_it(block: int) -> None:
    checked = 0
    for seed in range(60 * block, 60 * block + 60):
        case = random_case(seed)
        if not len(case.moments):
            continue
        for fold in range(1, case.spec.num_folds + 1):
            for rows, parts in zip(case.symbols, case.cuts(fold), strict=True):
                wanted = expected(case, fold, rows)
                for use in SPLITS:
                    sampled = [row for split, part in parts if split == use for row in part]
                    kept = [row for row in sampled if rows.weights[row] > 0]
                    assert kept == sorted(wanted[use]), (seed, fold, use)
                check_edges(rows, parts)
                checked += 1
    assert checked > 100


def check_edges(rows: LabelledRows, parts: Cut) -> None:
    """Ranges rise, do not touch each other's rows, and end with a sample."""
    stop = 0
    for _, part in parts:
        if len(part):
            assert part.start >= stop
            assert rows.weights[part.stop - 1] > 0
            stop = part.stop


@pytest.mark.parametrize("folds", [2, 3, 7])
def test_every_sample_is_tested_in_exactly_one_fold_and_none_is_trimmed(folds: int) -> None:
    for seed in range(40):
        case = replace_spec(seed, PurgedKFold(mode="purged_kfold", folds=folds, embargo=2))
        tested = evaluated_rows(case)
        for index, rows in enumerate(case.symbols):
            expected = np.flatnonzero(rows.is_sample).tolist()
            assert sorted(row for fold in tested for row in fold[index]) == expected


@pytest.mark.parametrize("anchored", [True, False])
def test_walk_forward_tests_follow_each_other_without_overlap(anchored: bool) -> None:
    for seed in range(40):
        spec = WalkForward(mode="walk_forward", folds=3, anchored=anchored)
        case = replace_spec(seed, spec)
        tested = evaluated_rows(case)
        for index, rows in enumerate(case.symbols):
            together = [row for fold in tested for row in fold[index]]
            assert together == sorted(set(together))
            sampled = np.flatnonzero(rows.is_sample).tolist()
            assert together == (sampled[-len(together) :] if together else [])
        for fold in (1, 2, 3):
            shown = [use for use, _, _ in stretches_of(case, fold)]
            assert shown == [use for use in SPLITS if use in shown]  # no training after a test


def replace_spec(seed: int, spec: AnySplit) -> Case:
    source = random.Random(seed)
    return Case([random_rows(source, 60) for _ in range(2)], spec)


def evaluated_rows(case: Case) -> list[list[list[int]]]:
    """By fold and symbol."""
    return [
        [
            [
                row
                for split, part in parts
                if split == "test"
                for row in part
                if rows.weights[row] > 0
            ]
            for rows, parts in zip(case.symbols, case.cuts(fold), strict=True)
        ]
        for fold in range(1, case.spec.num_folds + 1)
    ]


def test_a_rolling_window_is_as_long_as_its_share_and_an_anchored_one_grows() -> None:
    moments = np.arange(1000, dtype=np.int64) * HOUR_US
    rolling = WalkForward(mode="walk_forward", folds=4, anchored=False)
    anchored = WalkForward(mode="walk_forward", folds=4)
    for fold, start in ((1, 0), (2, 100), (3, 200), (4, 300)):
        assert edges(moments, rolling, fold) == [
            ("train", start, start + 500),
            ("validation", start + 500, start + 600),
            ("test", start + 600, None if fold == 4 else start + 700),
        ]
        assert edges(moments, anchored, fold)[0] == ("train", 0, start + 500)


def test_a_fold_in_the_middle_is_validated_on_both_sides_where_it_must() -> None:
    moments = np.arange(100, dtype=np.int64) * HOUR_US
    spec = PurgedKFold(mode="purged_kfold", folds=5, validation=0.5)
    assert edges(moments, spec, 1) == [("test", 0, 20), ("train", 20, 60), ("validation", 60, 100)]
    assert edges(moments, spec, 3) == [
        ("train", 0, 40), ("test", 40, 60), ("validation", 60, 100),
    ]  # fmt: skip
    assert edges(moments, spec, 4) == [
        ("train", 0, 40), ("validation", 40, 60), ("test", 60, 80), ("validation", 80, 100),
    ]  # fmt: skip


def edges(moments: IntArray, spec: AnySplit, fold: int) -> list[tuple[str, int, int | None]]:
    """In hours; a last moment stands for its end."""

    def hours(piece: Piece) -> int | None:
        return None if piece.stop is None else -(-piece.stop // HOUR_US)

    return [(p.split, p.start // HOUR_US, hours(p)) for p in pieces(moments, spec, fold)]


# Whole datasets -----------------------------------------------------------------------------------


def strategy(split: dict[str, Any], length: int | None = None, **labels: Any) -> Strategy:
    barrier = {
        "source": "triple_barrier",
        "max_holding_period": 10,
        "pt_multiplier": 2,
        "sl_multiplier": 2,
        "vol_span": 20,
    }
    sequences = {"type": "lstm", "architecture": {"sequence_length": length}}
    return validate_strategy(
        {
            "name": "split",
            "training_data": {
                "symbols": {"mode": "multi_symbol", "list": ["ONE", "TWO"]},
                "timeframes": {"timeframe": "1h"},
                "history_required": 50,
            },
            "indicators": {"r": {"type": "rsi", "period": 7}},
            "fuzzy_sets": {"level": {"indicator": "r", "auto": 3}},
            "nn_inputs": [{"fuzzy_set": "level"}],
            "model": sequences if length else {"type": "mlp"},
            "training": {"data_split": split, "labels": labels or barrier},
        },
        "test",
    )


def market(one: Bars, two: Bars) -> Market:
    series = {("ONE", "1h"): one, ("TWO", "1h"): two}
    return Market(("ONE", "TWO"), ("1h",), "1h", series, (one, two))


def bars_of(symbol: str, rows: int = 2000, seed: int = 7) -> Bars:
    return sample_bars(symbol, rows=rows, seed=seed)


ONE, TWO = bars_of("ONE"), bars_of("TWO", seed=8)
CHRONOLOGICAL = {"mode": "chronological", "embargo": 4}
KFOLD = {"mode": "purged_kfold", "folds": 4, "embargo": 4}
WALK = {"mode": "walk_forward", "folds": 3, "embargo": 4}


@pytest.mark.parametrize("split", [CHRONOLOGICAL, KFOLD, WALK], ids=lambda s: s["mode"])
@pytest.mark.parametrize("length", [None, 6])
def test_no_training_label_of_a_dataset_reaches_a_bar_that_judges_it(
    split: dict[str, Any], length: int | None
) -> None:
    of = strategy(split, length)
    shorter = market(ONE, rows_from(TWO, 300))
    for fold in range(1, of.training.data_split.num_folds + 1):
        dataset = build_dataset(of, shorter, fold)
        for symbol in ("ONE", "TWO"):
            judged = hours_of(dataset, symbol, "test")
            trained = hours_of(dataset, symbol, "train") + hours_of(dataset, symbol, "validation")
            assert judged
            assert trained
            later = set(range(min(judged) - 14, max(judged) + 14 + 1))  # horizon 10, embargo 4
            assert not later & set(trained)


def hours_of(dataset: Dataset, symbol: str, split: str) -> list[int]:
    rows = getattr(dataset.splits, split)
    return [
        int(stamp // HOUR_US)
        for part in dataset.segments
        if part.symbol == symbol and rows.start <= part.start < rows.stop
        for stamp in dataset.timestamps[part.start : part.stop]
    ]


def rows_from(bars: Bars, start: int) -> Bars:
    return bars.rows(start, len(bars))


def test_thinned_samples_keep_the_bars_between_as_history_for_sequences() -> None:
    labels: dict[str, Any] = {
        "source": "triple_barrier",
        "max_holding_period": 10,
        "cusum_threshold": 0.02,
        "vol_span": 20,
    }
    apart = build_dataset(strategy(KFOLD, **labels), market(ONE, TWO), 2)
    joined = build_dataset(strategy(KFOLD, 6, **labels), market(ONE, TWO), 2)
    assert apart.weights is None
    assert joined.weights is not None
    for split in ("train", "validation", "test"):
        rows = getattr(joined.splits, split)
        for part in joined.segments_of(rows):
            stamps = joined.timestamps[part.start : part.stop]
            assert (np.diff(stamps) == HOUR_US).all()
        sampled = joined.samples(rows, 6)
        alone = getattr(apart.splits, split)
        known = {
            (int(stamp), int(label))
            for stamp, label in zip(
                apart.timestamps[alone.start : alone.stop],
                apart.labels[alone.start : alone.stop],
                strict=True,
            )
        }
        found = list(
            zip(joined.timestamps[sampled].tolist(), joined.labels[sampled].tolist(), strict=True)
        )
        assert set(found) <= known
        assert len(alone) - len(found) <= 5 * 2 * 2  # those whose sequence would begin before


# Refusals -----------------------------------------------------------------------------------------


def refusal(of: Strategy, bars: Market, fold: int = 1) -> InvalidData:
    with pytest.raises(InvalidData) as caught:
        build_dataset(of, bars, fold)
    assert "\n" not in caught.value.message
    return caught.value


def test_symbols_that_do_not_overlap_are_refused_with_their_dates() -> None:
    later = replace(TWO, timestamps=TWO.timestamps + 2000 * HOUR_US)
    error = refusal(strategy(CHRONOLOGICAL), market(ONE, later))
    assert error.message == (
        "TWO 1h begins only at 2020-03-24T08:00:00Z, after ONE 1h has ended at "
        "2020-03-24T08:00:00Z: use bars that overlap in time"
    )
    assert [span["rows"] for span in error.details["spans"]] == [2000, 2000]
    touching = replace(TWO, timestamps=TWO.timestamps + 1999 * HOUR_US)
    assert "overlap" not in refusal(strategy(CHRONOLOGICAL), market(ONE, touching)).message


def test_a_symbol_without_rows_in_a_split_is_refused_with_the_numbers() -> None:
    error = refusal(strategy(CHRONOLOGICAL), market(ONE, TWO.rows(0, 1000)))
    assert error.message.startswith("the validation split of TWO is empty: 1,000 bars of TWO 1h ")
    assert (error.details["symbol"], error.details["split"]) == ("TWO", "validation")
    error = refusal(strategy(KFOLD), market(ONE, rows_from(TWO, 1400)), 2)
    assert error.message.startswith("fold 2 of 4: the test split of TWO is empty: 600 bars")
    assert error.details["fold"] == 2


def test_too_little_data_for_folds_names_the_fold() -> None:
    small = market(ONE.rows(0, 90), TWO.rows(0, 90))
    for split in (KFOLD, WALK):
        error = refusal(strategy(split), small)
        assert error.message.startswith("fold 1 of ")
        assert "90 bars of" in error.message
    none = refusal(strategy(CHRONOLOGICAL), market(ONE.rows(0, 60), TWO.rows(0, 60)))
    assert "leave 0 labelled rows" in none.message


def test_an_embargo_that_leaves_nothing_is_named() -> None:
    error = refusal(strategy({**CHRONOLOGICAL, "embargo": 1900}), market(ONE, TWO))
    assert error.message.startswith("the train split of ONE is empty")
    assert error.message.endswith("shorten the labels' horizon or training.data_split.embargo")


def test_a_class_that_never_occurs_in_a_fold_is_refused_with_the_counts() -> None:
    labels: dict[str, Any] = {"source": "context", "horizon": 5, "bullish_threshold": 5.0}
    error = refusal(strategy(KFOLD, **labels), market(ONE, TWO), 3)
    assert error.message.startswith("fold 3 of 4: no BULLISH among the ")
    assert error.details["counts"]["BULLISH"] == 0
    assert sum(error.details["counts"].values()) > 1000


@pytest.mark.parametrize("split", [CHRONOLOGICAL, KFOLD, WALK], ids=lambda s: s["mode"])
def test_tiny_data_never_ends_in_anything_but_a_dataset_or_a_refusal(
    split: dict[str, Any],
) -> None:
    made = 0
    for count in (1, 2, 30, 51, 60, 62, 75, 100, 140, 220, 400):
        for length in (None, 3):
            of = strategy(split, length)
            for fold in range(1, of.training.data_split.num_folds + 1):
                bars = market(ONE.rows(0, count), TWO.rows(0, count))
                message = refused(of, bars, fold)
                made += message is None
                assert message is None or any(char.isdigit() for char in message)
    assert made > 0


def refused(of: Strategy, bars: Market, fold: int) -> str | None:
    try:
        build_dataset(of, bars, fold)
    except InvalidData as error:
        return error.message
    return None


def test_one_row_for_each_part_is_enough() -> None:
    rows = simple(5)
    spec = DataSplit(train=0.6, validation=0.2, test=0.2)
    assert sizes(rows, spec) == [3, 1, 1]
    assert sizes(simple(1), spec) == [1]


def sizes(rows: LabelledRows, spec: AnySplit) -> list[int]:
    return [len(part) for _, part in cut(rows, pieces(rows.moments, spec, 1), 0)]


def simple(count: int) -> LabelledRows:
    bars: Sequence[int] = range(count)
    indices = np.array(bars, np.int64)
    base = one_series(sample_bars(rows=count)).base("SAMPLE")
    return LabelledRows(base, indices, indices, indices, np.ones(count, np.float32))
