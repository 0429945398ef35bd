"""A stored model predicts at bars: the trainer's own bits, with however many bars."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from trained_models import BARS, NETWORKS, Trained, make_strategy, market_of, regression, train

from ktrdr.data.bars import columns
from ktrdr.data.market import one_series
from ktrdr.data.resampling import resample
from ktrdr.data.sample import sample_bars
from ktrdr.data.store import BarStore
from ktrdr.errors import DataNotFound, InvalidData, Usage
from ktrdr.features.input_schema import InputSchema
from ktrdr.features.pipeline import compute_inputs
from ktrdr.inference.prediction import model_inputs, predict, stored_market
from ktrdr.strategy.schema import Strategy
from ktrdr.training.batch_invariant import BATCH_ROWS, predictions
from ktrdr.training.batches import Split

CPU = torch.device("cpu")
LENGTH = 6  # of the sequences
HISTORY = 60

Train = Callable[[Strategy], Trained]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Train:
    """Each strategy is trained once."""
    known: dict[str, Trained] = {}

    def of(strategy: Strategy) -> Trained:
        key = strategy.model_dump_json()
        if key not in known:
            known[key] = train(tmp_path_factory.mktemp("models"), strategy)
        return known[key]

    return of


def values(frame: pl.DataFrame) -> np.ndarray[Any, Any]:
    return frame.drop("timestamp").to_numpy()


def first_answer(strategy: Strategy) -> int:
    return HISTORY + (strategy.model.sequence_length or 1) - 1


@pytest.mark.parametrize("network", NETWORKS)
def test_answers_are_what_the_trainer_saw_on_the_same_rows(network: str, trained: Train) -> None:
    made = trained(make_strategy(network))
    model, dataset = made.model, made.dataset
    seen = compute_inputs(made.strategy, made.market, "SAMPLE", model.input_schema.transforms)
    found = model.predict(BARS)
    first = first_answer(made.strategy)
    assert found["timestamp"].dt.epoch("us").to_list() == BARS.timestamps[first:].tolist()
    outputs = model.outputs(seen.matrix)
    for part in (dataset.splits.train, dataset.splits.validation, dataset.splits.test):
        places = dataset.samples(part, made.strategy.model.sequence_length)
        bars = np.searchsorted(BARS.timestamps, dataset.timestamps[places])
        assert np.array_equal(seen.matrix[bars - HISTORY], dataset.inputs[places])
        split = Split(dataset, part, CPU, made.strategy.model.sequence_length)
        by_trainer = predictions(model.module, split.inputs, split.indices)
        assert np.array_equal(outputs[bars - first], by_trainer.numpy())
        shares = torch.softmax(by_trainer, dim=1).numpy()
        assert np.array_equal(values(found)[bars - first], shares)
    hits = by_trainer.argmax(dim=1).numpy() == dataset.labels[places]
    assert hits.mean() == made.completed.metrics["test_accuracy"]


@pytest.mark.parametrize("network", NETWORKS)
def test_an_answer_does_not_depend_on_how_many_stand_beside_it(
    network: str, trained: Train
) -> None:
    made = trained(make_strategy(network))
    first, market = first_answer(made.strategy), made.market
    whole = made.model.predict(BARS)
    assert len(whole) > 2 * BATCH_ROWS
    for count in (first + 1, first + 2, first + BATCH_ROWS, first + BATCH_ROWS + 1, 2001):
        assert made.model.predict(BARS.rows(0, count)).equals(whole.head(count - first))
    for start, stop in ((first, first + 1), (1500, 1501), (1500, 1508), (777, 2999)):
        stamps = BARS.timestamps
        part = predict(made.model, market, int(stamps[start]), int(stamps[stop - 1]))
        assert part.equals(whole[start - first : stop - first])
    torch.set_num_threads(2)
    try:
        assert made.model.predict(BARS).equals(whole)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)


@pytest.mark.parametrize("network", ["mlp", "gru"])
def test_the_same_rows_anywhere_in_memory_have_the_same_answers(
    network: str, trained: Train
) -> None:
    """Not only whole batches at the beginning: from any row on, at any address."""
    made = trained(make_strategy(network))
    inputs = model_inputs(made.model, made.market).inputs.matrix
    whole = made.model.outputs(inputs)
    for start in (1, 3, 1023, 2500):
        assert np.array_equal(made.model.outputs(inputs[start:]), whole[start:])


@pytest.mark.parametrize("network", ["mlp", "neuro_fuzzy"])
def test_a_regression_answers_with_values(network: str, trained: Train) -> None:
    made = trained(regression(network))
    found = made.model.predict(BARS)
    assert found.schema == {"timestamp": pl.Datetime("us", "UTC"), "value": pl.Float32}
    part = made.dataset.splits.test
    bars = np.searchsorted(BARS.timestamps, made.dataset.timestamps[part.start : part.stop])
    errors = np.abs(
        values(found)[bars - HISTORY, 0].astype(np.float64)
        - made.dataset.labels[part.start : part.stop]
    )
    assert errors.mean() == pytest.approx(made.completed.metrics["test_mae"], rel=1e-12)


def test_classes_have_their_names_and_their_shares_sum_to_one(trained: Train) -> None:
    found = trained(make_strategy()).model.predict(BARS)
    assert found.columns == ["timestamp", "BUY", "HOLD", "SELL"]
    assert np.abs(values(found).sum(axis=1) - 1).max() < 1e-6
    assert (values(found) >= 0).all()


def test_bars_come_as_polars_or_pandas_too(trained: Train) -> None:
    pd: Any = pytest.importorskip("pandas")
    model = trained(make_strategy()).model
    expected = model.predict(BARS)
    stamps, *prices = columns(BARS)
    names = ("open", "high", "low", "close", "volume")
    data = dict(zip(names, prices, strict=True))
    times = pd.to_datetime(stamps, unit="us")
    frames = {
        "polars": pl.DataFrame({"timestamp": pl.Series(times.to_numpy()), **data}),
        "zoned polars": pl.DataFrame(
            {"timestamp": pl.Series(times.to_numpy()).dt.replace_time_zone("UTC"), **data}
        ).with_columns(pl.col("timestamp").dt.convert_time_zone("America/New_York")),
        "pandas": pd.DataFrame({"timestamp": times, **data}),
        "pandas index": pd.DataFrame(data, index=times),
        "zoned index": pd.DataFrame(data, index=times.tz_localize("UTC").tz_convert("Asia/Tokyo")),
        "capitals": pd.DataFrame({k.title(): v for k, v in data.items()}, index=times),
    }
    for name, frame in frames.items():
        assert model.predict(frame).equals(expected), name


def frame(**changes: Any) -> pl.DataFrame:
    stamps, *prices = columns(BARS)
    names = ("open", "high", "low", "close", "volume")
    data = {"timestamp": pl.Series(stamps).cast(pl.Datetime("us"))}
    data |= {n: pl.Series(p) for n, p in zip(names, prices, strict=True)}
    return pl.DataFrame(data).with_columns(**changes)


@pytest.mark.parametrize(
    ("bars", "said"),
    [
        (BARS.rows(0, 60), "60 bars of SAMPLE 1h are too few.*needs 60 bars of history"),
        (frame().drop("low", "volume"), "lack low, volume"),
        (frame(close=pl.lit(None, pl.Float64)), "prices or volumes that are no numbers"),
        (frame(close=pl.lit("x")), "close of the bars holds String, no numbers"),
        (frame(timestamp=pl.lit(5)), "no dates and times"),
        (frame().reverse(), "not in the order of time"),
        (frame().clear(), "no rows"),
        (frame(high=pl.col("low")), "impossible rows"),
        (frame(timestamp=pl.col("timestamp").dt.epoch("s").cast(pl.Datetime("us"))), "less than"),
        (replace(BARS, timeframe="5m"), "these are 5m bars of SAMPLE, not 1h bars"),
        ({"1d": BARS}, "mlp@v1 needs bars of 1h, and 1h is missing"),
        ([1, 2], "list is no table of bars"),
    ],
)
def test_bars_that_cannot_be_used_are_refused_with_the_reason(
    bars: Any, said: str, trained: Train
) -> None:
    with pytest.raises(InvalidData, match=said):
        trained(make_strategy()).model.predict(bars)


def test_too_few_bars_for_a_sequence_are_counted(trained: Train) -> None:
    model = trained(make_strategy("gru")).model
    assert len(model.predict(BARS.rows(0, HISTORY + LENGTH))) == 1
    with pytest.raises(InvalidData, match=r"65 bars.*60 bars of history and then 6 for its first"):
        model.predict(BARS.rows(0, HISTORY + LENGTH - 1))


def test_a_model_of_one_timeframe_can_be_tried_on_another(trained: Train) -> None:
    """The same numbers under another name give the same predictions."""
    model = trained(make_strategy()).model
    relabelled = replace(BARS, timeframe="30m")
    assert model.predict(relabelled, timeframe="30m").equals(model.predict(BARS))
    with pytest.raises(Usage, match="'9x' is not a timeframe"):
        model.predict(BARS, timeframe="9x")


TWO = {"timeframes": {"mode": "multi_timeframe", "list": ["4h", "1h"], "resample": True}}


def test_higher_timeframes_are_given_or_resampled(trained: Train, tmp_path: Path) -> None:
    made = trained(make_strategy(data=TWO))
    higher = resample(BARS, "4h")
    resampled = made.model.predict(BARS)
    assert made.model.predict({"4h": higher, "1h": BARS}).equals(resampled)
    assert len(resampled) < len(BARS) - 4 * 14  # the 4h rsi takes longer than the history
    other = resample(sample_bars(rows=3000, seed=5), "4h")
    assert not made.model.predict({"1h": BARS, "4h": other}).equals(resampled)
    with pytest.raises(Usage, match="sees 4h, 1h: it cannot be used on 30m bars"):
        made.model.predict(BARS, timeframe="30m")

    fixed = {"timeframes": TWO["timeframes"] | {"resample": False}}
    strategy = make_strategy(data=fixed)
    without = train(tmp_path, strategy, market_of(strategy, BARS, higher)).model
    assert values(without.predict({"4h": higher, "1h": BARS})).shape == values(resampled).shape
    with pytest.raises(InvalidData, match="needs bars of 4h, 1h, and 4h is missing"):
        without.predict(BARS)


def test_stored_bars_are_read_or_resampled_alike(trained: Train, tmp_path: Path) -> None:
    model, store = trained(make_strategy(data=TWO)).model, BarStore(tmp_path)
    store.write(BARS)
    resampled = predict(model, stored_market(model, store, "SAMPLE"))
    assert resampled.equals(model.predict(BARS))
    store.write(resample(sample_bars(rows=3000, seed=5), "4h"))
    assert not predict(model, stored_market(model, store, "SAMPLE")).equals(resampled)
    with pytest.raises(DataNotFound, match="no bars of OTHER 4h, OTHER 1h"):
        stored_market(model, store, "OTHER")


def test_a_bar_that_comes_later_changes_no_answer_before_it(trained: Train) -> None:
    made = trained(make_strategy(data=TWO))
    whole = made.model.predict(BARS)
    for count in (1000, 1001, 1002, 1003):
        found = made.model.predict(BARS.rows(0, count))
        assert found.equals(whole.head(len(found)))
        assert (
            found["timestamp"][-1]
            == pl.Series([BARS.timestamps[count - 1]])
            .cast(pl.Datetime("us"))
            .dt.replace_time_zone("UTC")[0]
        )


def test_a_model_of_an_earlier_version_takes_what_its_strategy_says(trained: Train) -> None:
    plain: dict[str, Any] = {
        "fuzzy_sets": {"m": {"indicator": "rsi_14", "low": [0, 20, 50], "high": [50, 80, 100]}},
        "nn_inputs": [{"fuzzy_set": "m"}],
    }
    model = trained(make_strategy(**plain)).model
    older = replace(model, input_schema=InputSchema(model.columns))
    assert older.predict(BARS).equals(model.predict(BARS))


def test_rows_between_dates_need_history_before_them(trained: Train) -> None:
    model = trained(make_strategy()).model
    market = one_series(BARS)
    end = int(BARS.timestamps[HISTORY - 1])
    with pytest.raises(InvalidData, match=r"none of the 60 bars.*the first 60 are history"):
        predict(model, market, None, end)
    assert len(predict(model, market, None, int(BARS.timestamps[HISTORY]))) == 1
