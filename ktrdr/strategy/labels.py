"""The labels section of a strategy: sources and their parameters.

Each source has a `horizon`: how many bars a label looks ahead at most, or None where that is as
long as a swing of the market lasts.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Discriminator, Field, Tag, model_validator
from pydantic_core import PydanticCustomError

from ktrdr.strategy.field_types import Closed, Flag, Number, Positive, Share, tag_by

Horizon = Annotated[int, Field(strict=True, ge=1, le=100_000)]
Span = Annotated[int, Field(strict=True, ge=2, le=100_000)]

CUSUM_MULTIPLIER = 0.5


class ZigzagLabels(Closed):
    """The swing of the market that a bar is in."""

    source: Literal["zigzag"] = "zigzag"
    zigzag_threshold: Annotated[Number, Field(gt=0, lt=1)] = 0.02

    @property
    def horizon(self) -> None:
        return None


def _cusum_threshold(value: Any) -> Any:
    if isinstance(value, str) and value != "auto":
        value = _number_in(value)
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if value is None or value == "auto" or (is_number and 0 < value <= 1):
        return value
    raise PydanticCustomError(
        "cusum_threshold",
        "say a log return above 0 and at most 1, or auto for cusum_multiplier times the volatility",
    )


def _number_in(text: str) -> float | str:
    """YAML reads 1e-3 as a text; every other number of a strategy may be written so, too."""
    try:
        return float(text)
    except ValueError:
        return text


class TripleBarrierLabels(Closed):
    """Which barrier the price meets first.

    With `cusum_threshold` only the bars of a symmetric CUSUM filter are samples: a number is a
    log return, `auto` is `cusum_multiplier` times the volatility of the bar.
    """

    source: Literal["triple_barrier"]
    pt_multiplier: Positive = 2.0
    sl_multiplier: Positive = 1.5
    max_holding_period: Horizon = 50
    vol_span: Span = 50
    vol_method: Literal["atr", "close"] = "atr"
    compute_weights: Flag = False
    cusum_threshold: Annotated[
        Annotated[float, Field(gt=0, le=1)] | Literal["auto"] | None,
        BeforeValidator(_cusum_threshold),
    ] = None
    cusum_multiplier: Positive = CUSUM_MULTIPLIER

    @property
    def horizon(self) -> int:
        return self.max_holding_period

    @model_validator(mode="after")
    def _a_multiplier_has_something_to_scale(self) -> Self:
        if self.cusum_multiplier != CUSUM_MULTIPLIER and self.cusum_threshold != "auto":
            raise PydanticCustomError(
                "cusum_multiplier",
                "cusum_multiplier is for cusum_threshold: auto; say that, or remove it",
            )
        return self


class ForwardReturnLabels(Closed):
    """The change of the close over `horizon` bars, as a fraction: for regression."""

    source: Literal["forward_return"]
    horizon: Horizon = 20


class ContextLabels(Closed):
    """Whether the close rises or falls enough over `horizon` bars; thresholds are fractions."""

    source: Literal["context"]
    horizon: Horizon = 5
    bullish_threshold: Number = 0.005
    bearish_threshold: Number = -0.005

    @model_validator(mode="after")
    def _neutral_has_room(self) -> Self:
        if self.bullish_threshold <= self.bearish_threshold:
            raise PydanticCustomError(
                "context_thresholds",
                "bullish_threshold {bullish} must be above bearish_threshold {bearish}: "
                "raise the one or lower the other",
                {"bullish": self.bullish_threshold, "bearish": self.bearish_threshold},
            )
        return self


class RegimeLabels(Closed):
    """Whether the market trends, ranges or is in a crisis of volatility."""

    source: Literal["regime"]
    macro_atr_mult: Positive = 3.0
    micro_atr_mult: Positive = 1.0
    atr_period: Span = 14
    vol_lookback: Span = 120
    vol_crisis_threshold: Positive = 2.0
    progression_tolerance: Share = 0.5

    @property
    def horizon(self) -> None:
        return None

    @model_validator(mode="after")
    def _swings_have_swings_inside(self) -> Self:
        if self.macro_atr_mult <= self.micro_atr_mult:
            raise PydanticCustomError(
                "regime_scales",
                "macro_atr_mult {macro} must be above micro_atr_mult {micro}: "
                "raise the one or lower the other",
                {"macro": self.macro_atr_mult, "micro": self.micro_atr_mult},
            )
        return self


Labels = Annotated[
    Annotated[ZigzagLabels, Tag("<zigzag>")]
    | Annotated[TripleBarrierLabels, Tag("<triple_barrier>")]
    | Annotated[ForwardReturnLabels, Tag("<forward_return>")]
    | Annotated[ContextLabels, Tag("<context>")]
    | Annotated[RegimeLabels, Tag("<regime>")],
    Discriminator(
        tag_by("source", "zigzag"),
        custom_error_type="labels",
        custom_error_message=(
            "source must be zigzag, triple_barrier, forward_return, context or regime"
        ),
    ),
]


LABEL_CLASS_OF_TAG: dict[str, type[Closed]] = {
    "<zigzag>": ZigzagLabels,
    "<triple_barrier>": TripleBarrierLabels,
    "<forward_return>": ForwardReturnLabels,
    "<context>": ContextLabels,
    "<regime>": RegimeLabels,
}
