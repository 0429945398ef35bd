"""Resume: check status, checkpoint, strategy and data, in this order, then one guarded write.

When a check fails nothing has changed, and the row is read once more: when another client resumed
first, that is the error.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from ktrdr.checkpoints.manifest import Manifest
from ktrdr.checkpoints.verify import latest_good
from ktrdr.errors import CheckpointNotFound, KtrdrError, StrategyChanged, StrategyNotFound
from ktrdr.operations.service import OperationsService
from ktrdr.operations.transitions import check_resumable
from ktrdr.operations.types import (
    Checkpoint,
    Operation,
    Owner,
    Plan,
    Request,
    Resumption,
)
from ktrdr.storage.root import Storage
from ktrdr.strategy import loading
from ktrdr.strategy.differences import Difference, Progressed, differences, refusal
from ktrdr.strategy.schema import Strategy
from ktrdr.training.environment import package_versions
from ktrdr.training.exactness import resumed_from
from ktrdr.training.plan import check_planned_data
from ktrdr.usecases.ownership import seen_dead

_TRIES = 5  # a chosen checkpoint can be doomed meanwhile only by an attempt that still commits


@dataclass(frozen=True)
class ResumeOptions:
    """What the user said beside the operation's id."""

    strategy: Path | None = None
    """The file to read instead of the one that the operation was started with."""
    allow_changes: bool = False


def claim(
    service: OperationsService,
    store_id: str,
    owner: Callable[[], Owner],
    operation_id: str,
    options: ResumeOptions,
) -> Operation:
    """Take a stopped operation into its next attempt.

    `owner` is asked who is to have it once every check has passed.

    Raises:
        OperationNotFound, OperationNotResumable, CheckpointNotFound, CheckpointCorrupted,
        StrategyNotFound, InvalidStrategy, StrategyChanged, DataNotFound, DataChanged,
        StoreMismatch, StorageUnavailable: nothing has changed.
    """
    for _ in range(_TRIES - 1):
        try:
            return _claim_once(service, store_id, owner, operation_id, options)
        except _ChosenIsGone:
            continue
    return _claim_once(service, store_id, owner, operation_id, options)


class _ChosenIsGone(CheckpointNotFound):
    """Retention took the chosen checkpoint between the check and the write."""


def _claim_once(
    service: OperationsService,
    store_id: str,
    owner: Callable[[], Owner],
    operation_id: str,
    options: ResumeOptions,
) -> Operation:
    row = service.get(operation_id)
    dead = row.owner.id if seen_dead(row.owner) else None
    service.check_resumable(row, dead)
    try:
        checked = _checked(service, store_id, row, options)
    except KtrdrError:
        now = service.get(operation_id)
        service.check_resumable(now, dead)
        if now.attempt != row.attempt:
            check_resumable(now, row.attempt)
        raise
    try:
        return service.try_resume(operation_id, row.attempt, checked(owner()), dead)
    except CheckpointNotFound as error:
        raise _ChosenIsGone(error.message) from None


def _checked(
    service: OperationsService, store_id: str, row: Operation, options: ResumeOptions
) -> Callable[[Owner], Resumption]:
    """Make every check; what is to be written lacks only the owner."""
    storage = Storage(Path(row.plan.storage))
    storage.check(store_id)
    rows = service.checkpoints(row.operation_id)
    if not rows:
        raise CheckpointNotFound(
            f"{row.operation_id} has no checkpoint to resume from: train it again with the same"
            f" settings with `ktrdr operations rerun {row.operation_id}`"
        )
    chosen, manifest, passed_over = latest_good(storage, rows)
    strategy, request, plan = _strategy(row, chosen, options)
    check_planned_data(request, plan, strategy)
    # What the driver will find; it compares its own environment when it starts.
    expected = {**manifest.environment, **package_versions()}
    source = resumed_from(chosen, manifest, plan, expected)
    return partial(
        Resumption,
        chosen.id,
        request_id=secrets.token_hex(16),
        resumed_from=source,
        plan=plan,
        passed_over=tuple((bad.id, why) for bad, why in passed_over),
        request=request,
        restored=_restored(chosen, manifest, plan),
    )


