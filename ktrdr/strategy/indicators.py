"""The indicators that a strategy may name: their parameters, defaults and outputs.

This is the grammar only. `ktrdr.features.indicators` computes them; a test keeps both tables equal.
"""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass
from itertools import pairwise

from ktrdr.strategy.candle_patterns import CANDLE_PATTERNS, PENETRATIONS

PRICE_SERIES = ("open", "high", "low", "close", "hl2", "hlc3", "ohlc4", "volume")

# Parameters by the names that other programs give them, or that another type here has.
_NAMES_ELSEWHERE: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("length", "window", "lookback", "timeperiod", "n"), ("period",)),
    **dict.fromkeys(
        ("std", "std_dev", "stddev", "num_std", "nbdev", "nbdevup", "factor", "atr_multiplier"),
        ("multiplier",),
    ),
    "period": (
        *("k_period", "bb_period", "kc_period", "kijun_period", "fast_period", "slow_period"),
        "long_period",
    ),
    "multiplier": ("bb_multiplier", "kc_multiplier"),
    "fast": ("fast_period",),
    "slow": ("slow_period",),
    "signal": ("signal_period",),
    "signal_period": ("smoothing",),
    "k": ("k_period",),
    "d": ("d_period",),
    "smooth": ("smooth_k",),
    "tenkan": ("tenkan_period",),
    "kijun": ("kijun_period",),
    "senkou": ("senkou_b_period",),
    "acceleration": ("step_af",),
    "maximum": ("max_af",),
    "timeperiod1": ("short_period",),
    "timeperiod2": ("medium_period",),
    "timeperiod3": ("long_period",),
    "use_typical_price": ("source",),
}


@dataclass(frozen=True)
class Parameter:
    """One knob of an indicator; values between `least` and `most` have a meaning."""

    name: str
    default: int | float
    least: int | float
    most: int | float

    @property
    def is_integer(self) -> bool:
        return isinstance(self.default, int)


@dataclass(frozen=True)
class ChoiceParameter:
    """A knob with words for values."""

    name: str
    default: str
    choices: tuple[str, ...]


@dataclass(frozen=True)
class IndicatorGrammar:
    """An indicator type: the first output is the one meant by the bare id.

    `source` is the series that a type is computed from unless the strategy names another one; None
    for a type that is computed from several parts of a bar. Each (lower, upper) of `below` names
    two parameters of which the first must be the smaller one; of `not_above`, not the larger one.
    """

    type: str
    parameters: tuple[Parameter | ChoiceParameter, ...]
    outputs: tuple[str, ...]
    source: str | None = "close"
    aliases: tuple[str, ...] = ()
    below: tuple[tuple[str, str], ...] = ()
    not_above: tuple[tuple[str, str], ...] = ()

    @property
    def takes_source(self) -> bool:
        return self.source is not None


def canonical_type(name: str) -> str | None:
    """The table's name of an indicator type, without regard to case, or None if there is none.

    Underscores, hyphens, blanks and a final `Indicator` do not count: `Williams_R` is `williamsr`.
    """
    return _CANONICAL.get(_plain(name))


def names_here(key: str, known: Container[str]) -> str:
    """Which of the known parameters another program means by a key; empty where none is known."""
    return " and ".join(name for name in _NAMES_ELSEWHERE.get(key, ()) if name in known)


def _plain(name: str) -> str:
    return name.strip().lower().replace("_", "").replace("-", "").replace(" ", "")


def _int(name: str, default: int, least: int = 2) -> Parameter:
    return Parameter(name, default, least, 100_000)


def _float(name: str, default: float, least: float = 1e-9, most: float = 1e6) -> Parameter:
    return Parameter(name, default, least, most)


def _period(default: int, least: int = 2) -> Parameter:
    return _int("period", default, least)


def _rising(*names: str) -> tuple[tuple[str, str], ...]:
    return tuple(pairwise(names))


_MULTIPLIER = _float("multiplier", 2.0)
_CHANNEL = ("upper", "middle", "lower")
_FAST_SLOW_SIGNAL = (
    _int("fast_period", 12),
    _int("slow_period", 26),
    _int("signal_period", 9, 1),
)

