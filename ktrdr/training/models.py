"""Networks: built from the strategy, digested by tensor, stored and loaded without pickle."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ktrdr.checkpoints.manifest import ModelManifest
from ktrdr.errors import CheckpointCorrupted, KtrdrError
from ktrdr.strategy.loading import validate_strategy
from ktrdr.strategy.networks import MLP, Recurrent
from ktrdr.strategy.schema import Strategy
from ktrdr.training.batches import chunks, samples

StateDict = Mapping[str, Tensor]

_ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
    "leaky_relu": nn.LeakyReLU,
    "gelu": nn.GELU,
}
_RECURRENT_LAYERS = {"lstm": nn.LSTM, "gru": nn.GRU}


def build_model(model: MLP | Recurrent, num_inputs: int, num_outputs: int, seed: int) -> nn.Module:
    """A network [N, num_inputs] or [N, sequence_length, num_inputs] -> [N, num_outputs] whose first
    weights depend on the seed only. The process's random state is left as it was.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        if isinstance(model, MLP):
            return _mlp(model, num_inputs, num_outputs)
        return RecurrentNetwork(model, num_inputs, num_outputs)


class RecurrentNetwork(nn.Module):
    """LSTM or GRU layers, dropout after each, and a linear head on the last step.

    Torch could stack the layers itself, but inside cuDNN the dropout between them draws from a
    state that nobody can save; `nn.Dropout` draws from torch's own, which a checkpoint holds.
    """

    def __init__(self, model: Recurrent, num_inputs: int, num_outputs: int) -> None:
        super().__init__()
        layer, shape = _RECURRENT_LAYERS[model.type], model.architecture
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


def weights_digest(state: StateDict) -> str:
    """sha256 over the tensors in name order: name, dtype, shape, bytes."""
    digest = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        head = f"{name}\0{tensor.dtype}\0{tuple(tensor.shape)}\0"
        digest.update(head.encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def save_state(state: object) -> bytes:
    """Serialise tensors and plain values."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return buffer.getvalue()


def load_state(data: bytes, origin: str) -> Any:
    """Read what `save_state` wrote; anything but tensors and plain values is refused unopened."""
    try:
        return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds for bytes that are not its own
        reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        raise CheckpointCorrupted(
            f"{origin} holds something other than tensors and plain values ({reason}):"
            " restore it from a backup, or use an older one",
            files={origin: "not a state"},
        ) from None


def fit_state(module: nn.Module, state: Any, origin: str) -> None:
    """Load weights into a network; CheckpointCorrupted when they are another network's."""
    try:
        module.load_state_dict(state)
    except (RuntimeError, TypeError, AttributeError) as error:
        reason = " ".join(str(error).split())[:300]
        raise CheckpointCorrupted(
            f"{origin} does not fit the model of this strategy ({reason}):"
            " use the strategy that it was made with",
            files={origin: "of another model"},
        ) from None


def model_files(strategy: Strategy, weights: StateDict) -> dict[str, bytes]:
    """The files of a stored model: its weights and the effective strategy."""
    config = strategy.model_dump(mode="json", exclude_none=True)
    return {
        "model.pt": save_state(dict(weights)),
        "strategy.json": json.dumps(config, indent=1, sort_keys=True).encode(),
    }


@dataclass(frozen=True)
class LoadedModel:
    """A stored model, ready to use on the CPU."""

    module: nn.Module
    strategy: Strategy
    input_names: tuple[str, ...]
    class_names: tuple[str, ...]
    """Empty for a regression."""

    def outputs(self, inputs: NDArray[np.float32]) -> NDArray[np.float32]:
        """The network's raw outputs, [N, classes] or [N, 1], for inputs [N, len(input_names)].

        A model with a `sequence_length` takes consecutive rows, and answers from the first row on
        that has enough rows before it: N - sequence_length + 1 answers.
        """
        rows = torch.from_numpy(np.array(inputs))
        shown = samples(rows, self.strategy.model.sequence_length)
        with torch.no_grad():
            answers = torch.cat([self.module(part) for part in chunks(shown)])
        result: NDArray[np.float32] = answers.numpy()
        return result

    def predict(self, inputs: NDArray[np.float32]) -> tuple[str, ...] | tuple[float, ...]:
        """For each answer the name of the likeliest class, or for a regression the value."""
        outputs = self.outputs(inputs)
        if self.strategy.is_regression:
            return tuple(outputs[:, 0].tolist())
        return tuple(self.class_names[i] for i in outputs.argmax(axis=1))


def load_model(manifest: ModelManifest, files: Mapping[str, bytes]) -> LoadedModel:
    """Rebuild a model from what `checkpoints.models.read_model` verified.

    Raises CheckpointCorrupted when the weights are not those of its strategy and manifest.
    """
    origin = f"{manifest.strategy_name}@v{manifest.version}"
    missing = [name for name in ("model.pt", "strategy.json") if name not in files]
    if missing:
        raise CheckpointCorrupted(f"{origin} lacks {missing[0]}: restore it from a backup")
    try:
        strategy = validate_strategy(json.loads(files["strategy.json"]), f"{origin} strategy.json")
    except (ValueError, KtrdrError) as error:
        raise CheckpointCorrupted(f"{origin}: its strategy cannot be read: {error}") from None
    num_outputs = 1 if strategy.is_regression else len(manifest.class_names)
    module = build_model(strategy.model, len(manifest.input_names), num_outputs, seed=0)
    state = load_state(files["model.pt"], f"{origin} model.pt")
    fit_state(module, state, f"{origin} model.pt")
    if weights_digest(module.state_dict()) != manifest.weights_digest:
        raise CheckpointCorrupted(f"{origin}: its weights are not those of its manifest")
    module.eval()
    return LoadedModel(module, strategy, tuple(manifest.input_names), tuple(manifest.class_names))


def _mlp(model: MLP, num_inputs: int, num_outputs: int) -> nn.Module:
    architecture = model.architecture
    layers: list[nn.Module] = []
    width = num_inputs
    for hidden in architecture.hidden_layers:
        layers += [nn.Linear(width, hidden), _ACTIVATIONS[architecture.activation]()]
        if architecture.dropout:
            layers.append(nn.Dropout(architecture.dropout))
        width = hidden
    return nn.Sequential(*layers, nn.Linear(width, num_outputs))