def _strategy(
    row: Operation, chosen: Checkpoint, options: ResumeOptions
) -> tuple[Strategy, Request, Plan]:
    """The strategy as it is now, and the request and plan of an attempt that follows it."""
    path, given, own = _read(row, options)
    before = loading.validate_strategy(row.plan.config, str(path))
    overrides = _overrides(row.plan, own, options)
    strategy = loading.with_overrides(own, overrides)
    request = replace(row.request, strategy_path=str(path))
    plan = replace(row.plan, strategy_given=given)
    if strategy.name != before.name:
        raise StrategyChanged(
            f"{path} is the strategy {strategy.name}, not {before.name}, which {row.operation_id}"
            " runs and which names its model: give the file of that one",
            changed=["name"],
        )
    changed = differences(loading.config(before), loading.config(strategy))
    if not changed:
        return before, request, plan
    begun = chosen.epoch + (chosen.batch > 0)
    progressed = Progressed(before.training, strategy.training, begun)
    refused = {d.key: why for d in changed if (why := refusal(d, progressed)) is not None}
    if refused or not options.allow_changes:
        raise _changed(path, row, changed, refused, options)
    request = replace(request, epochs=strategy.training.epochs)
    return strategy, request, _changed_plan(plan, strategy, overrides)


def _read(row: Operation, options: ResumeOptions) -> tuple[Path, str, Strategy]:
    """The strategy's file, how the user wrote its path, and what is in it."""
    if options.strategy is not None:
        own = loading.load_strategy(options.strategy)
        return options.strategy.absolute(), str(options.strategy), own
    given = row.plan.strategy_given
    paths = dict.fromkeys(Path(path) for path in (row.request.strategy_path, given) if path)
    for path in paths:
        try:
            own = loading.load_strategy(path)
        except StrategyNotFound:
            continue
        return path.absolute(), given, own
    raise StrategyNotFound(
        f"the strategy of {row.operation_id} is not at {' nor at '.join(map(str, paths))}:"
        " put it back, or say where it is with --strategy",
        path=row.request.strategy_path,
    )


def _overrides(plan: Plan, own: Strategy, options: ResumeOptions) -> dict[str, Any]:
    """The options of `train`; one gives way where the file was edited and edits are asked for."""
    overrides = dict(plan.overrides)
    was = plan.overridden.get("epochs")
    if options.allow_changes and was is not None and own.training.epochs != was:
        del overrides["epochs"]
    return overrides


def _changed_plan(plan: Plan, strategy: Strategy, overrides: dict[str, Any]) -> Plan:
    return replace(
        plan,
        config=loading.config(strategy),
        overrides=overrides,
        overridden=plan.overridden if "epochs" in overrides else {},
        strategy_fingerprint=loading.fingerprint(strategy),
        former_configs=plan.former_configs | {plan.strategy_fingerprint: plan.config},
    )


def _changed(
    path: Path,
    row: Operation,
    changed: list[Difference],
    refused: dict[str, str],
    options: ResumeOptions,
) -> StrategyChanged:
    acceptable = [difference.key for difference in changed if difference.key not in refused]
    reasons = "; ".join(f"{key}: {why}" for key, why in refused.items())
    if not refused:
        advice = "change it back, or accept that with --allow-changes"
    elif options.allow_changes or not acceptable:
        advice = f"not acceptable ({reasons}): change it back to resume, or train anew"
    else:
        advice = (
            f"--allow-changes accepts {', '.join(acceptable)} but not the rest ({reasons}):"
            " change that back to resume, or train anew"
        )
    listed = ", ".join(map(str, changed))
    return StrategyChanged(
        f"{path} is not the strategy that {row.operation_id} runs: {listed}; {advice}",
        changed=[difference.key for difference in changed],
        acceptable=acceptable,
        refused=refused,
    )


_PARTS = {
    "model.pt": "weights",
    "optimizer.pt": "optimizer state",
    "scheduler.pt": "learning rate schedule",
    "best_model.pt": "best weights",
    "loop.pt": "random states",
}


def _restored(chosen: Checkpoint, manifest: Manifest, plan: Plan) -> dict[str, Any]:
    """What the attempt takes over; after an accepted change some of it is computed anew."""
    anew = manifest.strategy_fingerprint != plan.strategy_fingerprint
    parts = [
        part
        for name, part in _PARTS.items()
        if name in manifest.files and not (anew and name == "scheduler.pt")
    ]
    return {
        "parts": parts,
        "computed_anew": ["learning rate", "early stopping counters"] if anew else [],
        "history_rows": chosen.epoch,
        "epoch": chosen.epoch,
        "batch": chosen.batch,
    }
