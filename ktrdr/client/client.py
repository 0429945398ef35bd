"""The client: everything that can be done with operations, models and bars, from this process."""

from __future__ import annotations

import secrets
import sys
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from ktrdr.client.operation import Operation, Record
from ktrdr.cluster import local, remote
from ktrdr.errors import ClusterUnavailable, Usage
from ktrdr.operations import records
from ktrdr.operations import types as values
from ktrdr.operations.ids import resolve
from ktrdr.operations.service import OperationsService
from ktrdr.operations.types import Status
from ktrdr.operations.validation import check_strategy_name, parse_model_name
from ktrdr.settings import Settings, read_settings
from ktrdr.storage.root import Storage
from ktrdr.store import SqlStore, open_store
from ktrdr.usecases.ownership import looked_after, retried_when_closing

if TYPE_CHECKING:
    from ktrdr.data.store import BarStore
    from ktrdr.inference.evaluation import Evaluation
    from ktrdr.inference.model import LoadedModel
    from ktrdr.usecases.submit import Choice


def to_stderr(message: str) -> None:
    """Say a line to whoever runs this process."""
    sys.stderr.write(message + "\n")


class Client:
    """Everything ktrdr can do, from this process, which never joins a Ray.

    Trainings run on the cluster of RAY_ADDRESS, else on the local cluster of the home, which is
    started when it is needed. They go on when this process ends.
    """

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

    # Training ------------------------------------------------------------------------------------

    def train(self, strategy: str | Path, **options: Any) -> Operation:
        """Train the one model of a strategy: `train_folds` where the split has no folds.

        Raises:
            Usage: the strategy's split has several folds; nothing is written.
        """
        chosen = self._chosen(strategy, options)
        if len(chosen.folds) > 1:
            raise Usage(
                f"{strategy} has {len(chosen.folds)} folds, one operation each: use train_folds"
            )
        return self._submit(chosen)[0]

    def train_folds(self, strategy: str | Path, **options: Any) -> tuple[Operation, ...]:
        """Check everything and submit an operation for each fold of the strategy's split.

        A chronological split is one fold. The operations start as soon as the cluster has room.
        Takes symbols, timeframes, start_date, end_date, epochs and seed instead of the strategy's
        own.

        Raises:
            StrategyNotFound, InvalidStrategy, DataNotFound, InvalidData, Usage: nothing is written.
            ClusterUnavailable, StoreMismatch, VersionMismatch: no cluster takes them.
        """
        return self._submit(self._chosen(strategy, options))

    def rerun(self, operation: Operation) -> Operation:
        """Submit a new operation with another one's strategy, options and fold.

        Raises:
            what `train_folds` raises, also when the strategy no longer has the fold.
        """
        from ktrdr.usecases import rerun

        row = self.service.get(operation.id)
        return self._submit(rerun.choose(row, self.storage()))[0]

    def _chosen(self, strategy: str | Path, options: dict[str, Any]) -> Choice:
        from ktrdr.usecases.submit import TrainingOptions, choose

        return choose(Path(strategy), TrainingOptions(**options), self.storage())

    def _submit(self, chosen: Choice) -> tuple[Operation, ...]:
        """Prepare what was chosen while a cluster starts, and write its rows."""
        self.owner()
        prepared = chosen.prepare(self.settings.cache_bytes)
        return tuple(self._submit_one(request, plan) for request, plan in prepared)

    def _submit_one(self, request: values.Request, plan: values.Plan) -> Operation:
        request_id = secrets.token_hex(16)
        row = retried_when_closing(
            lambda: self.service.submit(request, plan, self.owner(), request_id)
        )
        return Operation(self, row.operation_id)

    def owner(self) -> values.Owner:
        """The cluster that operations are given to; it is started when there is none."""
        address = self.settings.ray_address
        if address is not None:
            return remote.ensure(address, self.settings, self.service)
        return local.ensure(self.settings, self.service, self._on_notice)

    def keep_cluster(self) -> values.OwnerRow:
        """Let the cluster stay when it is idle, started when there is none; return when it is up.

        Raises:
            ClusterUnavailable, StoreMismatch, VersionMismatch: there is none for us.
        """
        row = retried_when_closing(lambda: self.service.keep_owner(self.owner().id))
        return local.wait_until_up(self.service, row.owner)

    def nodes(self) -> list[Record]:
        """The machines of the cluster, as its operations actor last saw them.

        Raises:
            ClusterUnavailable: none is up.
        """
        address = self.settings.ray_address
        if address is not None:
            row = remote.find(address, self.service)
        else:
            cluster = local.find(self.settings)
            row = None if cluster is None else self.service.owner(cluster.owner_id)
        if row is None or row.address is None:
            raise ClusterUnavailable("no cluster is up: start one with `ktrdr up`")
        return [dict(node) for node in row.nodes]

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
