"""Every indicator against its textbook, and candle patterns against candles drawn by hand."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from textbook import REFERENCE, source_of

from ktrdr.data.bars import Bars
from ktrdr.data.sample import sample_bars
from ktrdr.features.indicators import IndicatorOutputs
from ktrdr.strategy.candle_patterns import CANDLE_PATTERNS
from ktrdr.strategy.indicator_types import INDICATOR_CLASSES
from ktrdr.strategy.indicators import INDICATORS

BARS = sample_bars(rows=600)
WORDED = sorted(set(INDICATORS) - set(CANDLE_PATTERNS))

OTHERS: dict[str, dict[str, Any]] = {
    "distancefromma": {"period": 9, "ma_type": "ema"},
    "stochrsi": {"period": 9, "k_period": 21, "d_period": 5},
    "macd": {"fast_period": 3, "slow_period": 10, "signal_period": 16},
    "ppo": {"fast_period": 5, "slow_period": 35, "signal_period": 5},
    "bollingerbands": {"period": 7, "multiplier": 1.5},
    "bollingerbandwidth": {"period": 7, "multiplier": 1.5},
    "percent_b": {"period": 50, "multiplier": 3.0},
    "stochastic": {"k_period": 5, "d_period": 4, "smooth_k": 1},
    "ultosc": {"short_period": 3, "medium_period": 5, "long_period": 11},
    "rvi": {"period": 4, "signal_period": 9},
    "fishertransform": {"period": 21, "smoothing": 8},
    "supertrend": {"period": 3, "multiplier": 1.0},
    "parabolicsar": {"initial_af": 0.01, "step_af": 0.03, "max_af": 0.1},
    "ichimoku": {
        "tenkan_period": 3,
        "kijun_period": 7,
        "senkou_b_period": 12,
        "displacement": 5,
    },
    "keltnerchannels": {"period": 8, "atr_period": 15, "multiplier": 1.25},
    "squeezeintensity": {
        "bb_period": 9,
        "bb_multiplier": 1.0,
        "kc_period": 15,
        "kc_multiplier": 1.5,
    },
    "adosc": {"fast_period": 4, "slow_period": 17},
}


def other_parameters(kind: str) -> dict[str, Any]:
    if kind in OTHERS:
        return OTHERS[kind]
    return {"period": 5} if INDICATORS[kind].parameters else {}


def compare(kind: str, parameters: dict[str, Any], bars: Bars, source: str | None) -> None:
    keys = {"type": kind, **parameters, **({"source": source} if source else {})}
    indicator = INDICATOR_CLASSES[kind].model_validate(keys)
    series = source_of(bars, indicator.series_source or "close")
    expected = REFERENCE[kind](series, bars, **indicator.parameters)
    outputs = IndicatorOutputs({"x": indicator}, bars)
    assert tuple(expected) == INDICATORS[kind].outputs
    for name, values in expected.items():
        np.testing.assert_allclose(
            outputs.series(f"x.{name}"), values, rtol=1e-8, atol=1e-9, err_msg=name
        )


def test_every_type_has_its_textbook() -> None:
    assert set(REFERENCE) == set(WORDED)


@pytest.mark.parametrize("kind", WORDED)
def test_an_indicator_is_what_its_author_wrote(kind: str) -> None:
    compare(kind, {}, BARS, None)
    compare(kind, other_parameters(kind), BARS, None)


@pytest.mark.parametrize("kind", [kind for kind in WORDED if INDICATORS[kind].takes_source])
def test_an_indicator_of_another_series_too(kind: str) -> None:
    compare(kind, {}, BARS, "volume")
    compare(kind, other_parameters(kind), BARS, "high")


REAL = Path(__file__).parents[2] / ".." / "shared" / "data" / "EURUSD_1h.csv.gz"


@pytest.mark.skipif(not REAL.exists(), reason="the bars of shared/data are not here")
@pytest.mark.parametrize("kind", WORDED)
def test_on_real_bars_too(kind: str) -> None:
    """Prices in steps of a tick: equal highs, closes at an extreme, bars without a body."""
    compare(kind, {}, real_bars(), None)


@functools.cache
def real_bars() -> Bars:
    table = pl.read_csv(REAL, n_rows=700).tail(500)
    stamps = 3_600_000_000 * np.arange(len(table), dtype=np.int64)
    names = ("open", "high", "low", "close", "volume")
    series = [table[name].cast(pl.Float64).to_numpy().copy() for name in names]
    return Bars("EURUSD", "1h", stamps, *series)
