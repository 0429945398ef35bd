"""Features of the shipped strategies against a second, independent implementation.

The reference is plain Python over lists (indicators: `textbook`); it shares no code with ktrdr.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from textbook import NAN, REFERENCE, Series, source_of

from ktrdr.data.bars import Bars, fingerprint
from ktrdr.data.market import one_series
from ktrdr.data.sample import sample_bars
from ktrdr.features.dataset import build_dataset
from ktrdr.features.pipeline import compute_inputs
from ktrdr.features.transforms import unfitted
from ktrdr.strategy.loading import load_strategy

STRATEGIES = Path(__file__).parents[2] / "strategies"
BARS = sample_bars(rows=2500)


def curve(shape: Any, value: float) -> float:
    """A membership as it stands in the YAML, graded by its words."""
    if isinstance(shape, dict) and shape["type"] == "gaussian":
        mean, sigma = shape["parameters"]
        return math.exp(-((value - mean) ** 2) / (2 * sigma**2))
    corners = shape["parameters"] if isinstance(shape, dict) else shape
    if isinstance(shape, dict) and shape["type"] == "left_shoulder":
        corners = [-math.inf, -math.inf, *corners]
    if isinstance(shape, dict) and shape["type"] == "right_shoulder":
        corners = [*corners, math.inf, math.inf]
    left, top_left, top_right, right = (
        corners if len(corners) == 4 else [*corners[:2], *corners[1:]]
    )
    if value < left or value > right:
        return 0.0
    if value < top_left:
        return float((value - left) / (top_left - left))
    if value > top_right:
        return float((right - value) / (right - top_right))
    return 1.0


def reference_inputs(data: dict[str, Any], bars: Bars) -> dict[str, Series]:
    """Every network input of a strategy, by name, for every bar."""
    found: dict[str, Series] = {}
    for item in data["nn_inputs"]:
        fuzzy_set = dict(data["fuzzy_sets"][item["fuzzy_set"]])
        indicator_id, _, output = fuzzy_set.pop("indicator").partition(".")
        keys = dict(data["indicators"][indicator_id])
        compute = REFERENCE[keys.pop("type").lower()]
        outputs = compute(source_of(bars, keys.pop("source", "close")), bars, **keys)
        series = outputs[output] if output else next(iter(outputs.values()))
        for name, shape in fuzzy_set.items():
            grades = [NAN if math.isnan(value) else curve(shape, value) for value in series]
            found[f"{bars.timeframe}_{item['fuzzy_set']}_{name}"] = grades
    return found


@pytest.mark.parametrize("name", ["trend_follower", "mean_reversion"])
def test_the_inputs_of_a_shipped_strategy_are_those_of_the_reference(name: str) -> None:
    path = STRATEGIES / f"{name}.yaml"
    strategy, market = load_strategy(path), one_series(BARS)
    transforms = unfitted(strategy)
    inputs = compute_inputs(strategy, market, BARS.symbol, transforms)
    expected = reference_inputs(yaml.safe_load(path.read_text()), BARS)
    assert [name for transform in transforms for name in transform.names] == list(expected)
    for column, series in enumerate(expected.values()):
        np.testing.assert_allclose(
            inputs.matrix[:, column], series[inputs.first :], rtol=2e-6, atol=1e-6
        )


def test_the_sample_bars_are_the_same_everywhere() -> None:
    """They use only arithmetic that every machine rounds alike."""
    assert fingerprint(sample_bars()) == GOLDEN_SAMPLE


def test_the_training_set_of_the_sample_is_the_recorded_one() -> None:
    """Labels and splits use arithmetic and square roots only: equal on every machine."""
    dataset = build_dataset(
        load_strategy(STRATEGIES / "trend_follower.yaml"), one_series(sample_bars())
    )
    train, validation, test = dataset.splits.train, dataset.splits.validation, dataset.splits.test
    edges = [train.start, train.stop, validation.start, validation.stop, test.start, test.stop]
    counts = [np.bincount(dataset.labels[part]).tolist() for part in (train, validation, test)]
    assert (edges, counts) == (GOLDEN_EDGES, GOLDEN_COUNTS)


GOLDEN_SAMPLE = "a30ed2e2e69b4b42a0b3f67216c86a7c0b43bba8ea9578118ca854cec14ee15f"
GOLDEN_EDGES = [0, 13819, 13819, 16762, 16762, 19728]
GOLDEN_COUNTS: list[list[int]] = [[6111, 309, 7399], [1145, 189, 1609], [1479, 63, 1424]]
