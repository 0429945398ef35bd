"""A user's resume up to its one guarded write: status, checkpoint, strategy, data, in this order.

Whatever is wrong, nothing has changed. When a check fails, the row is read once more: a late
loser learns that somebody else resumed first, not of a puzzle that this made.
"""

from __future__ import annotations

import secrets
from pathlib import Path

from ktrdr.checkpoints.manifest import Manifest
from ktrdr.checkpoints.storage import Storage
from ktrdr.checkpoints.verify import latest_good
from ktrdr.data.bars import fingerprint
from ktrdr.data.store import BarStore
from ktrdr.errors import (
    CheckpointNotFound,
    DataChanged,
    DataNotFound,
    KtrdrError,
    StrategyChanged,
    StrategyNotFound,
)
from ktrdr.operations.model import (
    Checkpoint,
    Operation,
    Owner,
    ResumedFrom,
    Resumption,
)
from ktrdr.operations.service import OperationsService
from ktrdr.runtime.processes import seen_dead
from ktrdr.strategy import loading
from ktrdr.strategy.differences import changed_keys

_TRIES = 5  # a chosen checkpoint can be doomed meanwhile only by an attempt that still commits


def claim(service: OperationsService, store_id: str, owner: Owner, operation_id: str) -> Operation:
    """Take a stopped operation into its next attempt, owned by `owner`.

    Raises:
        OperationNotFound, OperationNotResumable, CheckpointNotFound, CheckpointCorrupted,
        StrategyNotFound, InvalidStrategy, StrategyChanged, DataNotFound, DataChanged,
        StoreMismatch, StorageUnavailable: nothing has changed.
    """
    for _ in range(_TRIES - 1):
        try:
            return _claim_once(service, store_id, owner, operation_id)
        except _ChosenIsGone:
            continue
    return _claim_once(service, store_id, owner, operation_id)


class _ChosenIsGone(CheckpointNotFound):
    """Retention took the chosen checkpoint between the check and the write."""


def _claim_once(
    service: OperationsService, store_id: str, owner: Owner, operation_id: str
) -> Operation:
    row = service.get(operation_id)
    dead = row.owner.id if seen_dead(row.owner) else None
    service.check_resumable(row, dead)
    try:
        resumption = _checked(service, store_id, owner, row)
    except KtrdrError:
        service.check_resumable(service.get(operation_id), dead)
        raise
    try:
        return service.try_resume(operation_id, row.attempt, resumption, dead)
    except CheckpointNotFound as error:
        raise _ChosenIsGone(error.message) from None


def _checked(service: OperationsService, store_id: str, owner: Owner, row: Operation) -> Resumption:
    storage = Storage(Path(row.plan.storage))
    storage.check(store_id)
    chosen, manifest, passed_over = latest_good(storage, service.checkpoints(row.operation_id))
    _check_strategy(row)
    _check_data(row, storage)
    return Resumption(
        checkpoint_id=chosen.id,
        owner=owner,
        request_id=secrets.token_hex(16),
        resumed_from=_resumed_from(chosen, manifest),
        plan=row.plan,
        passed_over=tuple((bad.id, why) for bad, why in passed_over),
    )


def _check_strategy(row: Operation) -> None:
    path = _strategy_path(row)
    strategy = loading.with_overrides(loading.load_strategy(path), row.plan.overrides)
    if loading.fingerprint(strategy) != row.plan.strategy_fingerprint:
        changed = changed_keys(row.plan.config, loading.config(strategy))
        raise StrategyChanged(
            f"{path} was changed since {row.operation_id} began: {', '.join(changed)}:"
            " change it back to resume, or train anew",
            changed=changed,
        )


def _strategy_path(row: Operation) -> Path:
    """Where it was, else the same path below the working directory."""
    places = (Path(row.request.strategy_path), Path.cwd() / row.plan.strategy_given)
    for path in places:
        if path.is_file():
            return path
    raise StrategyNotFound(
        f"{places[0]} is gone: put the strategy of {row.operation_id} back there",
        path=str(places[0]),
    )


def _check_data(row: Operation, storage: Storage) -> None:
    symbol, timeframe = row.request.symbols[0], row.request.timeframes[0]
    bars = BarStore(storage.root).read(symbol, timeframe)
    bars = bars.between(row.plan.span["first"], row.plan.span["last"])
    if not len(bars):
        raise DataNotFound(f"the bars of {symbol} {timeframe} that it trains on are gone")
    if fingerprint(bars) != row.plan.data_fingerprint:
        raise DataChanged(
            f"the bars of {symbol} {timeframe} were revised since {row.operation_id} began:"
            " import the old ones again to resume, or train anew",
            symbol=symbol,
            timeframe=timeframe,
        )


def _resumed_from(chosen: Checkpoint, manifest: Manifest) -> ResumedFrom:
    from ktrdr.training.environment import differences, environment

    env = manifest.environment
    here = environment(str(env["device"]), int(str(env["workers"])), int(str(env["threads"])))
    differing = differences(env, here)
    return ResumedFrom(
        checkpoint_type=chosen.checkpoint_type,
        created_at=chosen.created_at,
        epoch=chosen.epoch,
        batch=chosen.batch,
        exact=not differing,
        differences=tuple(differing),
    )
