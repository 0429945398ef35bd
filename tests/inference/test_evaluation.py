"""What a model is worth: figures by hand-made numbers, no baseline that knows the future."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from trained_models import BARS, Trained, make_strategy, market_of, regression, train

from ktrdr.data.bars import Bars, parse_date_range
from ktrdr.data.sample import sample_bars
from ktrdr.data.store import BarStore
from ktrdr.errors import DataNotFound, InvalidData, Usage
from ktrdr.features.input_schema import InputSchema
from ktrdr.features.labels import make_labels
from ktrdr.inference.evaluation import evaluate
from ktrdr.inference.evaluation.baselines import baselines
from ktrdr.inference.evaluation.rows import EvaluatedRows, evaluated_rows
from ktrdr.inference.evaluation.scores import calibration, class_scores, value_scores
from ktrdr.inference.evaluation.trading import equity, keep_book, positions_of, returns_of, trading
from ktrdr.inference.prediction import model_inputs
from ktrdr.strategy.loading import validate_strategy
from ktrdr.strategy.schema import Strategy

OTHER = sample_bars("OTHER", rows=3000, seed=11)
COST = 0.004
CLASSES = ("BUY", "HOLD", "SELL")

Evaluate = Callable[..., Any]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> BarStore:
    store = BarStore(tmp_path_factory.mktemp("storage"))
    for bars in (BARS, OTHER):
        store.write(bars)
    return store


@pytest.fixture(scope="module")
def classes(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    decisions = {"cost_model": {"round_trip_cost": COST}}
    return train(tmp_path_factory.mktemp("classes"), make_strategy(decisions=decisions))


@pytest.fixture(scope="module")
def values(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return train(tmp_path_factory.mktemp("values"), regression("gru"))


# Figures by hand ---------------------------------------------------------------------------------


def test_figures_of_classes_by_hand() -> None:
    shares = [[0.5, 0.3, 0.2], [0.1, 0.7, 0.2], [0.25, 0.55, 0.2], [0.2, 0.45, 0.35]]
    outputs = np.log(shares) + np.array([[3.0], [0.0], [-700.0], [900.0]])  # scale is no matter
    scores = class_scores(outputs, np.array([0, 1, 0, 0]), CLASSES)
    assert scores["accuracy"] == 0.5
    expected = -(math.log(0.5) + math.log(0.7) + math.log(0.25) + math.log(0.2)) / 4
    assert scores["log_loss"] == pytest.approx(expected, rel=1e-12)
    squares = [
        0.25 + 0.09 + 0.04,
        0.01 + 0.09 + 0.04,
        0.5625 + 0.3025 + 0.04,
        0.64 + 0.2025 + 0.1225,
    ]
    assert scores["brier_score"] == pytest.approx(sum(squares) / 4, rel=1e-12)
    assert scores["confusion_matrix"] == [[1, 2, 0], [0, 1, 0], [0, 0, 0]]
    assert scores["per_class"] == {
        "BUY": {"precision": 1.0, "recall": 1 / 3, "f1": 0.5, "support": 3, "predicted": 1},
        "HOLD": {"precision": 1 / 3, "recall": 1.0, "f1": 0.5, "support": 1, "predicted": 3},
        "SELL": {"precision": None, "recall": None, "f1": None, "support": 0, "predicted": 0},
    }
    bins = {round(b["up_to"], 1): b for b in scores["calibration"] if b["rows"]}
    assert {edge: (b["rows"], b["accuracy"]) for edge, b in bins.items()} == {
        0.5: (2, 0.5),  # 0.5 and 0.45
        0.6: (1, 0.0),
        0.7: (1, 1.0),
    }
    assert bins[0.5]["confidence"] == pytest.approx(0.475)
    error = (2 * 0.025 + 0.55 + 0.3) / 4
    assert scores["expected_calibration_error"] == pytest.approx(error, rel=1e-9)


def test_every_confidence_has_a_bin() -> None:
    confidences = np.array([0.0, 1e-9, 0.1, np.nextafter(0.1, 1), 0.95, 1.0])
    bins = calibration(confidences, np.ones(6, bool))
    assert [b["rows"] for b in bins] == [3, 1, 0, 0, 0, 0, 0, 0, 0, 2]
    assert (bins[2]["confidence"], bins[2]["accuracy"]) == (None, None)
    assert (bins[9]["confidence"], bins[9]["accuracy"]) == (pytest.approx(0.975), 1.0)


def test_an_output_that_is_sure_of_a_wrong_class_has_a_finite_loss() -> None:
    scores = class_scores(np.array([[800.0, -800.0]]), np.array([1]), ("A", "B"))
    assert scores["log_loss"] == 1600.0
    assert scores["brier_score"] == 2.0


def test_figures_of_values_by_hand() -> None:
    labels, said = np.array([1.0, -2.0, 0.0, 3.0]), np.array([2.0, -1.0, 1.0, 1.0])
    scores = value_scores(said, labels)
    assert scores["mae"] == (1 + 1 + 1 + 2) / 4
    assert scores["rmse"] == pytest.approx(math.sqrt(7 / 4))
    assert scores["r2"] == pytest.approx(1 - 7 / 13)
    assert scores["sign_agreement"] == 0.75
    # deviations of labels 0.5 -2.5 -0.5 2.5, of values 1.25 -1.75 0.25 0.25
    cross = 0.625 + 4.375 - 0.125 + 0.625
    assert scores["correlation"] == pytest.approx(cross / math.sqrt(13 * 4.75))


def test_what_would_be_divided_by_nothing_is_null() -> None:
    still, moving = np.full(3, 0.1), np.array([1.0, 2.0, 3.0])
    assert value_scores(moving, still)["r2"] is None
    assert value_scores(moving, still)["correlation"] is None
    assert value_scores(still, moving)["correlation"] is None
    assert returns_of(np.array([0.01]))["sharpe_per_bar"] is None
    assert returns_of(np.full(5, 0.1))["sharpe_per_bar"] is None


def test_a_book_is_kept_by_hand() -> None:
    """Long, long, out, short: the price moves by 10 %, -5 %, 2 %, -4 %."""
    moves = np.array([0.10, -0.05, 0.02, -0.04])
    book = keep_book(np.arange(4), moves, np.array([1.0, 1.0, 0.0, -1.0]), 0.02)
    assert book.turnover == 1 + 1 + 1 + 1
    assert book.gross.tolist() == pytest.approx([0.10, -0.05, 0.0, 0.04])
    assert book.net.tolist() == pytest.approx([0.09, -0.05, -0.01, 0.02])
    figures = returns_of(book.net)
    end = 1.09 * 0.95 * 0.99 * 1.02
    assert figures["total_return"] == pytest.approx(end - 1)
    assert figures["mean_return"] == pytest.approx(0.0125)
    deviation = math.sqrt(sum((x - 0.0125) ** 2 for x in (0.09, -0.05, -0.01, 0.02)) / 3)
    assert figures["sharpe_per_bar"] == pytest.approx(0.0125 / deviation)
    assert figures["max_drawdown"] == pytest.approx(1 - 0.95 * 0.99)
    turned = keep_book(np.arange(2), moves[:2], np.array([1.0, -1.0]), 0.02)
    assert turned.turnover == 1 + 2 + 1
    assert turned.net.tolist() == pytest.approx([0.09, 0.05 - 0.02 - 0.01])


def test_a_loss_from_the_start_is_a_drawdown_and_ruin_stays() -> None:
    assert returns_of(np.array([-0.1, 0.05]))["max_drawdown"] == pytest.approx(0.1)
    assert equity(np.array([0.5, -1.5, 3.0])).tolist() == [1.5, 0.0, 0.0]
    assert returns_of(np.array([0.5, -1.5, 3.0]))["total_return"] == -1.0


def test_a_worth_beyond_all_numbers_is_null() -> None:
    """Two thousand doublings."""
    figures, curves = trading([rows("A", list(range(2000)), [1.0] * 2000, [0] * 2000)], CLASSES, 0)
    assert figures is not None
    assert figures["gross"] == {
        "total_return": None,
        "mean_return": 1.0,
        "sharpe_per_bar": None,
        "max_drawdown": None,
    }
    assert curves is not None
    assert curves.gross[1000] == 2.0**1001


@pytest.mark.parametrize(
    ("names", "positions"),
    [
        (CLASSES, [1, 0, -1]),
        (("BULLISH", "BEARISH", "NEUTRAL"), [1, -1, 0]),
        (("TREND_UP", "TREND_DOWN", "RANGING", "VOLATILE"), [1, -1, 0, 0]),
    ],
)
def test_each_class_has_its_position(names: tuple[str, ...], positions: list[int]) -> None:
    assert positions_of(np.eye(len(names)), names).tolist() == positions


def test_a_value_has_the_position_of_its_sign() -> None:
    assert positions_of(np.array([[0.2], [-3.0], [0.0]]), ()).tolist() == [1, -1, 0]


def rows(symbol: str, stamps: list[int], moves: list[float], said: list[int]) -> EvaluatedRows:
    nothing = np.zeros(len(stamps), np.int64)
    return EvaluatedRows(
        symbol=symbol,
        timestamps=np.array(stamps),
        outputs=np.eye(3)[said],
        labels=np.array(said),
        labelled=np.ones(len(stamps), bool),
        past=nothing,
        past_known=np.ones(len(stamps), bool),
        moves=np.array(moves),
        splits={},
        training_labels=nothing[:0],
    )


def test_several_symbols_share_what_there_is_at_each_moment() -> None:
    one = rows("A", [1, 2, 3], [0.1, 0.2, np.nan], [0, 0, 0])
    two = rows("B", [2, 3], [0.4, 0.3], [2, 1])
    figures, curves = trading([one, two], CLASSES, 0.0)
    assert figures is not None
    assert curves is not None
    assert curves.timestamps.tolist() == [1, 2, 3]
    assert curves.gross.tolist() == pytest.approx([1.1, 1.1 * 0.9, 1.1 * 0.9])
    assert curves.held.tolist() == pytest.approx([1.1, 1.1 * 1.3, 1.1 * 1.3 * 1.3])
    assert figures["bars"] == 4
    assert figures["hit_rate"] == pytest.approx(2 / 3)
    assert figures["exposure"] == 0.75
    assert figures["turnover"] == 4
    assert trading([rows("A", [1], [np.nan], [0])], CLASSES, 0.0) == (None, None)


def test_baselines_by_hand() -> None:
    part = rows("A", [1, 2, 3, 4], [0.0] * 4, [0, 2, 2, 1])
    part = replace(
        part, past=np.array([9, 0, 2, 2]), past_known=np.array([False, True, True, True])
    )
    found = baselines([part], CLASSES)
    assert found["majority"] is not None
    assert found["persistence"] is not None
    assert (found["majority"]["class"], found["majority"]["accuracy"]) == ("SELL", 0.5)
    assert found["majority"]["known_from"] == "these rows"
    assert (found["persistence"]["rows"], found["persistence"]["accuracy"]) == (3, 1 / 3)
    trained = replace(part, training_labels=np.array([1, 1, 0]))
    found = baselines([trained], CLASSES)
    assert found["majority"] is not None
    assert (found["majority"]["class"], found["majority"]["accuracy"]) == ("HOLD", 0.25)
    assert found["majority"]["known_from"] == "training rows"
    assert (found["zero"], found["mean"]) == (None, None)


# Of a trained model ------------------------------------------------------------------------------


def test_on_its_test_split_a_model_has_the_figures_of_its_training(
    classes: Trained, values: Trained, store: BarStore
) -> None:
    document = evaluate(classes.model, store).document
    overall, tested = document["overall"], classes.completed.metrics
    assert overall["metrics"]["accuracy"] == tested["test_accuracy"]
    assert overall["metrics"]["confusion_matrix"] == tested["confusion_matrix"]
    count = len(classes.dataset.splits.test)
    assert (document["rows_from"], overall["rows"]) == ("test split", count)
    assert overall["seen"] == {"train": 0, "validation": 0, "test": count, "unseen": 0}
    assert document["notes"] == []
    trained = classes.dataset.labels[: classes.dataset.splits.train.stop]
    commonest = CLASSES[int(np.bincount(trained).argmax())]
    assert overall["baselines"]["majority"]["class"] == commonest

    overall, tested = evaluate(values.model, store).document["overall"], values.completed.metrics
    part = values.dataset.splits.test
    assert overall["rows"] == len(values.dataset.samples(part, 6)) == len(part) - 5
    assert overall["metrics"]["mae"] == pytest.approx(tested["test_mae"], rel=1e-12)
    assert overall["metrics"]["r2"] == pytest.approx(tested["test_r2"], rel=1e-9)
    assert overall["metrics"]["sign_agreement"] == tested["test_sign_agreement"]
    learned = values.dataset.labels[values.dataset.samples(values.dataset.splits.train, 6)]
    assert overall["baselines"]["mean"]["value"] == pytest.approx(
        learned.mean(dtype=np.float64), rel=1e-12
    )
    assert overall["baselines"]["mean"]["correlation"] is None


@pytest.mark.parametrize("make", ["classes", "values"])
def test_every_field_is_there_and_the_document_is_plain_json(
    make: str, store: BarStore, request: pytest.FixtureRequest
) -> None:
    document = evaluate(request.getfixturevalue(make).model, store).document
    json.dumps(document, allow_nan=False)
    assert list(document) == [
        *("model", "symbols", "timeframe", "rows_from", "from", "to", "output_format", "classes"),
        *("round_trip_cost", "overall", "by_symbol", "notes"),
    ]
    overall = document["overall"]
    assert document["by_symbol"] == [overall]
    assert list(overall) == [
        *("symbol", "rows", "first", "last", "seen", "metrics", "baselines", "trading"),
    ]
    assert list(overall["metrics"]) == [
        *("accuracy", "log_loss", "brier_score", "expected_calibration_error", "per_class"),
        *("confusion_matrix", "calibration", "mae", "rmse", "r2", "sign_agreement", "correlation"),
    ]
    assert set(overall["baselines"]) == {"majority", "persistence", "zero", "mean"}


def brute_past(bars: Bars, strategy: Strategy, bar: int) -> Any:
    """The label of the last bar whose label is final within the bars up to this one."""
    labels = make_labels(strategy.training.labels, bars.rows(0, bar + 1))
    final = np.flatnonzero(labels.valid)
    return labels.values[final[-1]] if len(final) else None


@pytest.mark.parametrize("make", ["classes", "values"])
def test_persistence_knows_no_later_bar(make: str, request: pytest.FixtureRequest) -> None:
    trained: Trained = request.getfixturevalue(make)
    made = model_inputs(trained.model, trained.market)
    found = evaluated_rows(trained.model, made, made.first, len(BARS))
    for bar in np.random.default_rng(2).integers(made.first, len(BARS), 40).tolist():
        expected = brute_past(BARS, trained.strategy, bar)
        place = bar - made.first
        assert found.past_known[place] == (expected is not None)
        assert expected is None or found.past[place] == expected


def test_trading_follows_the_answers_over_the_very_next_bar(
    classes: Trained, store: BarStore
) -> None:
    document = evaluate(classes.model, store).document
    view = document["overall"]["trading"]
    seen = next(s for s in classes.model.input_schema.seen if s.split == "test")
    answers = classes.model.predict(BARS)
    opens = answers["timestamp"].dt.epoch("us").to_numpy()
    inside = (seen.first <= opens) & (opens <= seen.last)
    likeliest = answers.drop("timestamp").to_numpy()[inside].argmax(axis=1)
    worth, after, held, position, turnover = 1.0, 1.0, 1.0, 0, 0
    for stamp, said in zip(opens[inside].tolist(), likeliest.tolist(), strict=True):
        bar = int(np.searchsorted(BARS.timestamps, stamp))
        move = BARS.close[bar + 1] / BARS.close[bar] - 1
        wanted = {0: 1, 1: 0, 2: -1}[said]
        change = abs(wanted - position)
        turnover, position = turnover + change, wanted
        worth *= 1 + position * move
        cost = COST / 2 * (change + (abs(position) if stamp == opens[inside][-1] else 0))
        after *= 1 + position * move - cost
        held *= 1 + move
    assert view["bars"] == inside.sum()
    assert view["turnover"] == turnover + abs(position)
    assert view["gross"]["total_return"] == pytest.approx(worth - 1, rel=1e-9)
    assert view["net"]["total_return"] == pytest.approx(after - 1, rel=1e-9)
    assert view["buy_and_hold"]["gross"]["total_return"] == pytest.approx(held - 1, rel=1e-9)
    assert document["round_trip_cost"] == COST


def test_rows_that_it_was_trained_on_are_counted_and_said(
    classes: Trained, store: BarStore
) -> None:
    start, end = parse_date_range("2020-01-10", "2020-12-31")
    document = evaluate(classes.model, store, within=(start, end)).document
    overall = document["overall"]
    labels = make_labels(classes.strategy.training.labels, BARS)
    judged = labels.valid & (BARS.timestamps >= (start or 0))
    assert document["rows_from"] == "bars"
    assert (document["from"], document["to"]) == (
        "2020-01-10T00:00:00Z",
        "2020-12-31T23:59:59.999999Z",
    )
    assert overall["rows"] == judged.sum()
    train_rows = next(s for s in classes.model.input_schema.seen if s.split == "train")
    inside = (train_rows.first <= BARS.timestamps) & (BARS.timestamps <= train_rows.last)
    assert overall["seen"]["train"] == (judged & inside).sum() > 0
    assert sum(overall["seen"].values()) == overall["rows"]
    assert f"{overall['seen']['train']:,} of the {overall['rows']:,} rows" in document["notes"][0]
    assert "validation" in document["notes"][1]


def test_a_symbol_that_it_never_saw_is_judged_whole(classes: Trained, store: BarStore) -> None:
    document = evaluate(classes.model, store, "OTHER").document
    overall = document["overall"]
    assert overall["seen"] == {"train": 0, "validation": 0, "test": 0, "unseen": overall["rows"]}
    valid = make_labels(classes.strategy.training.labels, OTHER).valid
    assert overall["rows"] == valid[60:].sum()
    assert overall["baselines"]["majority"]["known_from"] == "these rows"
    assert document["notes"] == [
        "it was not trained on OTHER",
        "majority or mean are those of the evaluated rows themselves, which is hindsight",
    ]


def test_several_symbols_are_judged_each_and_together(tmp_path: Path, store: BarStore) -> None:
    symbols = {"symbols": {"mode": "multi_symbol", "list": ["SAMPLE", "OTHER"]}}
    strategy = make_strategy(data=symbols)
    both = train(tmp_path, strategy, market_of(strategy, BARS, OTHER))
    document = evaluate(both.model, store).document
    each, overall = document["by_symbol"], document["overall"]
    assert [one["symbol"] for one in each] == ["SAMPLE", "OTHER"]
    assert overall["symbol"] is None
    assert overall["rows"] == sum(one["rows"] for one in each)
    assert overall["metrics"]["accuracy"] == both.completed.metrics["test_accuracy"]
    weighted = sum(one["rows"] * one["metrics"]["log_loss"] for one in each) / overall["rows"]
    assert overall["metrics"]["log_loss"] == pytest.approx(weighted)
    only = evaluate(both.model, store, "OTHER").document
    assert only["overall"] == each[1]


def test_bars_before_the_start_date_of_the_training_change_no_test_row(
    tmp_path: Path, store: BarStore
) -> None:
    """An average that never forgets begins where it began in training."""
    slow: dict[str, Any] = {"rsi_14": {"type": "rsi"}, "roc_5": {"type": "roc"}}
    slow["ema_9"] = {"type": "ema", "period": 600}
    strategy = regression(data={"start_date": "2020-01-12"}, indicators=slow)
    later = BARS.between(*parse_date_range("2020-01-12", None))
    made = train(tmp_path, strategy, market_of(strategy, later))
    mae = evaluate(made.model, store).document["overall"]["metrics"]["mae"]
    assert mae == pytest.approx(made.completed.metrics["test_mae"], rel=1e-12)


def test_what_cannot_be_judged_is_refused_with_the_reason(
    classes: Trained, store: BarStore
) -> None:
    older = replace(classes.model, input_schema=InputSchema(classes.model.columns))
    with pytest.raises(InvalidData, match=r"has no test rows of SAMPLE: .* --from and --to"):
        evaluate(older, store)
    with pytest.raises(DataNotFound, match="no bars of NOTHING 1h"):
        evaluate(classes.model, store, "NOTHING")
    with pytest.raises(Usage, match="is not a symbol"):
        evaluate(classes.model, store, "../x")
    with pytest.raises(InvalidData, match="none of the 0 bars of SAMPLE 1h"):
        evaluate(classes.model, store, within=parse_date_range("2030-01-01", None))
    last = int(BARS.timestamps[-2])
    with pytest.raises(InvalidData, match=r"none of the 2 rows of SAMPLE 1h from .* has a label"):
        evaluate(classes.model, store, within=(last, None))


def test_a_model_without_a_test_share_asks_for_dates(tmp_path: Path, store: BarStore) -> None:
    split = {"data_split": {"train": 0.8, "validation": 0.2, "test": 0.0}}
    made = train(tmp_path, make_strategy(training=split))
    with pytest.raises(InvalidData, match="has no test rows of SAMPLE"):
        evaluate(made.model, store)
    assert evaluate(made.model, store, within=(BARS.first, BARS.last)).document["overall"]["rows"]


@pytest.mark.parametrize("fold", [1, 3])
def test_each_fold_is_judged_on_its_own_test_rows(
    fold: int, tmp_path: Path, store: BarStore
) -> None:
    split = {"data_split": {"mode": "purged_kfold", "folds": 3}}
    made = train(tmp_path, make_strategy(training=split), fold=fold)
    overall = evaluate(made.model, store).document["overall"]
    assert overall["metrics"]["confusion_matrix"] == made.completed.metrics["confusion_matrix"]
    assert overall["seen"]["test"] == overall["rows"] == len(made.dataset.splits.test)
    middle = evaluate(made.model, store, within=(BARS.first, BARS.last)).document["overall"]
    assert middle["seen"]["train"] == len(made.dataset.splits.train)


def test_samples_of_an_event_filter_are_what_counts(tmp_path: Path, store: BarStore) -> None:
    labels = {
        "source": "triple_barrier",
        "max_holding_period": 12,
        "cusum_threshold": "auto",
        "compute_weights": True,
    }
    made = train(tmp_path, make_strategy("gru", training={"labels": labels}))
    overall = evaluate(made.model, store).document["overall"]
    places = made.dataset.samples(made.dataset.splits.test, 6)
    assert overall["rows"] == len(places)
    assert overall["metrics"]["accuracy"] == made.completed.metrics["test_accuracy"]
    assert overall["trading"]["bars"] > overall["rows"]  # a position is held at every bar
    assert validate_strategy(made.strategy.model_dump(exclude_none=True), "again") == made.strategy
