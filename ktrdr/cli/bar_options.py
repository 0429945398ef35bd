"""The options by which a command uses other bars than a strategy's own."""

from __future__ import annotations

from typing import Annotated

import typer

Symbols = Annotated[
    str | None, typer.Option(help="Symbols, separated by commas, instead of the strategy's.")
]
Timeframes = Annotated[
    str | None, typer.Option(help="Timeframes, separated by commas, instead of its own.")
]
StartDate = Annotated[str | None, typer.Option(help="First day to use, YYYY-MM-DD.")]
EndDate = Annotated[str | None, typer.Option(help="Last day to use, YYYY-MM-DD, whole.")]
