"""What a strategy says about indicators: their names, parameters and sources, and every mistake."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml

from ktrdr.errors import InvalidStrategy
from ktrdr.strategy.indicators import canonical_type
from ktrdr.strategy.loading import config, fingerprint, validate_strategy
from ktrdr.strategy.schema import Strategy

SHIPPED = Path(__file__).parents[2] / "strategies" / "trend_follower.yaml"


@pytest.fixture
def data() -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load(SHIPPED.read_text())
    return content


def with_indicators(data: dict[str, Any], **more: Any) -> dict[str, Any]:
    changed = copy.deepcopy(data)
    changed["indicators"] |= more
    return changed


def load(data: dict[str, Any], **more: Any) -> Strategy:
    return validate_strategy(with_indicators(data, **more), "x.yaml")


def problems(data: dict[str, Any], **more: Any) -> dict[str, str]:
    with pytest.raises(InvalidStrategy) as caught:
        load(data, **more)
    return {problem["path"]: problem["message"] for problem in caught.value.details["problems"]}


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("RSI", "rsi"),
        ("RSIIndicator", "rsi"),
        ("SimpleMovingAverage", "sma"),
        ("bbands", "bollingerbands"),
        ("Bollinger_Bands", "bollingerbands"),
        ("williams_r", "williamsr"),
        ("Keltner-Channels", "keltnerchannels"),
        ("realized volatility", "realised_volatility"),
        ("HourOfDay", "hour_of_day"),
        ("CDLEngulfing", "cdlengulfing"),
        ("rsx", None),
        ("indicator", None),
        ("", None),
    ],
)
def test_a_type_is_known_by_its_common_names(written: str, meant: str | None) -> None:
    assert canonical_type(written) == meant


def test_a_source_is_a_price_or_the_output_of_another_indicator(data: dict[str, Any]) -> None:
    strategy = load(
        data,
        smooth={"type": "ema", "period": 5, "source": "trend.signal"},
        trend={"type": "macd", "source": "hlc3"},
        again={"type": "zscore", "source": "smooth"},
    )
    sources = {key: strategy.indicators[key].series_source for key in ("smooth", "trend", "again")}
    assert sources == {"smooth": "trend.signal", "trend": "hlc3", "again": "smooth"}
    assert validate_strategy(config(strategy), "again") == strategy


def test_data_source_is_an_older_spelling_of_source(data: dict[str, Any]) -> None:
    old = load(data, x={"type": "ema", "data_source": "high"})
    new = load(data, x={"type": "ema", "source": "high"})
    assert fingerprint(old) == fingerprint(new)
    assert load(data, x={"type": "ema", "source": "high", "data_source": "high"}) == new
    found = problems(data, x={"type": "ema", "source": "high", "data_source": "low"})
    assert found == {"indicators.x": "source and data_source differ; keep source"}


def test_every_source_that_leads_nowhere_is_named_at_once(data: dict[str, Any]) -> None:
    found = problems(
        data,
        price={"type": "ema", "source": "closee"},
        upper={"type": "ema", "source": "Close"},
        older={"type": "ema", "data_source": "rsi_41"},
        line={"type": "macd"},
        output={"type": "ema", "source": "line.signl"},
        bars={"type": "atr", "source": "close"},
        cloud={"type": "ichimoku", "data_source": "close"},
        here={"type": "ema", "source": "here"},
        one={"type": "ema", "source": "two"},
        two={"type": "ema", "source": "three.rsi"},
        three={"type": "rsi", "source": "one"},
        behind={"type": "rsi", "source": "one"},
        hl2={"type": "rsi"},
        number={"type": "rsi", "source": 3},
    )
    assert "did you mean close?" in found.pop("indicators.price.source")
    assert "did you mean close?" in found.pop("indicators.upper.source")
    assert "did you mean rsi_14?" in found.pop("indicators.older.data_source")
    assert "did you mean signal?" in found.pop("indicators.output.source")
    assert "takes no source; remove source" in found.pop("indicators.bars.source")
    assert "takes no source; remove data_source" in found.pop("indicators.cloud.data_source")
    for name in ("here", "one", "two", "three"):
        assert f"{name} is computed from itself" in found.pop(f"indicators.{name}.source")
    assert "price series" in found.pop("indicators.hl2")
    assert "string" in found.pop("indicators.number.source")
    assert not found


@pytest.mark.parametrize(
    ("indicator", "path", "words"),
    [
        ({"type": "macd", "fast_period": 26, "slow_period": 12}, "", "fast_period (26) must be"),
        ({"type": "ppo", "fast_period": 30}, "", "smaller than slow_period (26)"),
        ({"type": "ultosc", "medium_period": 40}, "", "medium_period (40) must be smaller"),
        ({"type": "ichimoku", "kijun_period": 60}, "", "senkou_b_period (52)"),
        ({"type": "parabolicsar", "step_af": 0.3}, "", "step_af (0.3) must be at most max_af"),
        ({"type": "rsi", "period": 1}, ".period", "greater than or equal to 2"),
        ({"type": "rsi", "period": 14.0}, ".period", "integer"),
        ({"type": "rsi", "period": True}, ".period", "integer"),
        ({"type": "rsi", "period": 10**9}, ".period", "less than or equal"),
        ({"type": "bbands", "multiplier": 0}, ".multiplier", "greater than"),
        ({"type": "distancefromma", "ma_type": "hull"}, ".ma_type", "'sma' or 'ema'"),
        ({"type": "rsi", "length": 14}, ".length", "say period"),
        ({"type": "bollingerbands", "std_dev": 2}, ".std_dev", "say multiplier"),
        ({"type": "stochastic", "period": 14}, ".period", "say k_period"),
        ({"type": "squeezeintensity", "period": 20}, ".period", "say bb_period and kc_period"),
        ({"type": "macd", "period": 12}, ".period", "say fast_period and slow_period"),
        ({"type": "stochastic", "k": 14}, ".k", "say k_period"),
        ({"type": "macd", "fastperiod": 3}, ".fastperiod", "did you mean fast_period?"),
        ({"type": "fishertransform", "signal_period": 3}, ".signal_period", "say smoothing"),
        ({"type": "vwap", "use_typical_price": True}, ".use_typical_price", "source"),
        ({"type": "cdlengulfing", "penetration": 0.3}, ".penetration", "unknown key"),
        ({"type": "cdlengulfin"}, "", "did you mean cdlengulfing?"),
        ({"type": "stochrsy"}, "", "did you mean stochrsi?"),
        ({"type": "ZigZag"}, "", "repaints"),
        ({"period": 14}, "", "needs a type"),
    ],
)
def test_a_mistake_in_an_indicator_says_what_to_change(
    data: dict[str, Any], indicator: dict[str, Any], path: str, words: str
) -> None:
    found = problems(data, x=indicator)
    assert found.keys() == {f"indicators.x{path}"}
    assert words in found[f"indicators.x{path}"]


def test_a_word_for_a_parameter_is_read_without_regard_to_case(data: dict[str, Any]) -> None:
    strategy = load(data, x={"type": "distancefromma", "ma_type": "EMA"})
    assert strategy.indicators["x"].parameters == {"period": 20, "ma_type": "ema"}
