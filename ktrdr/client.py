"""The Python API: submit a training, watch it, stop it, resume it, use its model.

from ktrdr import Client
op = Client().train("strategies/trend_follower.yaml", symbols=["EURUSD"], timeframes=["5m"])
op.wait()
"""

from __future__ import annotations

import atexit
import secrets
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from ktrdr.checkpoints.storage import Storage
from ktrdr.errors import ClusterUnavailable, KtrdrError, Usage
from ktrdr.operations import model as values
from ktrdr.operations import records
from ktrdr.operations.model import FailureReason, Owner, Status, check_operation_id
from ktrdr.operations.service import OperationsService
from ktrdr.runtime.embedded import EmbeddedRay, renewing
from ktrdr.runtime.processes import embedded_owner, seen_dead
from ktrdr.settings import Settings, read_settings
from ktrdr.store import SqlStore, open_store

if TYPE_CHECKING:
    from ktrdr.data.store import BarStore
    from ktrdr.training.models import LoadedModel

POLL_S = 0.2
OWNERLESS_AFTER_S = 10.0

Record = dict[str, Any]


class Client:
    """Everything ktrdr can do, from this process. Ray is started only when something trains.

    Leaving the `with` block, or the end of the process, stops running operations with a last
    checkpoint.
    """

    def __init__(
        self,
        settings: Settings | None = None,
        *,
        on_ray_started: Callable[[], None] | None = None,
    ) -> None:
        self.settings = settings or read_settings()
        self._on_ray_started = on_ray_started
        self._owner: Owner = embedded_owner()
        self._ray: EmbeddedRay | None = None
        self._store: SqlStore | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stop what runs here, with a checkpoint, and end the Ray that was started for it."""
        if self._ray is not None:
            atexit.unregister(self.close)
            self._ray.stop(self.service, self._owner)
            self._ray = None
        if self._store is not None:
            self._store.close()
            self._store = None

    # Training ------------------------------------------------------------------------------------

    def train(self, strategy: str | Path, **options: Any) -> Operation:
        """Train a strategy: `submit` and `launch` in one. Takes the options of `submit`."""
        operation = self.submit(strategy, **options)
        self.launch(operation)
        return operation

    def submit(  # noqa: PLR0913 - what a request may say
        self,
        strategy: str | Path,
        *,
        symbols: Sequence[str] | None = None,
        timeframes: Sequence[str] | None = None,
        start_date: str | None = None,
        end_date: str | None = None,
        epochs: int | None = None,
        seed: int | None = None,
    ) -> Operation:
        """Check everything and write a pending operation; no Ray yet.

        Raises:
            StrategyNotFound, InvalidStrategy, DataNotFound, InvalidData, Usage: nothing is written.
        """
        from ktrdr.runtime import submitting

        overrides = submitting.Overrides(symbols, timeframes, start_date, end_date, epochs, seed)
        request, plan = submitting.prepare(Path(strategy), overrides, self.storage())
        row = self.service.submit(request, plan, self._owner, secrets.token_hex(16))
        return Operation(self, row.operation_id)

    def launch(self, operation: Operation) -> None:
        """Start Ray for an operation that this client submitted or resumed.

        When that fails the operation ends `failed (launch_failed)`, its checkpoint kept: its
        record says why.
        """
        if self._ray is not None:
            return  # its actor sees the new row within a fraction of a second
        try:
            with renewing(self.service, self._owner):
                self._ray = EmbeddedRay.start(self.settings, self._owner, self._on_ray_started)
            atexit.register(self.close)
        except ClusterUnavailable as error:
            self._launch_failed(operation, error)

    def _launch_failed(self, operation: Operation, error: KtrdrError) -> None:
        row = self.service.get(operation.id)
        if row.status is Status.PENDING:
            row = self.service.start(row.operation_id, self._owner.id)
        reason = FailureReason.LAUNCH_FAILED
        self.service.lose(row.operation_id, row.attempt, reason, error.message)

    # Reading -------------------------------------------------------------------------------------

    def operation(self, operation_id: str) -> Operation:
        """A handle on an operation.

        Raises:
            InvalidId, OperationNotFound.
        """
        self.service.get(check_operation_id(operation_id))
        return Operation(self, operation_id)

    def operations(
        self, status: str | None = None, limit: int | None = None, offset: int = 0
    ) -> tuple[list[Record], int]:
        """Records, newest first, and how many there are in all."""
        rows, total = self.service.list(_status(status), limit, offset)
        latest = self.service.latest_checkpoints(tuple(row.operation_id for row in rows))
        return [self._record(row, latest.get(row.operation_id)) for row in rows], total

    def models(self) -> list[Record]:
        """Every completed version of every strategy's model."""
        return [records.model_record(row) for row in self.service.models()]

    def model_info(self, name: str, version: int | None = None) -> Record:
        """A version's record and its manifest, every file verified; the newest by default."""
        from ktrdr.checkpoints.models import read_model

        row = self.service.model(name, version)
        manifest, _ = read_model(Storage(Path(row.storage)), row.strategy_name, row.version)
        return records.model_record(row) | {"manifest": manifest.model_dump(mode="json")}

    def load_model(self, name: str, version: int | None = None) -> LoadedModel:
        """A stored model, ready to use."""
        from ktrdr.checkpoints.models import read_model
        from ktrdr.training.models import load_model

        row = self.service.model(name, version)
        return load_model(*read_model(Storage(Path(row.storage)), row.strategy_name, row.version))

    @property
    def bars(self) -> BarStore:
        """The stored bars; the storage folder is marked as this store's when it is not yet."""
        from ktrdr.data.store import BarStore

        return BarStore(self.storage().root)

    @property
    def service(self) -> OperationsService:
        """The guarded transitions, on this client's store."""
        return OperationsService(self._opened())

    def storage(self) -> Storage:
        """The storage root, checked to be this store's."""
        storage = Storage(self.settings.storage)
        storage.claim(self.store_id())
        return storage

    def store_id(self) -> str:
        """The id that the store was given when it was made."""
        return self._opened().store_id()

    def _opened(self) -> SqlStore:
        if self._store is None:
            self._store = open_store(self.settings.database_url)
        return self._store

    def _record(self, row: values.Operation, latest: values.Checkpoint | None) -> Record:
        alive = None if row.status.terminal else not self._ownerless(row)
        return records.record(row, latest, alive)

    def _ownerless(self, row: values.Operation) -> bool:
        return seen_dead(row.owner) or self.service.lease_expired(row)