_OF_ONE_SERIES = (
    IndicatorGrammar("sma", (_period(20, 1),), ("sma",), aliases=("simplemovingaverage", "ma")),
    IndicatorGrammar("ema", (_period(20, 1),), ("ema",), aliases=("exponentialmovingaverage",)),
    IndicatorGrammar(
        "wma", (_period(20, 1),), ("wma",), aliases=("weightedmovingaverage", "linearmovingaverage")
    ),
    IndicatorGrammar(
        "dema", (_period(20),), ("dema",), aliases=("doubleexponentialmovingaverage",)
    ),
    IndicatorGrammar(
        "tema", (_period(20),), ("tema",), aliases=("tripleexponentialmovingaverage",)
    ),
    IndicatorGrammar("kama", (_period(10),), ("kama",), aliases=("kaufmanadaptivemovingaverage",)),
    IndicatorGrammar("hma", (_period(20, 4),), ("hma",), aliases=("hullmovingaverage",)),
    IndicatorGrammar(
        "linreg_slope",
        (_period(14),),
        ("slope",),
        aliases=("linearreg_slope", "linear_regression_slope"),
    ),
    IndicatorGrammar(
        "linreg_angle",
        (_period(14),),
        ("angle",),
        aliases=("linearreg_angle", "linear_regression_angle"),
    ),
    IndicatorGrammar(
        "distancefromma",
        (_period(20), ChoiceParameter("ma_type", "sma", ("sma", "ema"))),
        ("distance",),
        aliases=("distance_from_moving_average",),
    ),
    IndicatorGrammar("rsi", (_period(14),), ("rsi",), aliases=("relativestrengthindex",)),
    IndicatorGrammar("roc", (_period(10, 1),), ("roc",), aliases=("rateofchange",)),
    IndicatorGrammar("momentum", (_period(10, 1),), ("momentum",), aliases=("mom",)),
    IndicatorGrammar("cmo", (_period(14),), ("cmo",), aliases=("chandemomentumoscillator",)),
    IndicatorGrammar("trix", (_period(15, 1),), ("trix",)),
    IndicatorGrammar(
        "stochrsi",
        (_period(14), _int("k_period", 14, 1), _int("d_period", 3, 1)),
        ("k", "d"),
        aliases=("stochasticrsi",),
    ),
    IndicatorGrammar(
        "macd",
        _FAST_SLOW_SIGNAL,
        ("line", "signal", "histogram"),
        aliases=("movingaverageconvergencedivergence",),
        below=_rising("fast_period", "slow_period"),
    ),
    IndicatorGrammar(
        "ppo",
        _FAST_SLOW_SIGNAL,
        ("line", "signal", "histogram"),
        aliases=("percentagepriceoscillator",),
        below=_rising("fast_period", "slow_period"),
    ),
    IndicatorGrammar(
        "bollingerbands", (_period(20), _MULTIPLIER), _CHANNEL, aliases=("bbands", "bollinger")
    ),
    IndicatorGrammar(
        "bollingerbandwidth", (_period(20), _MULTIPLIER), ("width",), aliases=("bbwidth",)
    ),
    IndicatorGrammar(
        "percent_b",
        (_period(20), _MULTIPLIER),
        ("percent_b",),
        aliases=("bollingerpercentb", "bbpercent", "%b"),
    ),
    IndicatorGrammar("zscore", (_period(20),), ("zscore",), aliases=("rollingzscore",)),
    IndicatorGrammar(
        "percentile",
        (Parameter("period", 100, 2, 5_000),),
        ("percentile",),
        aliases=("percentilerank", "percentrank"),
    ),
    IndicatorGrammar("log_return", (_period(1, 1),), ("log_return",)),
    IndicatorGrammar(
        "realised_volatility", (_period(20, 1),), ("volatility",), aliases=("realizedvolatility",)
    ),
)

