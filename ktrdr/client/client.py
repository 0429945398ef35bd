"""The client: everything that can be done with operations, models and bars, from this process."""

from __future__ import annotations

import atexit
import contextlib
import secrets
import warnings
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from ktrdr.client.operation import Operation, Record
from ktrdr.cluster import local
from ktrdr.cluster.local import StandingRay
from ktrdr.errors import KtrdrError, Usage
from ktrdr.operations import records
from ktrdr.operations import types as values
from ktrdr.operations.ids import resolve
from ktrdr.operations.service import OperationsService
from ktrdr.operations.types import Status
from ktrdr.operations.validation import check_strategy_name, parse_model_name
from ktrdr.settings import Settings, read_settings
from ktrdr.storage.root import Storage
from ktrdr.store import SqlStore, open_store
from ktrdr.usecases.ownership import looked_after

Prepared = tuple[tuple[values.Request, values.Plan], ...]

if TYPE_CHECKING:
    from ktrdr.cluster.embedded import EmbeddedRay
    from ktrdr.data.store import BarStore
    from ktrdr.inference.evaluation import Evaluation
    from ktrdr.inference.model import LoadedModel


class Client:
    """Everything ktrdr can do, from this process. Ray is started only when something trains.

    Where a cluster is up, trainings run there and go on without this process. Else leaving the
    `with` block, or the end of the process, stops what runs with a last checkpoint.
    """

    def __init__(
        self,
        settings: Settings | None = None,
        *,
        on_ray_started: Callable[[], None] | None = None,
        on_notice: Callable[[str], None] = warnings.warn,
    ) -> None:
        """`on_notice` hears of what is no error and yet worth a line."""
        self.settings = settings or read_settings()
        self._on_ray_started = on_ray_started
        self._on_notice = on_notice
        self._place: EmbeddedRay | StandingRay | None = None
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
        if self._place is not None:
            atexit.unregister(self.close)
            if self._place.close(self.service):
                self._sweep(self._place.owner.id)
            self._place = None
        if self._store is not None:
            self._store.close()
            self._store = None

    # Training ------------------------------------------------------------------------------------

    def train(self, strategy: str | Path, **options: Any) -> Operation:
        """Train a strategy: `submit` and `launch` in one. Takes the options of `submit_folds`."""
        operation = self.submit(strategy, **options)
        self.launch(operation)
        return operation

    def train_folds(self, strategy: str | Path, **options: Any) -> tuple[Operation, ...]:
        """Train every fold of a strategy: `submit_folds` and `launch` in one."""
        operations = self.submit_folds(strategy, **options)
        for operation in operations:
            self.launch(operation)
        return operations

    def submit(self, strategy: str | Path, **options: Any) -> Operation:
        """The one operation of `submit_folds`.

        Raises:
            Usage: the strategy's split has several folds; nothing is written.
        """
        prepared = self._prepared(strategy, **options)
        if len(prepared) > 1:
            raise Usage(
                f"{strategy} has {len(prepared)} folds, one operation each: use train_folds or"
                " submit_folds"
            )
        return self._submit(prepared)[0]

    def submit_folds(self, strategy: str | Path, **options: Any) -> tuple[Operation, ...]:
        """Check everything and write a pending operation for each fold of the strategy's split.

        A chronological split is one fold. No Ray is started yet. Takes symbols, timeframes,
        start_date, end_date, epochs and seed instead of the strategy's own.

        Raises:
            StrategyNotFound, InvalidStrategy, DataNotFound, InvalidData, Usage: nothing is written.
        """
        return self._submit(self._prepared(strategy, **options))

    def submit_again(self, operation: Operation) -> Operation:
        """Write a pending operation with another one's strategy, options and fold.

        Raises:
            what `submit_folds` raises, also when the strategy no longer has the fold.
        """
        from ktrdr.usecases import rerun

        row, cache_bytes = self.service.get(operation.id), self.settings.cache_bytes
        return self._submit((rerun.prepare(row, self.storage(), cache_bytes),))[0]

    def _submit(self, prepared: Prepared) -> tuple[Operation, ...]:
        rows = [
            self.service.submit(request, plan, self.place.owner, secrets.token_hex(16))
            for request, plan in prepared
        ]
        return tuple(Operation(self, row.operation_id) for row in rows)

    def _prepared(  # noqa: PLR0913 - what a request may say
        self,
        strategy: str | Path,
        *,
        symbols: Sequence[str] | None = None,
        timeframes: Sequence[str] | None = None,
        start_date: str | None = None,
        end_date: str | None = None,
        epochs: int | None = None,
        seed: int | None = None,
    ) -> Prepared:
        from ktrdr.usecases import submit

        overrides = submit.Overrides(symbols, timeframes, start_date, end_date, epochs, seed)
        cache_bytes = self.settings.cache_bytes
        return submit.prepare(Path(strategy), overrides, self.storage(), cache_bytes)

    def launch(self, operation: Operation) -> None:
        """Start Ray for an operation that this client submitted or resumed, where none is up.

        When that fails the operation ends `failed (launch_failed)`, its checkpoint kept: its
        record says why.
        """
        atexit.unregister(self.close)
        atexit.register(self.close)
        self.place.launch(self.service, operation.id)

    @property
    def place(self) -> EmbeddedRay | StandingRay:
        """Where trainings run: the cluster that is up, else a Ray of this process's own.

        Raises:
            ClusterUnavailable, VersionMismatch, StoreMismatch: there is one, but not for us.
        """
        from ktrdr.cluster.embedded import EmbeddedRay

        if self._place is None:
            cluster = local.find(self.settings, self._on_notice)
            if cluster is not None:
                cluster.check(self.store_id())
            self._place = cluster or EmbeddedRay(self.settings, self._on_ray_started)
        return self._place

    def _sweep(self, owner_id: str) -> None:
        """What drivers that ended with their Ray had no time to remove."""
        from ktrdr.checkpoints.cleanup import sweep_operation

        with contextlib.suppress(KtrdrError):  # a later start or cleanup goes on with it
            for operation_id in self.service.sweepable(owner_id):
                sweep_operation(self.service, operation_id)

    # Reading -------------------------------------------------------------------------------------

    def operation(self, operation_id: str) -> Operation:
        """A handle on an operation.

        `operation_id` is an id, a unique prefix or ending of one (4 characters or more), `@last`,
        or `@2` for the second newest.

        Raises:
            InvalidId, AmbiguousId, OperationNotFound.
        """
        return Operation(self, resolve(self.service, operation_id))

    def operations(
        self,
        status: str | None = None,
        limit: int | None = None,
        offset: int = 0,
        strategy: str | None = None,
    ) -> tuple[list[Record], int]:
        """Records, newest first, and how many match in all; `strategy` is a strategy's name."""
        name = None if strategy is None else check_strategy_name(strategy)
        rows, total = self.service.list(_status(status), limit, offset, name)
        latest = self.service.latest_checkpoints(tuple(row.operation_id for row in rows))
        now = self.service.now()
        return [self.record_of(row, latest.get(row.operation_id), now) for row in rows], total

    def clean_up(self, older_than: timedelta | None = None, remove_orphans: bool = False) -> Record:
        """Remove what endings and crashes left on storage, and list the folders nobody knows.

        `older_than` dooms all checkpoints of what failed or was cancelled longer ago.

        Raises:
            StorageUnavailable, StoreMismatch: nothing has changed.
        """
        from ktrdr.checkpoints import cleanup, orphans

        service, storage = self.service, Storage(self.settings.storage)
        fresh = not storage.root.exists() and not self.operations(limit=1)[1]
        found = () if fresh else orphans.find_orphans(service, storage)
        done = cleanup.clean_up(service, older_than)
        removed = orphans.remove_orphans(storage, found) if remove_orphans else ()
        return {
            "expired": list(done.expired),
            "removed": done.removed,
            "left": [{"operation_id": name, "message": why} for name, why in done.left],
            "orphans": [
                {"path": str(storage.root / o.path), "what": o.what, "removed": o in removed}
                for o in found
            ],
            "total": len(found),
        }

    def models(self) -> list[Record]:
        """Every completed version of every strategy's model."""
        return [records.model_record(row) for row in self.service.models()]

    def model_info(self, name: str, version: int | None = None) -> Record:
        """A version's record and its manifest, every file verified; the newest by default."""
        from ktrdr.checkpoints.model_store import read_model

        row = self.service.model(name, version)
        manifest, _ = read_model(Storage(Path(row.storage)), row.strategy_name, row.version)
        return records.model_record(row) | {"manifest": manifest.model_dump(mode="json")}

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

    def evaluate(
        self,
        model: str,
        symbol: str | None = None,
        start_date: str | None = None,
        end_date: str | None = None,
    ) -> Evaluation:
        """Judge a model (NAME or NAME@vN) on stored bars, by default on its own test rows.

        Raises:
            what `load_model` raises, and DataNotFound, InvalidData, Usage.
        """
        from ktrdr.data.bars import parse_date_range
        from ktrdr.inference import evaluation

        within = parse_date_range(start_date, end_date)
        return evaluation.evaluate(self.load_model(model), self.bars, symbol, within)

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

    def record_of(
        self, row: values.Operation, latest: values.Checkpoint | None, now: datetime
    ) -> Record:
        """An operation's record, as `ktrdr operations status --json` prints it."""
        alive = None if row.status.terminal else looked_after(row, now)
        return records.record(row, latest, alive)


def load_model(model: str) -> LoadedModel:
    """A stored model, ready to use: NAME, the newest version, or NAME@vN.

    It is looked for where the environment's settings say (KTRDR_HOME and so on).
    """
    with Client() as client:
        return client.load_model(model)


def _status(text: str | None) -> Status | None:
    if text is None:
        return None
    try:
        return Status(text)
    except ValueError:
        known = ", ".join(Status)
        raise Usage(f"{text[:40]!r} is no status: choose one of {known}") from None
