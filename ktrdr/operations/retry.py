"""The one back-off of the project, and what it is used for: calls that may be made again.

A verb of the service is one transaction. After a deadlock or a lost connection it is run again,
where it certainly did not happen. When a commit's own answer was lost the caller hears
StoreUnavailable, and may call again: every verb is guarded.
"""

from __future__ import annotations

import functools
import itertools
import time
from collections.abc import Callable, Iterator
from typing import ParamSpec, TypeVar

from ktrdr.operations.ports import TransactionAborted

T = TypeVar("T")
P = ParamSpec("P")

BACK_OFF_S = (0.0, 0.02, 0.1, 0.5, 1.0, 2.0)

_TRANSACTION_RETRIES = 4


def back_off() -> Iterator[float]:
    """Yield how long to wait before each further try, for as many as the caller makes."""
    return itertools.chain(BACK_OFF_S, itertools.repeat(BACK_OFF_S[-1]))


def retrying(service: type[T]) -> type[T]:
    """Let every public method run again after TransactionAborted, a bounded number of times."""
    for name, verb in list(vars(service).items()):
        if callable(verb) and not name.startswith("_"):
            setattr(service, name, _retried(verb))
    return service


def _retried(verb: Callable[P, T]) -> Callable[P, T]:
    @functools.wraps(verb)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        for pause in itertools.islice(back_off(), _TRANSACTION_RETRIES):
            try:
                return verb(*args, **kwargs)
            except TransactionAborted:
                time.sleep(pause)
        return verb(*args, **kwargs)

    return call