_OF_BARS = (
    IndicatorGrammar("cci", (_period(20),), ("cci",), None, ("commoditychannelindex",)),
    IndicatorGrammar(
        "williamsr", (_period(14),), ("williamsr",), None, ("willr", "williamspercentr", "%r")
    ),
    IndicatorGrammar(
        "stochastic",
        (_int("k_period", 14, 1), _int("d_period", 3, 1), _int("smooth_k", 3, 1)),
        ("k", "d"),
        None,
        ("stoch", "stochasticoscillator"),
    ),
    IndicatorGrammar(
        "ultosc",
        (_int("short_period", 7, 1), _int("medium_period", 14), _int("long_period", 28)),
        ("ultosc",),
        None,
        ("ultimateoscillator", "uo"),
        below=_rising("short_period", "medium_period", "long_period"),
    ),
    IndicatorGrammar(
        "rvi",
        (_period(10, 1), _int("signal_period", 4, 1)),
        ("rvi", "signal"),
        None,
        ("relativevigorindex",),
    ),
    IndicatorGrammar(
        "fishertransform",
        (_period(10), _int("smoothing", 3, 1)),
        ("fisher", "signal"),
        None,
        ("fisher",),
    ),
    IndicatorGrammar("aroon", (_period(14),), ("up", "down", "oscillator"), None),
    IndicatorGrammar(
        "adx", (_period(14),), ("adx", "plus_di", "minus_di"), None, ("averagedirectionalindex",)
    ),
    IndicatorGrammar(
        "supertrend", (_period(10), _float("multiplier", 3.0)), ("trend", "direction"), None
    ),
    IndicatorGrammar(
        "parabolicsar",
        (_float("initial_af", 0.02), _float("step_af", 0.02), _float("max_af", 0.2)),
        ("sar",),
        None,
        ("psar", "sar"),
        not_above=(("initial_af", "max_af"), ("step_af", "max_af")),
    ),
    IndicatorGrammar(
        "ichimoku",
        (
            _int("tenkan_period", 9, 1),
            _int("kijun_period", 26),
            _int("senkou_b_period", 52),
            _int("displacement", 26, 1),
        ),
        ("tenkan", "kijun", "senkou_a", "senkou_b"),
        None,
        ("ichimokucloud",),
        below=_rising("tenkan_period", "kijun_period", "senkou_b_period"),
    ),
    IndicatorGrammar("atr", (_period(14, 1),), ("atr",), None, ("averagetruerange",)),
    IndicatorGrammar("natr", (_period(14, 1),), ("natr",), None, ("normalizedaveragetruerange",)),
    IndicatorGrammar(
        "keltnerchannels",
        (_period(20), _int("atr_period", 10, 1), _MULTIPLIER),
        _CHANNEL,
        None,
        ("keltner", "keltnerchannel", "kc"),
    ),
    IndicatorGrammar(
        "donchianchannels", (_period(20),), _CHANNEL, None, ("donchian", "donchianchannel")
    ),
    IndicatorGrammar(
        "squeezeintensity",
        (
            _int("bb_period", 20),
            _float("bb_multiplier", 2.0),
            _int("kc_period", 20),
            _float("kc_multiplier", 2.0),
        ),
        ("intensity",),
        None,
        ("squeeze",),
    ),
    IndicatorGrammar("obv", (), ("obv",), None, ("onbalancevolume",)),
    IndicatorGrammar("vwap", (_period(20, 1),), ("vwap",), "hlc3", ("volumeweightedaverageprice",)),
    IndicatorGrammar("mfi", (_period(14),), ("mfi",), None, ("moneyflowindex",)),
    IndicatorGrammar("cmf", (_period(21, 1),), ("cmf",), None, ("chaikinmoneyflow",)),
    IndicatorGrammar(
        "adline",
        (),
        ("adline",),
        None,
        ("ad", "accumulationdistribution", "accumulationdistributionline"),
    ),
    IndicatorGrammar(
        "adosc",
        (_int("fast_period", 3), _int("slow_period", 10)),
        ("adosc",),
        None,
        ("chaikinoscillator",),
        below=_rising("fast_period", "slow_period"),
    ),
    IndicatorGrammar("volumeratio", (_period(20, 1),), ("ratio",), None),
    IndicatorGrammar("hour_of_day", (), ("sin", "cos"), None),
    IndicatorGrammar("day_of_week", (), ("sin", "cos"), None),
)


def _pattern(name: str) -> IndicatorGrammar:
    penetration = (
        (_float("penetration", PENETRATIONS[name], 0.0, 10.0),) if name in PENETRATIONS else ()
    )
    return IndicatorGrammar(name, penetration, ("pattern",), None)


INDICATORS: dict[str, IndicatorGrammar] = {
    grammar.type: grammar
    for grammar in (*_OF_ONE_SERIES, *_OF_BARS, *map(_pattern, CANDLE_PATTERNS))
}

_CANONICAL = {
    _plain(name) + suffix: grammar.type
    for grammar in INDICATORS.values()
    for name in (grammar.type, *grammar.aliases)
    for suffix in ("", "indicator")
}
