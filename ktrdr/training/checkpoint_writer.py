"""Background writing of checkpoints: training goes on after a snapshot."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import NamedTuple, Self

from ktrdr.checkpoints.manifest import Header, Provenance
from ktrdr.checkpoints.write import write_checkpoint
from ktrdr.errors import Unreachable
from ktrdr.operations.types import CheckpointType, NewCheckpoint
from ktrdr.training.context import Context
from ktrdr.training.state import Snapshot, encode
from ktrdr.training.weights import weights_digest

NOT_SAVED = "CHECKPOINT_NOT_SAVED"
_OF_A_RUN_THAT_GOES_ON = (CheckpointType.INITIAL, CheckpointType.PERIODIC)


class Position(NamedTuple):
    """Where a resume would go on."""

    step: int
    epoch: int
    batch: int


class CheckpointWriter:
    """One write in flight: the directory durable first, then its row is committed.

    A disk or store that refuses becomes a warning, and the next trigger tries again. Any other
    error is kept in `failure` and raised on the training thread, at the latest when leaving.
    """

    def __init__(self, context: Context, provenance: Provenance, saved: Position | None) -> None:
        """`saved` is the position of the checkpoint that training goes on from."""
        self._context = context
        self._provenance = provenance
        self._saved = saved
        self._number = 0
        self._in_flight: Future[NewCheckpoint | None] | None = None
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="checkpoint-writer")
        self.failure: BaseException | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._executor.shutdown(wait=True)
        if error is None:
            self._raise_failure()
        elif self.failure is not None and self.failure is not error:
            error.add_note(f"a checkpoint failed as well: {self.failure!r}")

    @property
    def idle(self) -> bool:
        return self._in_flight is None or self._in_flight.done()

    def start(self, snapshot: Snapshot) -> None:
        """Write in the background; only when idle."""
        self._raise_failure()
        self._in_flight = self._executor.submit(self._write, snapshot)

    def finish(self, snapshot: Snapshot) -> NewCheckpoint | None:
        """Write after the one in flight, and wait; None when disk or store refused."""
        self.settle()
        self.start(snapshot)
        assert self._in_flight is not None
        return self._in_flight.result()

    def settle(self) -> None:
        """Wait for the write in flight."""
        if self._in_flight is not None:
            self._in_flight.exception()
        self._raise_failure()

    def _raise_failure(self) -> None:
        if self.failure is not None:
            raise self.failure

    def _write(self, snapshot: Snapshot) -> NewCheckpoint | None:
        try:
            return self._try(snapshot)
        except BaseException as error:
            self.failure = error
            raise

    def _try(self, snapshot: Snapshot) -> NewCheckpoint | None:
        try:
            new = self._commit(snapshot)
        except Unreachable as error:
            kind, follows = snapshot.checkpoint_type, self._what_follows(snapshot)
            self._context.warn(NOT_SAVED, f"{kind} checkpoint not saved, {follows}: {error}")
            return None
        self._saved = Position(snapshot.global_step, snapshot.loop.epoch, snapshot.loop.batch)
        return new

    def _what_follows(self, snapshot: Snapshot) -> str:
        if snapshot.checkpoint_type in _OF_A_RUN_THAT_GOES_ON:
            return "training goes on"
        if self._saved is None:
            return "and there is no earlier one to resume from"
        lost = snapshot.global_step - self._saved.step
        return (
            f"lost are the {lost} batches since epoch {self._saved.epoch}, batch"
            f" {self._saved.batch}, where a resume goes on"
        )

    def _commit(self, snapshot: Snapshot) -> NewCheckpoint:
        self._number += 1  # also after a failure: what that may have left is never met again
        context, loop = self._context, snapshot.loop
        header = Header(
            **self._provenance.model_dump(),
            operation_id=context.operation_id,
            attempt=context.attempt,
            number=self._number,
            epoch=loop.epoch,
            batch=loop.batch,
            checkpoint_type=snapshot.checkpoint_type,
            weights_digest=weights_digest(snapshot.model),
            is_best=snapshot.is_best,
            created_at=context.now(),
        )
        new = write_checkpoint(context.storage, header, encode(snapshot))
        context.commit(new)
        return new
