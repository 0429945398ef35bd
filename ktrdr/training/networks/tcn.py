"""The temporal convolutional network of Bai, Kolter and Koltun, arXiv:1803.01271 (2018).

Theirs normalises its weights; this one has plain convolutions with torch's first weights.
"""

from __future__ import annotations

import itertools

import torch.nn.functional as F
from torch import Tensor, nn

from ktrdr.strategy.networks import TCN


class ConvolutionalNetwork(nn.Module):
    """Residual blocks whose dilations are 1, 2, 4 ..., and a linear head on the last step.

    The last step's output depends on 1 + 2 (kernel_size - 1) (2^levels - 1) steps, or on as many
    as the sequence has.
    """

    def __init__(self, model: TCN, num_inputs: int, num_outputs: int) -> None:
        super().__init__()
        shape = model.architecture
        widths = itertools.pairwise((num_inputs, *shape.channels))
        self.blocks = nn.Sequential(
            *(
                ResidualBlock(width, channels, shape.kernel_size, 2**level, shape.dropout)
                for level, (width, channels) in enumerate(widths)
            )
        )
        self.head = nn.Linear(shape.channels[-1], num_outputs)

    def forward(self, sequences: Tensor) -> Tensor:
        steps = self.blocks(sequences.transpose(1, 2))
        outputs: Tensor = self.head(steps[:, :, -1])
        return outputs


class ResidualBlock(nn.Module):
    """relu(x + f(x)), [N, width, L] -> [N, channels, L], where f is twice a causal convolution,
    relu and dropout; where the widths differ, x is projected."""

    def __init__(
        self, width: int, channels: int, kernel_size: int, dilation: int, dropout: float
    ) -> None:
        super().__init__()
        self.first = CausalConvolution(width, channels, kernel_size, dilation)
        self.second = CausalConvolution(channels, channels, kernel_size, dilation)
        self.shortcut = nn.Identity() if width == channels else nn.Conv1d(width, channels, 1)
        self.dropout = nn.Dropout(dropout)

    def forward(self, steps: Tensor) -> Tensor:
        inner = self.dropout(F.relu(self.first(steps)))
        inner = self.dropout(F.relu(self.second(inner)))
        return F.relu(inner + self.shortcut(steps))


class CausalConvolution(nn.Conv1d):
    """A convolution over this step and earlier ones, as if zeros stood before the first."""

    def __init__(self, width: int, channels: int, kernel_size: int, dilation: int) -> None:
        super().__init__(width, channels, kernel_size, dilation=dilation)

    def forward(self, steps: Tensor) -> Tensor:
        """[N, width, L] -> [N, channels, L]; taps that would see nothing but zeros are left out,
        or a large dilation would ask for padding far longer than the sequence."""
        dilation, taps = self.dilation[0], self.weight.shape[2]
        used = min(taps, (steps.shape[2] - 1) // dilation + 1)
        padded = F.pad(steps, ((used - 1) * dilation, 0))
        return F.conv1d(padded, self.weight[:, :, taps - used :], self.bias, dilation=dilation)
