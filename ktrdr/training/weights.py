"""Weights of a network: digest by tensor, stored and loaded without pickle."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ktrdr.errors import CheckpointCorrupted

if TYPE_CHECKING:
    pass


StateDict = Mapping[str, Tensor]


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
