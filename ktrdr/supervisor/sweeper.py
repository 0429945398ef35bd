"""What touches storage, on a thread of its own: however slow that is, no tick and no lease waits.

Results are taken by the supervisor's next tick.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from ktrdr.checkpoints.adoption import keep_stacks, uncommitted
from ktrdr.checkpoints.cleanup import sweep_operation
from ktrdr.driver.names import AttemptKey
from ktrdr.errors import KtrdrError, OperationNotFound, describe
from ktrdr.operations.service import OperationsService
from ktrdr.operations.types import Adoption, Operation
from ktrdr.storage.posix import DISK, Files

SWEEP_AGAIN_S = 60.0
"""After a sweep that failed."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class UncommittedRead:
    key: AttemptKey
    adoption: Adoption


@dataclass(frozen=True)
class StacksKept:
    key: AttemptKey
    where: str
    """In words."""


@dataclass(frozen=True)
class StorageFailed:
    """Something unforeseen: what was asked for may be asked for again."""

    key: AttemptKey
    error: Exception


StorageResult = UncommittedRead | StacksKept | StorageFailed


class StorageWorker:
    """Does what it is asked for in order, and sweeps when nothing else is to be done."""

    def __init__(
        self,
        service: OperationsService,
        files: Files = DISK,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._service = service
        self._files = files
        self._clock = clock
        self._requests: deque[tuple[AttemptKey, Callable[[], StorageResult]]] = deque()
        self._sweeps: dict[str, None] = {}
        """Operation ids, in order; the first one may be under way."""
        self._not_before: dict[str, float] = {}
        """Sweeps that failed."""
        self._results: deque[StorageResult] = deque()
        self._asked = threading.Condition()

    def start(self) -> None:
        threading.Thread(target=self._run, name="storage", daemon=True).start()

    def read_uncommitted(self, operation: Operation) -> None:
        """Look for checkpoints whose driver was gone before their rows were written."""
        key = operation.operation_id, operation.attempt
        self._request(
            key, lambda: UncommittedRead(key, uncommitted(self._service, operation, self._files))
        )

    def keep_stacks(self, operation: Operation, text: str) -> None:
        key = operation.operation_id, operation.attempt
        self._request(key, lambda: StacksKept(key, keep_stacks(operation, text, self._files)))

    def sweep(self, operation_ids: Iterable[str]) -> None:
        """Sweep operations by and by; those whose sweep failed a while ago wait."""
        now = self._clock()
        with self._asked:
            for name in operation_ids:
                if self._not_before.get(name, now) <= now:
                    self._sweeps.setdefault(name)
            self._asked.notify()

    def take_results(self) -> list[StorageResult]:
        """Return what has come in since this was last called."""
        return [self._results.popleft() for _ in range(len(self._results))]

    def run_next(self, wait_s: float | None = 0.0) -> bool:
        """Do one thing, waiting for it if need be; say whether there was one."""
        with self._asked:
            self._asked.wait_for(lambda: self._requests or self._sweeps, wait_s)
            request = self._requests.popleft() if self._requests else None
            sweep = next(iter(self._sweeps), None)
        if request is not None:
            self._answer(*request)
        elif sweep is not None:
            self._sweep(sweep)
        return request is not None or sweep is not None

    def _run(self) -> None:
        while True:
            self.run_next(wait_s=None)

    def _request(self, key: AttemptKey, work: Callable[[], StorageResult]) -> None:
        with self._asked:
            self._requests.append((key, work))
            self._asked.notify()

    def _answer(self, key: AttemptKey, work: Callable[[], StorageResult]) -> None:
        try:
            self._results.append(work())
        except Exception as error:
            self._results.append(StorageFailed(key, error))

    def _sweep(self, operation_id: str) -> None:
        self._not_before.pop(operation_id, None)
        try:
            sweep_operation(self._service, operation_id, self._files)
        except OperationNotFound:
            pass  # deleted, and all of it with it
        except Exception as error:
            foreseen = isinstance(error, KtrdrError)
            log.warning(
                "%s is not swept yet: %s", operation_id, describe(error), exc_info=not foreseen
            )
            self._not_before[operation_id] = self._clock() + SWEEP_AGAIN_S
        finally:
            with self._asked:
                del self._sweeps[operation_id]
