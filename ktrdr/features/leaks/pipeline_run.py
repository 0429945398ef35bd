"""One run of the real pipeline over a strategy's bars: its symbols and folds."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ktrdr.data.bars import timeframe_us
from ktrdr.data.market import Market
from ktrdr.features.cuts import Cut, LabelledRows, Piece, cut, pieces
from ktrdr.features.dataset import Dataset, build_dataset, label_rows
from ktrdr.features.leaks.perturbations import one_symbol
from ktrdr.features.pipeline import SymbolSeries, compute_series
from ktrdr.strategy.schema import Strategy


@dataclass(frozen=True, eq=False)
class SymbolRows:
    """A symbol's own market, the values of its inputs, and its labelled rows."""

    market: Market
    series: SymbolSeries
    rows: LabelledRows

    @property
    def symbol(self) -> str:
        return self.series.base.symbol

    def moment(self, bar: int) -> int:
        """When a base bar closes; before the first one, when that opens."""
        base = self.series.base
        return int(base.timestamps[bar]) + timeframe_us(base.timeframe) if bar >= 0 else base.first


@dataclass(frozen=True, eq=False)
class Fold:
    """A fold, counted from 1: its stretches of time, the row ranges of each symbol, the set."""

    number: int
    stretches: tuple[Piece, ...]
    cuts: tuple[Cut, ...]
    dataset: Dataset


@dataclass(frozen=True, eq=False)
class PipelineRun:
    """A strategy and its market, its symbols in order, its first fold and its last."""

    strategy: Strategy
    market: Market
    symbols: tuple[SymbolRows, ...]
    folds: tuple[Fold, ...]


def run_pipeline(strategy: Strategy, market: Market) -> PipelineRun:
    """Compute everything once. Raises InvalidData as `build_dataset` does."""
    spec = strategy.training.data_split
    datasets = {
        number: build_dataset(strategy, market, number) for number in sorted({1, spec.num_folds})
    }
    symbols = tuple(_symbol_rows(strategy, market, symbol) for symbol in market.symbols)
    moments = np.concatenate([one.rows.moments for one in symbols])
    folds = []
    for number, dataset in datasets.items():
        stretches = pieces(moments, spec, number)
        cuts = tuple(cut(one.rows, stretches, spec.embargo) for one in symbols)
        folds.append(Fold(number, stretches, cuts, dataset))
    return PipelineRun(strategy, market, symbols, tuple(folds))


def _symbol_rows(strategy: Strategy, market: Market, symbol: str) -> SymbolRows:
    series = compute_series(strategy, market, symbol)
    own = one_symbol(market, symbol, set(series.last_closed))
    return SymbolRows(own, series, label_rows(strategy, series))
