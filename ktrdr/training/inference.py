"""A network's answers outside training, row by row the same whoever stands beside them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

BATCH_ROWS = 1024
"""How many samples a network is always shown at once: matrix products round by the shape of what
they are given, so a last batch that is not full is filled up with zeros."""


def answers(model: nn.Module, inputs: Tensor, places: Tensor | None = None) -> Tensor:
    """What a network in evaluation mode says to samples [N, ...], in their order: [N, outputs].

    `places` names the samples among `inputs`; None: all. A row's answer depends on nothing but the
    row. No random state is used.
    """
    count = len(inputs) if places is None else len(places)
    found = []
    with torch.no_grad():
        for start in range(0, max(count, 1), BATCH_ROWS):
            stop = min(start + BATCH_ROWS, count)
            part = inputs[start:stop] if places is None else inputs[places[start:stop]]
            found.append(model(_filled_up(part))[: stop - start])
    return torch.cat(found)


def _filled_up(part: Tensor) -> Tensor:
    if len(part) == BATCH_ROWS:
        return part
    full = part.new_zeros(BATCH_ROWS, *part.shape[1:])
    full[: len(part)] = part
    return full
