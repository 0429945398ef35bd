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
    model: Callable[[Tensor], Tensor], inputs: Tensor, indices: Tensor | None = None
) -> Tensor:
    """Return the outputs of a network in evaluation mode for samples [N, ...]: [N, outputs].

    `indices` are those of the samples in `inputs`; None: all. A prediction depends on its row
    alone. No random state is used.
    """
    count = len(inputs) if indices is None else len(indices)
    # Always the same memory, laid out alike: a view of other rows has other strides, or begins
    # where vectors of the processor do not, and both can change how a product is rounded.
    shown = inputs.new_zeros(BATCH_ROWS, *inputs.shape[1:])
    found = []
    with torch.no_grad():
        for start in range(0, max(count, 1), BATCH_ROWS):
            stop = min(start + BATCH_ROWS, count)
            part = inputs[start:stop] if indices is None else inputs[indices[start:stop]]
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
