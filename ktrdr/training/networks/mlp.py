"""The multi-layer perceptron."""

from __future__ import annotations

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
    return nn.Sequential(*layers, nn.Linear(width, num_outputs))