class Operation:
    """A handle on one operation; everything it says is read from the store."""

    def __init__(self, client: Client, operation_id: str) -> None:
        self._client = client
        self.id = operation_id

    def __repr__(self) -> str:
        return f"Operation({self.id!r})"

    def record(self) -> Record:
        """The operation record, as `ktrdr operations status --json` prints it."""
        service = self._client.service
        return self._client._record(service.get(self.id), service.latest_checkpoint(self.id))

    def wait(
        self, timeout: float | None = None, on_record: Callable[[Record], None] | None = None
    ) -> Record:
        """Follow until it ends, and return its last record; leaving changes nothing.

        Raises:
            TimeoutError: it has not ended yet.
            ClusterUnavailable: nobody looks after it any more: `resume` takes it over.
        """
        started, ownerless_since = time.monotonic(), None
        while True:
            record = self.record()
            if on_record is not None:
                on_record(record)
            if Status(record["status"]).terminal:
                return record
            now = time.monotonic()
            ownerless_since = None if record["owner"]["alive"] else ownerless_since or now
            if ownerless_since and now - ownerless_since > OWNERLESS_AFTER_S:
                raise ClusterUnavailable(
                    f"{self.id} is {record['status']} but nobody looks after it:"
                    f" take it over with `ktrdr operations resume {self.id}`"
                )
            if timeout is not None and now - started >= timeout:
                raise TimeoutError(f"{self.id} is still {record['status']} after {timeout} s")
            time.sleep(POLL_S)

    def cancel(self, wait: bool = False, timeout: float | None = None) -> Record:
        """Ask for the end; with `wait`, return when it has come.

        Raises:
            OperationNotCancellable: it completed or failed first.
        """
        service, request_id = self._client.service, secrets.token_hex(16)
        row = service.get(self.id)
        dead = row.owner.id if seen_dead(row.owner) else None
        service.request_cancel(self.id, row.attempt, request_id, dead)
        return self.wait(timeout) if wait else self.record()

    def resume(self) -> Record:
        """Continue from the latest good checkpoint; returns when it is launched.

        Raises:
            OperationNotResumable, StrategyNotFound, StrategyChanged, DataChanged,
            CheckpointNotFound, CheckpointCorrupted: nothing has changed.
        """
        self.claim_resume()
        self._client.launch(self)
        return self.record()

    def claim_resume(self) -> Record:
        """The checks and the one guarded write of a resume; no Ray yet."""
        from ktrdr.runtime import resuming

        client = self._client
        resuming.claim(client.service, client.store_id(), client._owner, self.id)
        return self.record()

    def kill(self) -> None:
        """End its driver at once: the last committed checkpoint stands."""
        if self._client._ray is not None:
            self._client._ray.kill(self.id)

    def history(self) -> list[Record]:
        return [records.history_record(row) for row in self._client.service.history(self.id)]

    def events(self) -> list[Record]:
        return [records.event_record(event) for event in self._client.service.events(self.id)]

    def checkpoints(self) -> list[Record]:
        service = self._client.service
        root = service.get(self.id).plan.storage
        return [records.checkpoint_record(row, root) for row in service.checkpoints(self.id)]

    def model(self) -> LoadedModel:
        """The model that it made.

        Raises:
            ModelNotFound: it has not completed.
        """
        return self._client.load_model(*self._client.service.model_of(self.id))


def _status(text: str | None) -> Status | None:
    if text is None:
        return None
    try:
        return Status(text)
    except ValueError:
        known = ", ".join(Status)
        raise Usage(f"{text[:40]!r} is no status: choose one of {known}") from None
