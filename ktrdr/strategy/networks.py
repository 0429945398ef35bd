"""The networks of the grammar; the size of the head follows the labels."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag

from ktrdr.strategy.field_types import Closed, Flag, Number, tag_by

MOST_RULES = 1024

Width = Annotated[int, Field(strict=True, ge=1, le=65_536)]
Dropout = Annotated[Number, Field(ge=0, lt=1)]
SequenceLength = Annotated[int, Field(strict=True, ge=1, le=10_000)]


class MLPArchitecture(Closed):
    hidden_layers: Annotated[tuple[Width, ...], Field(max_length=64)] = (64, 32)
    dropout: Dropout = 0.2
    activation: Literal["relu", "tanh", "sigmoid", "leaky_relu", "gelu"] = "relu"


class MLP(Closed):
    """A multi-layer perceptron over one bar; the head's size follows the labels."""

    type: Literal["mlp"]
    architecture: MLPArchitecture = MLPArchitecture()

    @property
    def sequence_length(self) -> int | None:
        """Rows of one prediction; None: a single one, without an axis for them."""
        return None


class RecurrentArchitecture(Closed):
    sequence_length: SequenceLength
    hidden_size: Width = 64
    num_layers: Annotated[int, Field(strict=True, ge=1, le=64)] = 2
    dropout: Dropout = 0.2


class Recurrent(Closed):
    """LSTM or GRU layers over the last `sequence_length` bars."""

    type: Literal["lstm", "gru"]
    architecture: RecurrentArchitecture

    @property
    def sequence_length(self) -> int | None:
        return self.architecture.sequence_length


class TCNArchitecture(Closed):
    sequence_length: SequenceLength
    # The dilation doubles with every level: 14 reach as far as the longest sequence.
    channels: Annotated[tuple[Width, ...], Field(min_length=1, max_length=14)] = (32, 32)
    kernel_size: Annotated[int, Field(strict=True, ge=2, le=64)] = 3
    dropout: Dropout = 0.2


class TCN(Closed):
    """Dilated causal convolutions over the last `sequence_length` bars."""

    type: Literal["tcn"]
    architecture: TCNArchitecture

    @property
    def sequence_length(self) -> int | None:
        return self.architecture.sequence_length


class NeuroFuzzyArchitecture(Closed):
    max_rules: Annotated[int, Field(strict=True, ge=2, le=MOST_RULES)] = 64
    order: Annotated[int, Field(strict=True, ge=0, le=1)] = 1
    train_memberships: Flag = True


class NeuroFuzzy(Closed):
    """Fuzzy rules over one bar (Takagi-Sugeno) whose memberships and conclusions are trained."""

    type: Literal["neuro_fuzzy"]
    architecture: NeuroFuzzyArchitecture = NeuroFuzzyArchitecture()

    @property
    def sequence_length(self) -> int | None:
        return None


def _network_tag(data: Any) -> str | None:
    tag = tag_by("type")(data)
    return "<recurrent>" if tag in ("<lstm>", "<gru>") else tag


Network = Annotated[
    Annotated[MLP, Tag("<mlp>")]
    | Annotated[Recurrent, Tag("<recurrent>")]
    | Annotated[TCN, Tag("<tcn>")]
    | Annotated[NeuroFuzzy, Tag("<neuro_fuzzy>")],
    Discriminator(
        _network_tag,
        custom_error_type="model",
        custom_error_message="type must be mlp, lstm, gru, tcn or neuro_fuzzy",
    ),
]


NETWORK_CLASS_OF_TAG: dict[str, type[Closed]] = {
    "<mlp>": MLP,
    "<recurrent>": Recurrent,
    "<tcn>": TCN,
    "<neuro_fuzzy>": NeuroFuzzy,
}
