"""ktrdr trains neuro-fuzzy trading models on Ray and never loses a training run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ktrdr.client import Client, Operation, load_model

__version__ = "0.1.0"
__all__ = ["Client", "Operation", "__version__", "load_model"]


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def __getattr__(name: str) -> Any:
    """Import the client when it is asked for: the command line starts without it."""
    if name in ("Client", "Operation", "load_model"):
        from ktrdr import client

        return getattr(client, name)
    raise AttributeError(f"module 'ktrdr' has no attribute {name!r}")
