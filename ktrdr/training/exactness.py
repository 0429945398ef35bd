"""Whether a resume is bitwise exact, judged by the environment in which it trains."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ktrdr.checkpoints.manifest import Manifest
from ktrdr.operations.types import (
    Checkpoint,
    Plan,
    ResumedFrom,
)
from ktrdr.strategy.differences import differences
from ktrdr.training.environment import differences as of_environment


def resumed_from(
    chosen: Checkpoint, manifest: Manifest, plan: Plan, environment: Mapping[str, Any]
) -> ResumedFrom:
    """Return what an attempt of this plan, in this environment, makes of a checkpoint."""
    differing = [
        *_of_strategy(plan, manifest.strategy_fingerprint),
        *of_environment(manifest.environment, environment),
    ]
    return ResumedFrom(
        checkpoint_type=chosen.checkpoint_type,
        created_at=chosen.created_at,
        epoch=chosen.epoch,
        batch=chosen.batch,
        exact=not differing,
        differences=tuple(differing),
    )


def _of_strategy(plan: Plan, fingerprint: str) -> list[str]:
    """What was changed since the checkpoint with `--allow-changes`."""
    if fingerprint == plan.strategy_fingerprint:
        return []
    former = plan.former_configs.get(fingerprint)
    if former is None:
        return ["strategy: of another fingerprint"]
    return [f"strategy: {difference}" for difference in differences(former, plan.config)]
