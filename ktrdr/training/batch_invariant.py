"""Batch-invariant inference: a row's prediction does not depend on the rows beside it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

BATCH_ROWS = 1024
"""How many samples a network is always shown at once: matrix products round by the shape of what
they are given, so a last batch that is not full is filled up with zeros."""


def predictions(
    model: Callable[[Tensor], Tensor], inputs: Tensor, places: Tensor | None = None
) -> Tensor:
    """What a network in evaluation mode says to samples [N, ...], in their order: [N, outputs].

    `places` names the samples among `inputs`; None: all. A row's answer depends on nothing but the
    row. No random state is used.
    """
    count = len(inputs) if places is None else len(places)
    # Always the same memory, laid out alike: a view of other rows has other strides, or begins
    # where vectors of the processor do not, and both can change how a product is rounded.
    shown = inputs.new_zeros(BATCH_ROWS, *inputs.shape[1:])
    found = []
    with torch.no_grad():
        for start in range(0, max(count, 1), BATCH_ROWS):
            stop = min(start + BATCH_ROWS, count)
            part = inputs[start:stop] if places is None else inputs[places[start:stop]]
            shown[: len(part)] = part
            shown[len(part) :] = 0
            found.append(model(shown)[: len(part)].clone())
    return torch.cat(found)


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Compute as a training does, which takes one thread: more would divide sums otherwise."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
