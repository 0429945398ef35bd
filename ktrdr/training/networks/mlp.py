"""The multi-layer perceptron."""

from __future__ import annotations

import re
from typing import Any

from torch import nn

from ktrdr.strategy.networks import MLP

_ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
    "leaky_relu": nn.LeakyReLU,
    "gelu": nn.GELU,
}


def make_mlp(model: MLP, num_inputs: int, num_outputs: int) -> nn.Module:
    architecture = model.architecture
    layers: list[nn.Module] = []
    width = num_inputs
    for hidden in architecture.hidden_layers:
        layers += [nn.Linear(width, hidden), _ACTIVATIONS[architecture.activation]()]
        if architecture.dropout:
            layers.append(nn.Dropout(architecture.dropout))
        width = hidden
    network = nn.Sequential(*layers, nn.Linear(width, num_outputs))
    network.register_load_state_dict_pre_hook(_renumber)  # type: ignore[no-untyped-call]
    return network


def _renumber(module: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
    """Let weights in that were trained with dropout where there is none now, or without where
    there is some: layers are named by their indices, and dropout takes one."""
    own = [f"{prefix}{name}" for name, _ in module.named_parameters()]
    given = list(state)
    if [_kind(name) for name in given] == [_kind(name) for name in own]:
        values = [state.pop(name) for name in given]
        state.update(zip(own, values, strict=True))


def _kind(name: str) -> str:
    return re.sub(r"^[0-9]+\.", "", name)
