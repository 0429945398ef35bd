"""Look-ahead check: does an input, label or fitted value depend on later bars?

Nothing is simulated: the pipeline that trains computes again from bars whose future is missing, or
another one, and every bit that must not change is compared. A difference proves a leak; that there
is none is evidence, and stronger with more points.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ktrdr.features.leaks.comparison import Leak, merged
from ktrdr.features.leaks.cut_points import CutPoint, sample_points
from ktrdr.features.leaks.pipeline_run import PipelineRun, run_pipeline
from ktrdr.features.leaks.probes import leaks_at_points
from ktrdr.features.leaks.split_leaks import edges_follow_prices, leaks_behind_splits

__all__ = ["Findings", "Leak", "PipelineRun", "Point", "find_leaks", "run_pipeline"]


@dataclass(frozen=True)
class Findings:
    """The points of each symbol in turn, the leaks, and what is to be known about them."""

    points: tuple[CutPoint, ...]
    leaks: tuple[Leak, ...]
    notes: tuple[str, ...]


def find_leaks(run: PipelineRun, seed: int, points: int) -> Findings:
    """Take away and change the future at `points` points of each symbol, and behind every split.

    The same seed gives the same points and the same other futures.
    """
    random, notes = np.random.default_rng(seed), list[str]()
    sampled = sample_points(run, points, random)
    leaks = list(leaks_at_points(run, sampled, random, notes))
    for fold in run.folds:
        leaks += leaks_behind_splits(run, fold, random, notes)
    if edges_follow_prices(run, random):
        notes.append(
            "splits: their edges are shares of the labelled rows, and how many"
            f" {run.strategy.training.labels.source} gives is up to the last prices: other bars"
            " at the end move them a little"
        )
    for one, own in zip(run.symbols, sampled, strict=True):
        if not own:
            notes.append(f"{one.symbol}: too few bars to look at a single point")
    flat = tuple(point for own in sampled for point in own)
    return Findings(flat, merged(leaks), tuple(dict.fromkeys(notes)))
