"""LSTM and GRU."""

from __future__ import annotations

from torch import Tensor, nn

from ktrdr.strategy.networks import Recurrent

_LAYERS = {"lstm": nn.LSTM, "gru": nn.GRU}


class RecurrentNetwork(nn.Module):
    """LSTM or GRU layers, dropout after each, and a linear head on the last step.

    Torch could stack the layers itself, but inside cuDNN the dropout between them draws from a
    state that nobody can save; `nn.Dropout` draws from torch's own, which a checkpoint holds.
    """

    def __init__(self, model: Recurrent, num_inputs: int, num_outputs: int) -> None:
        super().__init__()
        layer, shape = _LAYERS[model.type], model.architecture
        widths = [num_inputs, *[shape.hidden_size] * (shape.num_layers - 1)]
        self.layers = nn.ModuleList(
            layer(width, shape.hidden_size, batch_first=True) for width in widths
        )
        self.dropout = nn.Dropout(shape.dropout)
        self.head = nn.Linear(shape.hidden_size, num_outputs)

    def forward(self, sequences: Tensor) -> Tensor:
        *lower, last = self.layers
        values = sequences
        for layer in lower:
            values = self.dropout(layer(values)[0])
        outputs: Tensor = self.head(self.dropout(last(values)[0][:, -1]))
        return outputs
