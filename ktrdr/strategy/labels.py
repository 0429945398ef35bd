"""What a model is to foresee, as a strategy says it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Discriminator, Field, Tag

from ktrdr.strategy.values import Closed, Number, Positive, tag_by


class ZigzagLabels(Closed):
    source: Literal["zigzag"] = "zigzag"
    zigzag_threshold: Annotated[Number, Field(gt=0, lt=1)] = 0.02


class TripleBarrierLabels(Closed):
    source: Literal["triple_barrier"]
    pt_multiplier: Positive = 2.0
    sl_multiplier: Positive = 1.5
    max_holding_period: Annotated[int, Field(strict=True, ge=1, le=100_000)] = 50
    vol_span: Annotated[int, Field(strict=True, ge=2, le=100_000)] = 50
    vol_method: Literal["atr", "close"] = "atr"


class ForwardReturnLabels(Closed):
    """The change of the close over `horizon` bars, as a fraction: for regression."""

    source: Literal["forward_return"]
    horizon: Annotated[int, Field(strict=True, ge=1, le=100_000)] = 20


Labels = Annotated[
    Annotated[ZigzagLabels, Tag("<zigzag>")]
    | Annotated[TripleBarrierLabels, Tag("<triple_barrier>")]
    | Annotated[ForwardReturnLabels, Tag("<forward_return>")],
    Discriminator(
        tag_by("source", "zigzag"),
        custom_error_type="labels",
        custom_error_message="source must be zigzag, triple_barrier or forward_return",
    ),
]


LABEL_CLASS_OF_TAG: dict[str, type[Closed]] = {
    "<zigzag>": ZigzagLabels,
    "<triple_barrier>": TripleBarrierLabels,
    "<forward_return>": ForwardReturnLabels,
}
