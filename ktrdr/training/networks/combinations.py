"""The rules of a rule base: combinations of one membership of each fuzzy input."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ktrdr.strategy.networks import MOST_RULES

Combinations = NDArray[np.int64]
Grades = NDArray[np.float64]


def count_rules(sizes: Sequence[int], max_rules: int) -> int:
    """How many rules inputs with so many memberships make."""
    return min(max_rules, math.prod(sizes))


def first_combinations(sizes: Sequence[int], count: int) -> Combinations:
    """The first so many combinations in the order of an odometer, [count, inputs]."""
    every = itertools.product(*map(range, sizes))
    return np.array(list(itertools.islice(every, count)), dtype=np.int64)


def strongest_combinations(grades: Sequence[Grades], count: int) -> Combinations:
    """The combinations that fire most in all over some rows, in the order of an odometer.

    Args:
        grades: for each input the grades of its memberships, [rows, memberships].

    A combination fires by the product of its grades. Inputs are joined one by one, and of the
    combinations so far the 1,024 that fire most are kept: exact as long as there are no more, and
    cheap where all of them would be billions. Of equals the first ones are taken. Plain loops of
    numpy, no matrix library: the choice does not depend on threads.
    """
    chosen = np.zeros((1, 0), dtype=np.int64)
    firing = np.ones((len(grades[0]), 1))
    for last, own in enumerate(grades, start=1 - len(grades)):
        totals = np.einsum("np,nm->pm", firing, own)
        kept = _largest(totals.ravel(), count if last == 0 else MOST_RULES)
        before, membership = np.divmod(kept, own.shape[1])
        chosen = np.column_stack([chosen[before], membership])
        firing = firing[:, before] * own[:, membership]
    return chosen


def _largest(totals: Grades, count: int) -> NDArray[np.intp]:
    """The indices of the largest values, ascending; of equal values the first ones."""
    return np.sort(np.argsort(-totals, kind="stable")[:count])
