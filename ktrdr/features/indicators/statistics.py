"""Rolling statistics of a series, and its returns."""

from __future__ import annotations

import numpy as np

from ktrdr.data.bars import Bars, FloatArray
from ktrdr.features.indicators.definition import (
    IndicatorDefinition,
    Outputs,
    Parameters,
    of_series,
    whole,
)
from ktrdr.features.indicators.rolling import gap_and_deviation, ratio, rolling_rank, shifted


def log_returns(source: FloatArray, period: int) -> FloatArray:
    """The logarithm of a value over the one `period` bars before; 0 unless both are above 0, as
    a volume or another indicator need not be."""
    before = shifted(source, period)
    quotient = np.ones(len(source))
    quotient[:period] = np.nan
    np.divide(source, before, out=quotient, where=(source > 0) & (before > 0))
    return np.log(quotient)


def _zscore(_: Bars, source: FloatArray, p: Parameters) -> Outputs:
    """(source - mean) / deviation of the last `period` values, this one among them, deviation of
    the population; 0 where all are equal."""
    gap, deviation = gap_and_deviation(source, whole(p))
    return (ratio(gap, deviation),)


DEFINITIONS: dict[str, IndicatorDefinition] = {
    "zscore": IndicatorDefinition(_zscore, lambda p: (whole(p) - 1,)),
    "percentile": of_series(rolling_rank),
    "log_return": of_series(log_returns, extra=0),
}
