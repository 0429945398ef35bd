"""What an attempt that is to be given up has on storage, and what is kept of it there."""

from __future__ import annotations

import contextlib
import logging
from pathlib import Path

from ktrdr.checkpoints.commit import attempt_folder
from ktrdr.checkpoints.storage import Storage, io_errors
from ktrdr.checkpoints.verify import found
from ktrdr.errors import Unreachable
from ktrdr.operations.model import NewCheckpoint, Operation
from ktrdr.operations.service import OperationsService

STACKS = "stacks.txt"

log = logging.getLogger(__name__)


def rowless(service: OperationsService, operation: Operation) -> tuple[NewCheckpoint, ...]:
    """The checkpoints whose driver was gone before their rows were written."""
    name, attempt = operation.operation_id, operation.attempt
    rows = service.checkpoints(name) + service.checkpoints(name, doomed=True)
    last = max((row.number for row in rows if row.attempt == attempt), default=0)
    try:
        return found(Storage(Path(operation.plan.storage)), name, attempt, last)
    except Unreachable as error:
        log.warning("%s: no checkpoint is adopted: %s", name, error)
        return ()


def keep_stacks(operation: Operation, text: str) -> str:
    """Write what a hung driver was doing beside its checkpoints; where that is, in words."""
    storage = Storage(Path(operation.plan.storage))
    try:
        storage.marked_by()
        folder = attempt_folder(storage, operation.operation_id, operation.attempt)
        with io_errors("write the stacks to", folder):
            storage.make_folders(folder)
            with contextlib.suppress(FileExistsError):  # an owner before this one got so far
                storage.files.write(folder / STACKS, text.encode())
            storage.files.sync_folder(folder)
        return f"its stacks are in {storage.relative(folder / STACKS)}"
    except Unreachable as error:
        return f"its stacks could not be kept: {error}"
