"""Verbs that survive a deadlock or a lost connection: each is one transaction, run again.

Only what certainly did not happen is repeated. When a commit's own answer was lost the caller hears
StoreUnavailable, and may call again: every verb is guarded.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from ktrdr.operations.ports import TransactionAborted

T = TypeVar("T")
P = ParamSpec("P")

_PAUSES_S = (0.0, 0.02, 0.1, 0.5)


def repeating(service: type[T]) -> type[T]:
    """Let every public method run again after TransactionAborted, a bounded number of times."""
    for name, verb in list(vars(service).items()):
        if callable(verb) and not name.startswith("_"):
            setattr(service, name, _repeated(verb))
    return service


def _repeated(verb: Callable[P, T]) -> Callable[P, T]:
    @functools.wraps(verb)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        for pause in _PAUSES_S:
            try:
                return verb(*args, **kwargs)
            except TransactionAborted:
                time.sleep(pause)
        return verb(*args, **kwargs)

    return call
