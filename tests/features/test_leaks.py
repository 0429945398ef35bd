"""Looks at the future are found by name, and what does not look is called clean."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from markets import market_of

from ktrdr.data import market as markets
from ktrdr.data.bars import Bars, FloatArray, IntArray, columns, timeframe_us
from ktrdr.data.market import Market, gather, one_series
from ktrdr.data.resampling import resample
from ktrdr.data.sample import sample_bars
from ktrdr.features import dataset as datasets
from ktrdr.features import pipeline
from ktrdr.features.cuts import Cut, LabelledRows, cut
from ktrdr.features.dataset_report import DatasetReport, report_dataset
from ktrdr.features.indicators.definition import IndicatorDefinition
from ktrdr.features.indicators.outputs import DEFINITIONS
from ktrdr.features.labels import Labels, make_labels
from ktrdr.features.leaks import Findings, find_leaks, run_pipeline
from ktrdr.features.leaks.comparison import differing
from ktrdr.features.leaks.perturbations import (
    CHANGES,
    num_closed,
    with_other_future,
    without_future,
)
from ktrdr.features.pipeline import SymbolSeries, fill_matrix
from ktrdr.strategy.indicators import INDICATORS
from ktrdr.strategy.loading import load_strategy, validate_strategy
from ktrdr.strategy.schema import Strategy
from ktrdr.strategy.warnings import notes

SHIPPED = sorted((Path(__file__).parents[2] / "strategies").glob("*.yaml"))
ROWS = 3000
HOUR = timeframe_us("1h")

BARRIERS = {"source": "triple_barrier", "max_holding_period": 24, "vol_span": 20}
SEVERAL = {"mode": "multi_timeframe", "list": ["1h", "4h", "1d"], "resample": True}
LABELS: list[dict[str, Any]] = [
    {"source": "zigzag", "zigzag_threshold": 0.02},
    BARRIERS | {"compute_weights": True, "cusum_threshold": "auto"},
    {"source": "forward_return", "horizon": 12},
    {"source": "context", "horizon": 5},
    {"source": "regime"},
]
MODELS: list[dict[str, Any]] = [
    {"type": "mlp"},
    {"type": "lstm", "architecture": {"sequence_length": 12}},
    {"type": "neuro_fuzzy"},
]
SPLITS: list[dict[str, Any]] = [
    {"train": 0.7, "validation": 0.15, "test": 0.15, "embargo": 7},
    {"mode": "walk_forward", "folds": 3, "embargo": 3},
    {"mode": "purged_kfold", "folds": 4, "embargo": 3},
]


def with_weekends(bars: Bars) -> Bars:
    """Without every bar of two days a week."""
    return taken(bars, bars.timestamps // (24 * HOUR) % 7 < 5)


def taken(bars: Bars, kept: Any) -> Bars:
    stamps, *prices = columns(bars)
    return Bars(bars.symbol, bars.timeframe, stamps[kept], *(column[kept] for column in prices))


STORED = {
    ("ONE", "1h"): with_weekends(sample_bars("ONE", rows=ROWS)),
    ("TWO", "1h"): taken(sample_bars("TWO", rows=ROWS, seed=8), np.arange(ROWS) % 997 > 40),
    ("FINE", "30m"): taken(sample_bars("FINE", "30m", rows=ROWS), np.arange(ROWS) % 29 > 0),
    ("ODD", "1h"): sample_bars("ODD", rows=1000),
    ("ODD", "30m"): taken(sample_bars("ODD", "30m", rows=2000), np.arange(2000) % 7 > 0),
    ("BOTH", "1h"): sample_bars("BOTH", rows=ROWS, seed=9),
    ("BOTH", "4h"): sample_bars("BOTH", "4h", rows=ROWS // 4, seed=10),
}


def make_strategy(symbol: str | list[str] = "ONE", **parts: Any) -> Strategy:
    several = {"mode": "multi_symbol", "list": symbol}
    labels = parts.pop("labels", BARRIERS)
    data: dict[str, Any] = {
        "name": "test",
        "training_data": {
            "symbols": {"symbol": symbol} if isinstance(symbol, str) else several,
            "timeframes": parts.pop("timeframes", {"timeframe": "1h"}),
            "history_required": 60,
        },
        "indicators": {
            "r": {"type": "rsi"},
            "mean": {"type": "sma", "period": 5},
            "width": {"type": "bollingerbandwidth"},
        },
        "fuzzy_sets": {
            "level": {"indicator": "r", "low": [0, 30, 50], "high": [50, 70, 100]},
            "wide": {"indicator": "width", "auto": 3},
        },
        "nn_inputs": [
            {"fuzzy_set": "level"},
            {"raw_indicator": "mean", "normalization": "zscore", "timeframes": ["1h"]},
            {"fuzzy_set": "wide"},
        ],
        "model": {"type": "mlp"},
        "decisions": {
            "output_format": "regression"
            if labels["source"] == "forward_return"
            else "classification"
        },
        "training": {"labels": labels, "data_split": parts.pop("data_split", SPLITS[0])},
    }
    return validate_strategy(data | parts, "test")


def bars_for(strategy: Strategy) -> Market:
    return gather(
        strategy.symbols,
        strategy.timeframes,
        strategy.base_timeframe,
        lambda symbol, timeframe: STORED.get((symbol, timeframe)),
        lambda symbol: [timeframe for name, timeframe in STORED if name == symbol],
    )


def checked(strategy: Strategy, points: int = 5, seed: int = 1) -> Findings:
    return find_leaks(run_pipeline(strategy, bars_for(strategy)), seed, points)


def kinds_of(found: Findings) -> dict[str, set[str]]:
    """By feature."""
    return {
        leak.feature: {other.kind for other in found.leaks if other.feature == leak.feature}
        for leak in found.leaks
    }


# What is clean


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_every_shipped_strategy_is_clean(path: Path) -> None:
    strategy = load_strategy(path)
    found = find_leaks(run_pipeline(strategy, market_of(strategy, sample_bars(rows=6000))), 3, 8)
    assert (len(found.points), found.leaks) == (8, ())


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_of_every_shipped_strategy_the_check_warns_of_nothing(path: Path) -> None:
    strategy = load_strategy(path)
    assert notes(strategy) == []
    run = run_pipeline(strategy, market_of(strategy, sample_bars()))
    assert report_dataset(run).warnings == ()


@pytest.mark.parametrize("labels", LABELS, ids=lambda labels: labels["source"])
@pytest.mark.parametrize("data_split", SPLITS, ids=["shares", "walk_forward", "purged_kfold"])
def test_labels_and_splits_of_every_kind_are_clean(
    labels: dict[str, Any], data_split: dict[str, Any]
) -> None:
    strategy = make_strategy(labels=labels, data_split=data_split)
    found = checked(strategy, points=3)
    assert found.leaks == ()
    assert not any("could not be tried" in note for note in found.notes)


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model["type"])
@pytest.mark.parametrize("symbol", ["ONE", "FINE", "BOTH", ["ONE", "TWO"]], ids=str)
def test_several_timeframes_and_symbols_are_clean(
    symbol: str | list[str], model: dict[str, Any]
) -> None:
    found = checked(make_strategy(symbol, timeframes=SEVERAL, model=model))
    assert found.leaks == ()
    assert len(found.points) == 5 * (1 if isinstance(symbol, str) else 2)


def test_a_resampled_bar_whose_end_only_the_clock_tells_is_no_leak() -> None:
    """Its last lower bar is missing, while the base bar that closes with it is stored."""
    timeframes = {"mode": "multi_timeframe", "list": ["1h", "90m"], "resample": True}
    found = checked(make_strategy("ODD", timeframes=timeframes), points=300)
    assert len(found.points) == 300
    assert found.leaks == ()


def test_every_indicator_of_the_grammar_is_clean() -> None:
    outputs = [f"{name}.{o}" for name, grammar in INDICATORS.items() for o in grammar.outputs]
    strategy = make_strategy(
        indicators={name: {"type": name} for name in INDICATORS},
        fuzzy_sets={"level": {"indicator": "rsi", "low": [0, 30, 50]}},
        nn_inputs=[{"raw_indicator": output, "normalization": "robust"} for output in outputs],
    )
    assert checked(strategy, points=6).leaks == ()


def test_points_lie_where_mistakes_show_and_the_seed_draws_them_again() -> None:
    strategy = make_strategy(timeframes=SEVERAL)
    found, again = checked(strategy, points=11), checked(strategy, points=11)
    assert found == again
    assert found.points != checked(strategy, points=11, seed=2).points
    assert {point.place for point in found.points} == {
        "after the warm-up",
        "edge of a split",
        "end of a session",
        "inside a 4h bar",
        "inside a 1d bar",
        "anywhere",
    }
    base = STORED["ONE", "1h"]
    for point in found.points:
        closed = num_closed(base, point.moment)
        assert (closed, point.moment) == (point.bar + 1, base.timestamps[point.bar] + HOUR)
        if point.place == "end of a session":
            assert base.timestamps[point.bar + 1] > point.moment
        if point.place == "inside a 4h bar":
            assert point.moment % (4 * HOUR)


def test_few_bars_give_fewer_points() -> None:
    strategy = make_strategy(labels=LABELS[2], data_split=SPLITS[0] | {"embargo": 0})
    bars = one_series(STORED["ONE", "1h"].rows(0, 200))
    found = find_leaks(run_pipeline(strategy, bars), 1, 10_000)
    warm = run_pipeline(strategy, bars).symbols[0].series.first
    assert [point.bar for point in found.points] == list(range(warm, 199))
    assert found.leaks == ()


# Futures


@pytest.mark.parametrize("change", CHANGES)
def test_another_future_begins_right_after_the_moment_with_bars_that_could_be(change: Any) -> None:
    strategy = make_strategy("BOTH", timeframes=SEVERAL)
    market = bars_for(strategy)
    moment = int(STORED["BOTH", "1h"].timestamps[1001]) + HOUR  # within a bar of 4h and of a day
    other = with_other_future(market, {"BOTH": moment}, change, np.random.default_rng(1))
    for key, bars in market.series.items():
        known, changed = num_closed(bars, moment), other.series[key]
        assert changed.timestamps.tolist() == bars.timestamps.tolist()
        for mine, theirs in zip(columns(bars)[1:], columns(changed)[1:], strict=True):
            assert mine[:known].tolist() == theirs[:known].tolist()
        pairs = zip(columns(bars)[1:], columns(changed)[1:], strict=True)
        assert any(mine[known] != theirs[known] for mine, theirs in pairs)
        assert (changed.high >= np.maximum(changed.open, changed.close)).all()
        assert (changed.low <= np.minimum(changed.open, changed.close)).all()
        assert (changed.low > 0).all()


def test_without_a_future_a_resampled_bar_is_there_once_it_has_closed() -> None:
    market = bars_for(make_strategy("FINE", timeframes=SEVERAL))
    day = market.series["FINE", "1d"].timestamps[20]
    for moment, days in ((day, 20), (day + 23 * HOUR, 20), (day + 24 * HOUR, 21)):
        known = without_future(market, {"FINE": int(moment)})
        assert len(known.series["FINE", "1d"]) == days
        assert num_closed(known.series["FINE", "1h"], moment) == len(known.series["FINE", "1h"])


# What is planted and must be found, by name


def planted(monkeypatch: pytest.MonkeyPatch, compute: Callable[[FloatArray], FloatArray]) -> None:
    """The simple average becomes something else, of its source."""
    door = IndicatorDefinition(lambda _, source, __: (compute(source),), lambda _: (4,))
    monkeypatch.setitem(DEFINITIONS, "sma", door)


def after_warm_up(values: FloatArray) -> FloatArray:
    return np.where(np.arange(len(values)) < 4, np.nan, values)


def centred(source: FloatArray) -> FloatArray:
    """One bar of five lies ahead."""
    padded = np.concatenate([source[:3], source, source[-1:]])
    return after_warm_up(np.convolve(padded, np.full(5, 0.2), "valid"))


def test_a_centred_average_is_caught_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    planted(monkeypatch, centred)
    found = checked(make_strategy())
    assert kinds_of(found) == {"1h_mean_raw": {"cut", "perturbed"}}
    for leak in found.leaks:
        assert (leak.source, leak.symbol, leak.rows) == ("mean", "ONE", 1)
        assert leak.first == leak.at - HOUR  # the last known bar looks one ahead
        assert leak.largest_change is not None
        assert leak.largest_change > 0


def test_a_look_at_all_bars_changes_every_row(monkeypatch: pytest.MonkeyPatch) -> None:
    planted(monkeypatch, lambda source: after_warm_up(source / source.mean()))
    strategy = make_strategy()
    found = checked(strategy)
    assert kinds_of(found) == {"1h_mean_raw": {"cut", "perturbed", "fit"}}
    first = run_pipeline(strategy, bars_for(strategy)).symbols[0].series.first
    for leak in found.leaks[:2]:
        assert leak.first == STORED["ONE", "1h"].timestamps[first]
        assert leak.rows == max(point.bar for point in found.points) - first + 1


def test_a_leak_is_named_though_its_fuzzy_set_hides_it(monkeypatch: pytest.MonkeyPatch) -> None:
    planted(monkeypatch, centred)
    sets = {"far": {"indicator": "mean", "over": [1e6, 1e7, 1e8], "under": [-3, -2, -1]}}
    found = checked(make_strategy(fuzzy_sets=sets, nn_inputs=[{"fuzzy_set": "far"}]))
    assert kinds_of(found) == {
        name: {"cut", "perturbed"} for name in ("1h_far_over", "1h_far_under")
    }
    assert all(leak.largest_change for leak in found.leaks)


def test_an_indicator_of_a_leaky_indicator_is_named_too(monkeypatch: pytest.MonkeyPatch) -> None:
    planted(monkeypatch, centred)
    indicators = {
        "r": {"type": "rsi", "source": "mean"},
        "mean": {"type": "sma", "period": 5},
        "width": {"type": "bollingerbandwidth"},
    }
    found = checked(make_strategy(indicators=indicators))
    assert set(kinds_of(found)) == {"1h_level_low", "1h_level_high", "1h_mean_raw"}
    assert {leak.source for leak in found.leaks} == {"mean", "r"}


@pytest.mark.parametrize("symbol", ["ONE", "BOTH"], ids=["resampled", "stored"])
def test_a_join_that_shows_open_bars_is_caught(
    symbol: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def last_opened(bars: Bars, base: Bars) -> IntArray:
        moments = base.timestamps + timeframe_us(base.timeframe)
        return np.searchsorted(bars.timestamps, moments, side="left") - 1

    monkeypatch.setattr(pipeline, "last_closed", last_opened)
    found = kinds_of(checked(make_strategy(symbol, timeframes=SEVERAL)))
    assert {name.split("_")[0] for name in found} - {"rows"} == {"4h", "1d"}
    for timeframe in ("4h", "1d"):
        kinds = [kinds for name, kinds in found.items() if name.startswith(timeframe)]
        assert set[str]().union(*kinds) == {"cut", "perturbed"}


def test_a_resampled_bar_that_comes_too_early_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    def early(bars: Bars, timeframe: str) -> Bars:
        made = resample(bars, timeframe)
        return replace(made, timestamps=made.timestamps - timeframe_us(timeframe))

    monkeypatch.setattr(markets, "resample", early)
    found = kinds_of(checked(make_strategy(timeframes=SEVERAL)))
    assert {name.split("_")[0] for name in found} - {"rows"} == {"4h", "1d"}


def test_what_is_fitted_on_all_rows_is_caught_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    def all_bars(labelled: list[LabelledRows], _: list[Cut]) -> list[IntArray]:
        return [rows.bars for rows in labelled]

    monkeypatch.setattr(datasets, "_training_bars", all_bars)
    found = checked(make_strategy())
    names = ("1h_mean_raw", "1h_wide_low", "1h_wide_medium", "1h_wide_high")
    assert kinds_of(found) == {name: {"fit"} for name in names}
    assert all(leak.largest_change for leak in found.leaks)
    crisp = checked(make_strategy(model={"type": "neuro_fuzzy"}))
    assert kinds_of(crisp) == {"1h_mean_raw": {"fit"}, "1h_wide": {"fit"}}


def test_a_matrix_that_is_adjusted_by_all_rows_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    def adjusted(matrix: Any, series: SymbolSeries, *rest: Any) -> None:
        fill_matrix(matrix, series, *rest)
        matrix[:, 2] -= np.float32(series.base.close.mean())

    monkeypatch.setattr(datasets, "fill_matrix", adjusted)
    found = checked(make_strategy(["ONE", "TWO"]))
    assert kinds_of(found) == {"1h_mean_raw": {"fit"}}
    assert [leak.symbol for leak in found.leaks] == ["ONE", "TWO"]


def test_labels_that_are_known_later_than_they_say_are_caught(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def too_early(spec: Any, bars: Bars) -> Labels:
        labels = make_labels(spec, bars)
        return replace(labels, known_at=labels.known_at - 3)

    monkeypatch.setattr(datasets, "make_labels", too_early)
    found = checked(make_strategy())
    assert kinds_of(found) == {"label": {"label"}}
    assert found.leaks[0].source == "triple_barrier"
    values = checked(make_strategy(labels=LABELS[2]))
    assert kinds_of(values) == {"label": {"label"}}
    assert values.leaks[0].largest_change


@pytest.mark.parametrize("too_few", [1, 12], ids=["by_one_bar", "at_all"])
@pytest.mark.parametrize("data_split", SPLITS, ids=["shares", "walk_forward", "purged_kfold"])
def test_rows_that_are_not_purged_are_caught(
    too_few: int, data_split: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def cut_too_late(rows: LabelledRows, stretches: Any, embargo: int) -> Cut:
        return cut(replace(rows, known_at=rows.known_at - too_few), stretches, embargo)

    monkeypatch.setattr(datasets, "cut", cut_too_late)
    found = checked(make_strategy(labels=LABELS[2], data_split=data_split))
    assert kinds_of(found) == {"label": {"label"}}
    assert found.leaks[0].rows == too_few


def test_training_rows_that_a_later_price_chooses_are_caught(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def chosen(rows: LabelledRows, stretches: Any, embargo: int) -> Cut:
        (name, train), *others = cut(rows, stretches, embargo)
        fewer = int(rows.base.close[-1] * 100) % 50
        return ((name, range(train.start + fewer, train.stop)), *others)

    monkeypatch.setattr(datasets, "cut", chosen)
    found = kinds_of(checked(make_strategy()))
    assert found["rows"] == {"split"}


def test_no_difference_hides_behind_a_missing_number() -> None:
    before = np.array([np.nan, np.nan, 1.0, 0.0, 5.0])
    after = np.array([np.nan, 2.0, np.nan, -0.0, 5.0])
    assert differing(before, after).tolist() == [1, 2, 3]


# What a training set is like


def portrait_of(strategy: Strategy, market: Market | None = None) -> DatasetReport:
    return report_dataset(run_pipeline(strategy, market or bars_for(strategy)))


def test_splits_are_counted_by_symbol_with_what_the_purge_took() -> None:
    strategy = make_strategy(["ONE", "TWO"])
    run = run_pipeline(strategy, bars_for(strategy))
    found = report_dataset(run)
    data = run.folds[0].dataset
    assert (found.labels.horizon, found.labels.longest, found.labels.embargo) == (24, 24, 7)
    assert [(facts.split, facts.symbol) for facts in found.splits] == [
        (split, symbol) for split in ("train", "validation", "test") for symbol in ("ONE", "TWO")
    ]
    for split, purged in (("train", 24 + 7), ("validation", 24 + 7), ("test", 0)):
        own = [facts for facts in found.splits if facts.split == split]
        assert sum(facts.rows for facts in own) == len(getattr(data.splits, split))
        assert [facts.purged for facts in own] == [purged, purged]
        for facts in own:
            assert facts.classes is not None
            assert sum(facts.classes.values()) == facts.samples == facts.rows
    kept = sum(facts.rows + facts.purged for facts in found.splits)
    assert kept == found.labels.samples


def test_sequences_have_fewer_samples_than_rows_and_values_have_a_mean() -> None:
    strategy = make_strategy(model=MODELS[1], labels=LABELS[2])
    run = run_pipeline(strategy, bars_for(strategy))
    train = report_dataset(run).splits[0]
    labels = run.folds[0].dataset.labels[11 : train.rows]
    assert train.samples == train.rows - 11 == len(labels)
    assert train.classes is None
    assert train.mean == pytest.approx(labels.mean(), abs=1e-7)
    assert train.deviation == pytest.approx(labels.std(), rel=1e-5)


def test_the_first_fold_and_the_last_are_looked_at() -> None:
    found = portrait_of(make_strategy(data_split=SPLITS[2]))
    assert [facts.fold for facts in found.splits] == [1, 1, 1, 4, 4, 4]


def test_columns_that_tell_nothing_are_named() -> None:
    sets = {
        "level": {"indicator": "r", "low": [0, 30, 50], "high": [50, 70, 100]},
        "twin": {"indicator": "r", "low": [0, 30, 50], "other": [40, 70, 100]},
        "dead": {"indicator": "r", "never": [200, 300, 400], "far": [-3, -2, -1]},
        "rare": {"indicator": "r", "most": [-9e5, 50, 50, 9e5], "edge": [0, 1, 22]},
    }
    inputs = [{"fuzzy_set": name} for name in sets]
    found = portrait_of(make_strategy(fuzzy_sets=sets, nn_inputs=inputs))
    facts = {one.feature: one for one in found.features}
    assert facts["1h_twin_low"].same_as == "1h_level_low"
    assert facts["1h_level_low"].same_as is None
    assert (facts["1h_dead_never"].minimum, facts["1h_dead_never"].maximum) == (0, 0)
    assert facts["1h_dead_never"].uncovered == 1
    assert facts["1h_level_low"].uncovered == 0
    assert 0.99 < facts["1h_rare_edge"].alike < 1
    assert facts["1h_level_low"].fuzzy_set == "level"
    warned = "\n".join(found.warnings)
    assert "1h_dead_never: dead, 0 in every training row" in warned
    assert "1h_rare_edge: nearly constant" in warned
    assert "1h_twin_low: the same as 1h_level_low in every row" in warned
    assert "1h_dead: all of its memberships are 0 in 100.0% of the rows" in warned
    assert "1h_level:" not in warned


def test_values_that_training_never_saw_are_warned_of() -> None:
    bars = sample_bars("ONE", rows=ROWS)
    jump = np.where(np.arange(ROWS) < 2500, 1.0, 4.0)
    prices = {name: getattr(bars, name) * jump for name in ("open", "high", "low", "close")}
    found = portrait_of(make_strategy(labels=LABELS[2]), one_series(replace(bars, **prices)))
    raw = next(one for one in found.features if one.feature == "1h_mean_raw")
    assert raw.outside > 0.5
    assert raw.uncovered is None
    assert any(w.startswith("1h_mean_raw: ") and "lie outside" in w for w in found.warnings)


def test_rare_classes_and_a_training_without_a_judge_are_warned_of() -> None:
    labels = LABELS[3] | {"bullish_threshold": 0.05}
    alone = {"train": 1.0, "validation": 0.0, "test": 0.0}
    found = portrait_of(make_strategy(labels=labels, data_split=alone))
    assert [text.partition(":")[0] for text in found.warnings] == [
        "splits",
        "train of ONE, fold 1",
    ]
    assert "neither validation nor test" in found.warnings[0]
    assert "samples are BULLISH " in found.warnings[1]
    assert checked(make_strategy(labels=labels, data_split=alone)).leaks == ()


def test_a_neuro_fuzzy_column_is_covered_as_its_curves_are() -> None:
    sets = {"level": {"indicator": "r", "low": [0, 20, 40], "high": [60, 80, 100]}}
    parts: dict[str, Any] = {"fuzzy_sets": sets, "nn_inputs": [{"fuzzy_set": "level"}]}
    graded = portrait_of(make_strategy(**parts)).features
    crisp = portrait_of(make_strategy(model=MODELS[2], **parts)).features
    assert [one.uncovered for one in graded] == [crisp[0].uncovered] * 2
    assert crisp[0].uncovered is not None
    assert 0.05 < crisp[0].uncovered < 0.95
