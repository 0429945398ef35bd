"""Labels from the change of the close over a fixed number of bars."""

from __future__ import annotations

import numpy as np

from ktrdr.data.bars import Bars, FloatArray
from ktrdr.errors import InvalidData
from ktrdr.features.labels.classes import BEARISH, BULLISH, NEUTRAL, Labels
from ktrdr.strategy.labels import ContextLabels


def forward_return(bars: Bars, horizon: int) -> Labels:
    """How far the close moves within the next `horizon` bars: close[t + horizon] / close[t] - 1.

    Bars without that future have no label. Raises InvalidData where float32 cannot hold the change.
    """
    indices = np.arange(len(bars))
    values = _changes(bars, horizon).astype(np.float32)
    bad = np.flatnonzero(~np.isfinite(values))
    if len(bad):
        raise InvalidData(
            f"the close of {bars.symbol} {bars.timeframe} changes too much for float32 within "
            f"{horizon} bars of row {int(bad[0]):,}; check the bars there",
            rows=len(bad),
        )
    return Labels(values, indices + horizon < len(bars), indices + horizon)


def context(bars: Bars, spec: ContextLabels) -> Labels:
    """Where the close is after `horizon` bars, as three classes.

    The change is close[t + horizon] / close[t] - 1: BULLISH from `bullish_threshold` on up,
    BEARISH from `bearish_threshold` on down, NEUTRAL between. Bars without that future have no
    label.
    """
    indices = np.arange(len(bars))
    changes = _changes(bars, spec.horizon)
    bearish_or_not = np.where(changes <= spec.bearish_threshold, BEARISH, NEUTRAL)
    values = np.where(changes >= spec.bullish_threshold, BULLISH, bearish_or_not)
    return Labels(values, indices + spec.horizon < len(bars), indices + spec.horizon)


def _changes(bars: Bars, horizon: int) -> FloatArray:
    """The change of the close over the next bars, as a fraction; 0 where they are missing."""
    changes = np.zeros(len(bars))
    changes[: max(0, len(bars) - horizon)] = bars.close[horizon:] / bars.close[:-horizon] - 1
    return changes
