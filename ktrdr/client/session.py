"""What commands and handles share: the settings, the store, the storage, and the cluster."""

from __future__ import annotations

import secrets
import sys
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from ktrdr.cluster import local, remote
from ktrdr.operations import records
from ktrdr.operations.service import OperationsService
from ktrdr.operations.types import Checkpoint, Operation, Owner, Plan, Request
from ktrdr.operations.validation import parse_model_name
from ktrdr.settings import Settings, read_settings
from ktrdr.storage.root import Storage
from ktrdr.store import SqlStore, open_store
from ktrdr.usecases.ownership import looked_after, retried_when_closing

if TYPE_CHECKING:
    from ktrdr.inference.model import LoadedModel
    from ktrdr.usecases.submit import Choice

Record = dict[str, Any]


def to_stderr(message: str) -> None:
    """Say a line to whoever runs this process."""
    sys.stderr.write(message + "\n")


class Session:
    """A store that is opened when it is first needed, and a cluster that is started then."""

    def __init__(
        self,
        settings: Settings | None = None,
        *,
        on_notice: Callable[[str], None] = to_stderr,
    ) -> None:
        """`on_notice` hears of what is no error and yet worth a line."""
        self.settings = settings or read_settings()
        self._on_notice = on_notice
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
        """Close the store; what runs goes on."""
        if self._store is not None:
            self._store.close()
            self._store = None

    def owner(self) -> Owner:
        """The cluster that operations are given to; it is started when there is none."""
        address = self.settings.ray_address
        if address is not None:
            return remote.ensure(address, self.settings, self.service)
        return local.ensure(self.settings, self.service, self._on_notice)

    def submit(self, chosen: Choice) -> tuple[str, ...]:
        """Prepare what was chosen while a cluster starts, and write its rows; return their ids."""
        self.owner()
        prepared = chosen.prepare(self.settings.cache_bytes)
        return tuple(self._submit(request, plan) for request, plan in prepared)

    def _submit(self, request: Request, plan: Plan) -> str:
        request_id = secrets.token_hex(16)
        row = retried_when_closing(
            lambda: self.service.submit(request, plan, self.owner(), request_id)
        )
        return row.operation_id

    def load_model(self, name: str, version: int | None = None) -> LoadedModel:
        """A stored model, ready to use: NAME or NAME@vN; the newest version by default.

        Raises:
            InvalidId, ModelNotFound, CheckpointCorrupted, StorageUnavailable.
        """
        from ktrdr.checkpoints.model_store import read_model
        from ktrdr.inference.model import load_model

        if version is None:
            name, version = parse_model_name(name)
        row = self.service.model(name, version)
        return load_model(*read_model(Storage(Path(row.storage)), row.strategy_name, row.version))

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

    def record_of(self, row: Operation, latest: Checkpoint | None, now: datetime) -> Record:
        """An operation's record, as `ktrdr operations status --json` prints it."""
        alive = None if row.status.terminal else looked_after(row, now)
        return records.record(row, latest, alive)
