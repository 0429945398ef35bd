"""The indicators that a strategy may name: their parameters, defaults and outputs.

This is the grammar only. `ktrdr.features.indicators` computes them; a test keeps both tables equal.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Parameter:
    """One knob of an indicator; `least` is the smallest value that has a meaning."""

    name: str
    default: int | float
    least: int | float

    @property
    def is_integer(self) -> bool:
        return isinstance(self.default, int)


@dataclass(frozen=True)
class IndicatorGrammar:
    """An indicator type: the first output is the one meant by the bare id."""

    type: str
    parameters: tuple[Parameter, ...]
    outputs: tuple[str, ...]
    takes_source: bool = True
    aliases: tuple[str, ...] = ()


def _period(default: int, least: int = 2) -> Parameter:
    return Parameter("period", default, least)


INDICATORS: dict[str, IndicatorGrammar] = {
    grammar.type: grammar
    for grammar in (
        IndicatorGrammar("rsi", (_period(14),), ("rsi",), aliases=("relativestrengthindex",)),
        IndicatorGrammar("roc", (_period(10, 1),), ("roc",), aliases=("rateofchange",)),
        IndicatorGrammar("ema", (_period(20),), ("ema",), aliases=("exponentialmovingaverage",)),
        IndicatorGrammar(
            "macd",
            (
                Parameter("fast_period", 12, 2),
                Parameter("slow_period", 26, 2),
                Parameter("signal_period", 9, 1),
            ),
            ("line", "signal", "histogram"),
        ),
        IndicatorGrammar(
            "bollingerbandwidth",
            (_period(20), Parameter("multiplier", 2.0, 1e-9)),
            ("width",),
            aliases=("bbwidth", "bollinger_band_width"),
        ),
        IndicatorGrammar(
            "atr", (_period(14, 1),), ("atr",), takes_source=False, aliases=("averagetruerange",)
        ),
        IndicatorGrammar(
            "adx",
            (_period(14),),
            ("adx", "plus_di", "minus_di"),
            takes_source=False,
            aliases=("averagedirectionalindex",),
        ),
    )
}

_CANONICAL = {name: g.type for g in INDICATORS.values() for name in (g.type, *g.aliases)}


def canonical_type(name: str) -> str | None:
    """The table's name of an indicator type, without regard to case, or None if there is none."""
    return _CANONICAL.get(name.strip().lower())
