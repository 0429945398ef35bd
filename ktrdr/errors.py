"""Every error that reaches a user: what is wrong, where, what to do next.

One class per stable code; the base of each group carries the exit status of the command line.

    KtrdrError
      InvalidInput 2      Usage InvalidId AmbiguousId InvalidStrategy InvalidData
      NotFound 3          OperationNotFound CheckpointNotFound StrategyNotFound DataNotFound
                          ModelNotFound
      Conflict 4          OperationNotResumable OperationNotCancellable OperationRunning
                          StrategyChanged DataChanged IllegalTransition StaleAttempt
                          OwnerClosing
      Unusable 5          CheckpointCorrupted
      Unreachable 6       StoreUnavailable StoreMismatch StoreTooNew StorageUnavailable
                          ClusterUnavailable VersionMismatch
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar


class KtrdrError(Exception):
    """A mistake or a trouble that a user can act on; `details` are plain JSON values."""

    code: ClassVar[str] = "ERROR"
    exit_status: ClassVar[int] = 1

    def __init__(self, message: str, **details: Any) -> None:
        super().__init__(message)
        self.message = message
        self.details = details

    def __reduce__(self) -> tuple[Callable[..., KtrdrError], tuple[Any, ...]]:
        return _rebuild, (type(self), self.message, self.details)


def _rebuild(kind: type[KtrdrError], message: str, details: dict[str, Any]) -> KtrdrError:
    return kind(message, **details)


class InvalidInput(KtrdrError):
    exit_status = 2


class NotFound(KtrdrError):
    exit_status = 3


class Conflict(KtrdrError):
    exit_status = 4


class Unusable(KtrdrError):
    exit_status = 5


class Unreachable(KtrdrError):
    exit_status = 6


class Usage(InvalidInput):
    code = "USAGE"


class InvalidId(InvalidInput):
    code = "INVALID_ID"


class AmbiguousId(InvalidInput):
    code = "AMBIGUOUS_ID"


class InvalidStrategy(InvalidInput):
    code = "INVALID_STRATEGY"


class InvalidData(InvalidInput):
    code = "INVALID_DATA"


class OperationNotFound(NotFound):
    code = "OPERATION_NOT_FOUND"


class CheckpointNotFound(NotFound):
    code = "CHECKPOINT_NOT_FOUND"


class StrategyNotFound(NotFound):
    code = "STRATEGY_NOT_FOUND"


class DataNotFound(NotFound):
    code = "DATA_NOT_FOUND"


class ModelNotFound(NotFound):
    code = "MODEL_NOT_FOUND"


class OperationNotResumable(Conflict):
    code = "OPERATION_NOT_RESUMABLE"


class OperationNotCancellable(Conflict):
    code = "OPERATION_NOT_CANCELLABLE"


class OperationRunning(Conflict):
    code = "OPERATION_RUNNING"


class StrategyChanged(Conflict):
    code = "STRATEGY_CHANGED"


class DataChanged(Conflict):
    code = "DATA_CHANGED"


class IllegalTransition(Conflict):
    """The operation's status does not admit the event: somebody else went first."""

    code = "ILLEGAL_TRANSITION"


class StaleAttempt(Conflict):
    """The writer speaks for an attempt that is over: it must stop and change nothing."""

    code = "STALE_ATTEMPT"


class OwnerClosing(Conflict):
    """The cluster that was to run an operation ends: start another one and submit again."""

    code = "OWNER_CLOSING"


class CheckpointCorrupted(Unusable):
    code = "CHECKPOINT_CORRUPTED"


class StoreUnavailable(Unreachable):
    code = "STORE_UNAVAILABLE"


class StoreMismatch(Unreachable):
    code = "STORE_MISMATCH"


class StoreTooNew(Unreachable):
    code = "STORE_TOO_NEW"


class StorageUnavailable(Unreachable):
    code = "STORAGE_UNAVAILABLE"


class ClusterUnavailable(Unreachable):
    code = "CLUSTER_UNAVAILABLE"


class VersionMismatch(Unreachable):
    code = "VERSION_MISMATCH"


class OutputLost(KtrdrError):
    """The answer could not be written where the user wants it."""

    code = "OUTPUT_LOST"


def describe(error: BaseException) -> str:
    """An exception in one line."""
    text = error.message if isinstance(error, KtrdrError) else str(error)
    return (text.splitlines() or [type(error).__name__])[0][:500]
