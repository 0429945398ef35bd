"""The networks, built from the strategy's model section and initialised from a seed."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ktrdr.features.columns import InputColumn
from ktrdr.strategy.networks import MLP, TCN, Network, Recurrent
from ktrdr.training.networks.mlp import make_mlp
from ktrdr.training.networks.neuro_fuzzy import NeuroFuzzyNetwork
from ktrdr.training.networks.recurrent import RecurrentNetwork
from ktrdr.training.networks.tcn import ConvolutionalNetwork


def build_model(
    model: Network,
    columns: Sequence[InputColumn],
    num_outputs: int,
    seed: int,
    training_rows: Tensor | None = None,
) -> nn.Module:
    """A network [N, F] or [N, sequence_length, F] -> [N, num_outputs] of F = len(columns) inputs.

    Args:
        seed: what the first weights depend on; the process's random state is left as it was.
        training_rows: the last row of every training sample, [N, F]. `neuro_fuzzy` chooses its
            rules by them; without them it waits for a state to be loaded, which holds the choice.

    Raises InvalidStrategy for a `neuro_fuzzy` that has nothing to make rules of.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        if isinstance(model, MLP):
            return make_mlp(model, len(columns), num_outputs)
        if isinstance(model, Recurrent):
            return RecurrentNetwork(model, len(columns), num_outputs)
        if isinstance(model, TCN):
            return ConvolutionalNetwork(model, len(columns), num_outputs)
        network = NeuroFuzzyNetwork(model, columns, num_outputs)
    if training_rows is not None:
        network.choose_rules(training_rows.cpu())
    return network
