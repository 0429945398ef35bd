"""The networks that a strategy can ask for; the head's size follows the labels."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag

from ktrdr.strategy.values import Closed, Number, tag_by


class MLPArchitecture(Closed):
    hidden_layers: Annotated[
        tuple[Annotated[int, Field(strict=True, ge=1, le=65_536)], ...], Field(max_length=64)
    ] = (64, 32)
    dropout: Annotated[Number, Field(ge=0, lt=1)] = 0.2
    activation: Literal["relu", "tanh", "sigmoid", "leaky_relu", "gelu"] = "relu"


class MLP(Closed):
    """A multi-layer perceptron over one bar; the head's size follows the labels."""

    type: Literal["mlp"]
    architecture: MLPArchitecture = MLPArchitecture()

    @property
    def sequence_length(self) -> int | None:
        """Rows that one answer is made from; None: a single one, without an axis for them."""
        return None


class RecurrentArchitecture(Closed):
    sequence_length: Annotated[int, Field(strict=True, ge=1, le=10_000)]
    hidden_size: Annotated[int, Field(strict=True, ge=1, le=65_536)] = 64
    num_layers: Annotated[int, Field(strict=True, ge=1, le=64)] = 2
    dropout: Annotated[Number, Field(ge=0, lt=1)] = 0.2


class Recurrent(Closed):
    """LSTM or GRU layers over the last `sequence_length` bars."""

    type: Literal["lstm", "gru"]
    architecture: RecurrentArchitecture

    @property
    def sequence_length(self) -> int | None:
        return self.architecture.sequence_length


def _network_tag(data: Any) -> str | None:
    tag = tag_by("type")(data)
    return "<recurrent>" if tag in ("<lstm>", "<gru>") else tag


Network = Annotated[
    Annotated[MLP, Tag("<mlp>")] | Annotated[Recurrent, Tag("<recurrent>")],
    Discriminator(
        _network_tag,
        custom_error_type="model",
        custom_error_message="type must be mlp, lstm or gru",
    ),
]


NETWORK_CLASS_OF_TAG: dict[str, type[Closed]] = {"<mlp>": MLP, "<recurrent>": Recurrent}
