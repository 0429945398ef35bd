"""Labels: the targets of a training. They use the future, and are never inputs."""

from __future__ import annotations

import numpy as np

from ktrdr.data.bars import Bars
from ktrdr.features.labels.barriers import triple_barrier
from ktrdr.features.labels.classes import (
    CLASS_NAMES,
    CONTEXT_NAMES,
    REGIME_NAMES,
    LabelArray,
    Labels,
)
from ktrdr.features.labels.regimes import regime
from ktrdr.features.labels.returns import context, forward_return
from ktrdr.features.labels.swings import zigzag
from ktrdr.strategy.labels import (
    ContextLabels,
    ForwardReturnLabels,
    RegimeLabels,
    TripleBarrierLabels,
    ZigzagLabels,
)

__all__ = ["LabelArray", "LabelSpec", "Labels", "class_names", "make_labels"]

LabelSpec = ZigzagLabels | TripleBarrierLabels | ForwardReturnLabels | ContextLabels | RegimeLabels


def make_labels(spec: LabelSpec, bars: Bars) -> Labels:
    """The labels that a strategy asks for; with too few bars for a single one, none is valid.

    Raises InvalidData where float32 cannot hold a value.
    """
    with np.errstate(over="ignore"):  # what is out of range is infinite, and compares as that
        return _labels(spec, bars)


def class_names(spec: LabelSpec) -> tuple[str, ...]:
    """What the classes are called, in the order of their numbers; none where labels are values."""
    match spec:
        case ForwardReturnLabels():
            return ()
        case ContextLabels():
            return CONTEXT_NAMES
        case RegimeLabels():
            return REGIME_NAMES
        case _:
            return CLASS_NAMES


def _labels(spec: LabelSpec, bars: Bars) -> Labels:
    match spec:
        case ZigzagLabels():
            return zigzag(bars, spec.zigzag_threshold)
        case TripleBarrierLabels():
            return triple_barrier(bars, spec)
        case ForwardReturnLabels():
            return forward_return(bars, spec.horizon)
        case ContextLabels():
            return context(bars, spec)
        case RegimeLabels():
            return regime(bars, spec)
