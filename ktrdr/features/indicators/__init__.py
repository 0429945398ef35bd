"""Indicators of the grammar, computed: an array per output, NaN before its warm-up.

`ktrdr.strategy.indicators` is the grammar side of the same table. No value depends on a later bar;
with the same first bar, the same bits come out however many bars follow.
"""

from ktrdr.features.indicators.outputs import IndicatorOutputs, source_series, warm_up

__all__ = ["IndicatorOutputs", "source_series", "warm_up"]
