"""One attempt from its row to its end: checkpoint and data, training, model, and the end's row.

What takes seconds to import is imported by the preparation: a stop is heard meanwhile.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from ktrdr.driver.delivery import OVER, Call, Delivery
from ktrdr.driver.heartbeat import HeartbeatSource
from ktrdr.driver.interruption import Interrupted, interruptible
from ktrdr.driver.names import AttemptKey
from ktrdr.errors import describe
from ktrdr.operations.types import Checkpoint, Operation, Phase, StopKind
from ktrdr.training.context import LiveProgress

if TYPE_CHECKING:
    from ktrdr.driver.preparation import Preparation

log = logging.getLogger(__name__)

_IMPORTING = threading.Lock()

StopKindOf = Callable[[], StopKind | None]
"""Who has requested a stop."""


def run_attempt(
    key: AttemptKey, call: Call, stop_kind: StopKindOf, heartbeats: HeartbeatSource
) -> None:
    """Train, and end the attempt in the store, whatever happens; nothing more once it is over."""
    progress = LiveProgress()
    delivery = Delivery(call, lambda: progress.sample() if progress.epochs else None)
    heartbeats.follow(progress, delivery)
    try:
        _run(delivery, progress, stop_kind)
    except OVER as error:
        log.info("%s attempt %d is over: %s", *key, error)
    except Exception as error:
        log.exception("%s attempt %d failed", *key)
        _fail(delivery, error)
    finally:
        delivery.close()


def _run(delivery: Delivery, progress: LiveProgress, stop_kind: StopKindOf) -> None:
    """Go from the row, which says whether the attempt is still current, to a model or a stop."""
    operation, checkpoints = delivery.ask("read_attempt")

    def stop_requested() -> StopKind | None:
        delivery.check()
        return stop_kind()

    try:
        prepared = interruptible(lambda: _prepare(operation, checkpoints, delivery), stop_requested)
    except Interrupted as stop:
        return delivery.finish("finish_stopped", stop.kind)
    from ktrdr.driver.finish import store_model
    from ktrdr.driver.ray_train import RayContext, train
    from ktrdr.training.trainer import Stopped

    context = RayContext(operation, delivery, progress, stop_requested)
    outcome = train(prepared, context)
    if isinstance(outcome, Stopped):
        return delivery.finish("finish_stopped", outcome.kind)
    delivery.enter(Phase.SAVING)
    model = delivery.ask("reserve_model")
    result = store_model(context.storage, model, prepared, outcome, datetime.now(UTC))
    return delivery.finish("finish_completed", result, (model.strategy_name, model.version))


def _prepare(
    operation: Operation, checkpoints: Sequence[Checkpoint], delivery: Delivery
) -> Preparation:
    import_ahead()
    from ktrdr.driver.preparation import prepare

    return prepare(operation, checkpoints, delivery)


def import_ahead() -> None:
    """Import what a training needs and takes seconds.

    One thread at a time: two that import the same circle at once can see half of a module.
    """
    with _IMPORTING:
        import torch._dynamo  # noqa: F401 - a second, which every optimizer's first step takes

        from ktrdr.driver import finish, preparation, ray_train  # noqa: F401


def _fail(delivery: Delivery, error: Exception) -> None:
    from ktrdr.driver.finish import reason_of

    try:
        delivery.fail(reason_of(error), describe(error))
    except OVER as over:
        log.info("the attempt is over: %s", over)
