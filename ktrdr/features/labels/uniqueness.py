"""Average uniqueness of overlapping labels."""

from __future__ import annotations

import numpy as np

from ktrdr.data.bars import FloatArray, IntArray


def average_uniqueness(entries: IntArray, ends: IntArray, count: int) -> FloatArray:
    """The average uniqueness of each label over its own life; above 0, at most 1.

    Lopez de Prado, Advances in Financial Machine Learning (2018), 4.2 to 4.4: a label lives on the
    bars entry + 1 to end; the concurrency c of a bar is the number of labels that live on it; the
    weight of a label is the mean of 1 / c over its life.

    Args:
        entries: the bars at which labels are made, rising.
        ends: the bars that decide them, after their entries; beyond the last bar for labels that
            are still alive there.
        count: number of bars.

    Labels that are still alive count, as they did while the others lived: so c of a bar depends
    on that bar and earlier ones only, and a weight on nothing after the label's end. Weights are
    not scaled to a mean of 1: that would need all the labels, those of a later split included.
    """
    last = np.minimum(ends, count - 1)
    begun = np.bincount(entries + 1, minlength=count + 1)
    ended = np.bincount(last + 1, minlength=count + 1)
    alive = np.cumsum(begun - ended)[:count]
    shares = np.concatenate(([0.0], np.cumsum(1.0 / np.maximum(alive, 1))))
    sums: FloatArray = shares[last + 1] - shares[entries + 1]
    return sums / np.maximum(last - entries, 1)
