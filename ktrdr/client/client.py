"""The client: everything that can be done with operations, models and bars, from this process."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ktrdr.client.operation import Operation
from ktrdr.client.session import Record, Session
from ktrdr.cluster import local, remote
from ktrdr.errors import ClusterUnavailable, Usage
from ktrdr.operations import records
from ktrdr.operations import types as values
from ktrdr.operations.ids import resolve
from ktrdr.operations.types import Status
from ktrdr.operations.validation import check_strategy_name
from ktrdr.storage.root import Storage
from ktrdr.usecases.ownership import retried_when_closing

if TYPE_CHECKING:
    from ktrdr.data.store import BarStore
    from ktrdr.inference.evaluation import Evaluation
    from ktrdr.inference.model import LoadedModel
    from ktrdr.usecases.submit import Choice


class Client(Session):
    """Everything ktrdr can do, from this process, which never joins a Ray.

    Trainings run on the cluster of RAY_ADDRESS, else on the local cluster of the home, which is
    started when it is needed. They go on when this process ends.
    """

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
        return self._submitted(chosen)[0]

    def train_folds(self, strategy: str | Path, **options: Any) -> tuple[Operation, ...]:
        """Check everything and submit an operation for each fold of the strategy's split.

        A chronological split is one fold. The operations start as soon as the cluster has room.
        Takes symbols, timeframes, start_date, end_date, epochs and seed instead of the strategy's
        own.

        Raises:
            StrategyNotFound, InvalidStrategy, DataNotFound, InvalidData, Usage: nothing is written.
            ClusterUnavailable, StoreMismatch, VersionMismatch: no cluster takes them.
        """
        return self._submitted(self._chosen(strategy, options))

    def _chosen(self, strategy: str | Path, options: dict[str, Any]) -> Choice:
        from ktrdr.usecases.submit import TrainingOptions, choose

        return choose(Path(strategy), TrainingOptions(**options), self.storage())

    def _submitted(self, chosen: Choice) -> tuple[Operation, ...]:
        return tuple(Operation(self, operation_id) for operation_id in self.submit(chosen))

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
