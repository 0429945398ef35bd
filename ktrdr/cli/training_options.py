"""The options by which a command trains otherwise than a strategy says, declared once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from ktrdr.cli.command import names

if TYPE_CHECKING:
    from ktrdr.usecases.submit import TrainingOptions


@dataclass(frozen=True)
class BarArguments:
    """Which bars to use, as it is written on the command line."""

    symbols: Annotated[
        str | None, typer.Option(help="Symbols, separated by commas, instead of the strategy's.")
    ] = None
    timeframes: Annotated[
        str | None, typer.Option(help="Timeframes, separated by commas, instead of its own.")
    ] = None
    start_date: Annotated[str | None, typer.Option(help="First day to use, YYYY-MM-DD.")] = None
    end_date: Annotated[str | None, typer.Option(help="Last day to use, YYYY-MM-DD, whole.")] = None

    def options(self) -> TrainingOptions:
        """Return what is meant, not checked yet; Usage for a list that is none."""
        from ktrdr.usecases.submit import TrainingOptions

        lists = {
            name: names(getattr(self, name), f"--{name}") for name in ("symbols", "timeframes")
        }
        return TrainingOptions(**vars(self) | lists)


@dataclass(frozen=True)
class TrainingArguments(BarArguments):
    """The same, and how to train on them."""

    epochs: Annotated[int | None, typer.Option(help="Epochs, instead of its own.")] = None
    seed: Annotated[int | None, typer.Option(help="Seed, instead of its own.")] = None
