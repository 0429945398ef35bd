"""A Takagi-Sugeno rule base that trains: Jang's ANFIS, IEEE Trans. SMC 23 (1993).

Every rule takes one membership of each fuzzy input. It fires by the product of the grades times
its own weight; the outputs are the rules' conclusions, averaged by how much each of them fires.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from ktrdr.errors import InvalidStrategy
from ktrdr.features.columns import InputColumn
from ktrdr.strategy.networks import NeuroFuzzy
from ktrdr.training.networks.combinations import (
    count_rules,
    first_combinations,
    strongest_combinations,
)
from ktrdr.training.networks.curves import TrainedCurves, bounded

# A grade counts as at least this. Where no membership of an input takes hold, all rules have the
# same of it, and the others decide; where none of any does, every rule has its share by weight.
LEAST_GRADE = 1e-4
_LARGEST_LOG_WEIGHT = 5.0
_FARTHEST_DEVIATIONS = 10.0  # a spike in the bars must not carry a conclusion out of sight
_ROWS_TO_CHOOSE_BY = 2048
_ROWS_TO_WEIGH_BY = 65_536
_ROWS_AT_ONCE = 8192


class NeuroFuzzyNetwork(nn.Module):
    """Rows [N, F] -> outputs [N, num_outputs]: logits of the classes, or a value.

    R rules, K outputs. The state holds, beside the parameters, what was found in the training rows:
    `rules` int64 [R, fuzzy inputs], the membership of each input; `mean` and `scale` [F], which
    standardise what conclusions are made from; `centres` [R, F], where in the standardised inputs a
    rule fired on average, and `support` [R], its mean share, both before training.
    """

    mean: Tensor
    scale: Tensor
    rules: Tensor
    centres: Tensor
    support: Tensor
    offsets: Tensor

    def __init__(self, model: NeuroFuzzy, columns: Sequence[InputColumn], num_outputs: int) -> None:
        super().__init__()
        shape, width = model.architecture, len(columns)
        fuzzy = [(i, column) for i, column in enumerate(columns) if column.memberships]
        self._sizes = [len(column.memberships) for _, column in fuzzy]
        count = count_rules(self._sizes, shape.max_rules)
        if not fuzzy or count < 2:
            raise InvalidStrategy(
                "neuro_fuzzy needs at least two rules: name a fuzzy set with two memberships or "
                "more in nn_inputs, or choose another model.type"
            )
        curves = [(i, curve) for i, column in fuzzy for _, curve in column.memberships]
        self.curves = TrainedCurves(curves, shape.train_memberships)
        self.log_weights = nn.Parameter(torch.zeros(count))
        self.constants = nn.Parameter(torch.empty(count, num_outputs))
        nn.init.normal_(self.constants, std=0.01)
        self.slopes: nn.Parameter | None = None
        if shape.order == 1:
            self.slopes = nn.Parameter(torch.empty(count, num_outputs, width))
            nn.init.normal_(self.slopes, std=0.01)
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("scale", torch.ones(width))
        self.register_buffer("rules", torch.from_numpy(first_combinations(self._sizes, count)))
        self.register_buffer("centres", torch.zeros(count, width))
        self.register_buffer("support", torch.full((count,), 1 / count))
        offsets = np.cumsum([0, *self._sizes[:-1]])
        self.register_buffer("offsets", torch.from_numpy(offsets), persistent=False)

    def forward(self, rows: Tensor) -> Tensor:
        shares = self.shares(rows)
        if self.slopes is None:
            return shares @ self.constants
        # The average of linear conclusions is one linear conclusion per row: mix, then apply.
        count, num_outputs, width = self.slopes.shape
        at_origin = self.constants - (self.slopes * self.centres.unsqueeze(1)).sum(dim=2)
        mixed = (shares @ self.slopes.reshape(count, -1)).reshape(-1, num_outputs, width)
        return shares @ at_origin + (mixed * self._standardised(rows).unsqueeze(1)).sum(dim=2)

    def shares(self, rows: Tensor) -> Tensor:
        """Return the share of each rule in the output, [N, R]; every row sums to 1."""
        grades = torch.log(self.curves(rows).clamp(min=LEAST_GRADE)).to(rows.dtype)
        nowhere = grades.new_zeros(len(self.rules), grades.shape[1])
        takes_part = nowhere.scatter(1, self.rules + self.offsets, 1.0)
        return torch.softmax(grades @ takes_part.T + self._bounded_log_weights(), dim=1)

    @property
    def weights(self) -> Tensor:
        """The rules' weights, [R], above 0; 1 before training."""
        return torch.exp(self._bounded_log_weights().detach())

    @torch.no_grad()
    def choose_rules(self, rows: Tensor) -> None:
        """Settle what comes from the training rows [N, F], float32, N > 0."""
        exact = rows.double()
        deviation = exact.std(dim=0, correction=0)
        self.mean.copy_(exact.mean(dim=0))
        varies = deviation > torch.finfo(torch.float32).tiny
        self.scale.copy_(torch.where(varies, deviation, 1.0))
        grades = self.curves(_evenly_spaced(rows, _ROWS_TO_CHOOSE_BY)).numpy()
        by_input = np.split(grades, self.offsets[1:].numpy(), axis=1)
        self.rules.copy_(torch.from_numpy(strongest_combinations(by_input, len(self.rules))))
        self._weigh_rules(_evenly_spaced(rows, _ROWS_TO_WEIGH_BY))

    def _weigh_rules(self, rows: Tensor) -> None:
        total = torch.zeros(len(self.rules), dtype=torch.float64)
        sums = torch.zeros(self.centres.shape, dtype=torch.float64)
        for part in torch.split(rows, _ROWS_AT_ONCE):
            shares = self.shares(part).double()
            total += shares.sum(dim=0)
            sums += shares.T @ self._standardised(part).double()
        self.support.copy_(total / len(rows))
        self.centres.copy_(sums / total.unsqueeze(1))

    def _standardised(self, rows: Tensor) -> Tensor:
        deviations = (rows - self.mean) / self.scale
        return deviations.clamp(-_FARTHEST_DEVIATIONS, _FARTHEST_DEVIATIONS)

    def _bounded_log_weights(self) -> Tensor:
        return bounded(self.log_weights, _LARGEST_LOG_WEIGHT)


def _evenly_spaced(rows: Tensor, most: int) -> Tensor:
    if len(rows) <= most:
        return rows
    return rows[torch.arange(most) * len(rows) // most]
