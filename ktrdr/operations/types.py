"""The values of an operation's life, shared by the service, the store, the driver and the commands.

All are frozen and hold only what JSON can hold (and aware UTC datetimes), so that they travel
through the store and between processes unchanged.
"""

from __future__ import annotations

import re
import secrets
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from ktrdr.errors import InvalidId

OPERATION_ID = re.compile(r"op_training_[0-9]{8}_[0-9]{6}_[0-9a-f]{8}")
_ECHOED_CHARACTERS = 60


class Status(StrEnum):
    PENDING = "pending"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def terminal(self) -> bool:
        return self in (Status.COMPLETED, Status.FAILED, Status.CANCELLED)


class Phase(StrEnum):
    """Where a running attempt stands."""

    STARTING = "starting"
    WAITING_FOR_RESOURCES = "waiting_for_resources"
    PREPARING_DATA = "preparing_data"
    TRAINING = "training"
    SAVING = "saving"
    STOPPING = "stopping"
    RESTARTING = "restarting"


class CheckpointType(StrEnum):
    INITIAL = "initial"
    PERIODIC = "periodic"
    CANCELLATION = "cancellation"
    FAILURE = "failure"
    SHUTDOWN = "shutdown"
    DRAIN = "drain"


class FailureReason(StrEnum):
    """Why an attempt ended without being asked to; transitions.py decides what follows."""

    WORKER_LOST = "worker_lost"
    DRIVER_LOST = "driver_lost"
    HUNG = "hung"
    NODE_PREEMPTED = "node_preempted"
    OUT_OF_MEMORY = "out_of_memory"
    USER_ERROR = "user_error"
    NON_FINITE_LOSS = "non_finite_loss"
    DATA_ERROR = "data_error"
    CHECKPOINT_UNUSABLE = "checkpoint_unusable"
    LAUNCH_FAILED = "launch_failed"
    OWNER_LOST = "owner_lost"

    @property
    def retryable(self) -> bool:
        """Whether the same code and data may well succeed when started again."""
        return self in _RETRYABLE


_RETRYABLE = frozenset(
    {
        FailureReason.WORKER_LOST,
        FailureReason.DRIVER_LOST,
        FailureReason.HUNG,
        FailureReason.NODE_PREEMPTED,
        FailureReason.OUT_OF_MEMORY,
    }
)


class StopKind(StrEnum):
    """Who made an attempt stop at a batch boundary."""

    USER = "user"
    SHUTDOWN = "shutdown"
    DRAIN = "drain"


class OwnerKind(StrEnum):
    LOCAL = "local"
    """The local cluster of a home."""
    CLUSTER = "cluster"
    """A Ray of many nodes."""
    EMBEDDED = "embedded"
    """A command's own process; only in rows that earlier versions wrote."""


@dataclass(frozen=True)
class Owner:
    """Who looks after an operation; the id of a cluster survives restarts of its actor."""

    id: str
    kind: OwnerKind
    host: str | None = None
    pid: int | None = None
    process_started_at: float | None = None
    """Seconds since the epoch as psutil's `create_time` gives them: a pid alone is reused."""


@dataclass(frozen=True)
class OwnerRow:
    """An owner as the store knows it; `owner.id` is its key."""

    owner: Owner
    version: str
    """Of the package and its sources: clients of another one are refused."""
    created_at: datetime
    lease_expires_at: datetime
    address: str | None = None
    """Of its Ray, once that has started."""
    dashboard: str | None = None
    persistent: bool = False
    """It stays when it is idle, until it is told to end."""
    shutdown_requested_at: datetime | None = None
    """It is to stop everything with a last checkpoint, and end."""
    closing_at: datetime | None = None
    """It ends and takes no operation any more."""
    nodes: tuple[dict[str, Any], ...] = ()
    """Its machines, as last seen by its actor."""

    @property
    def accepting(self) -> bool:
        """Whether an operation may be given to it."""
        return self.closing_at is None and self.shutdown_requested_at is None


@dataclass(frozen=True)
class TrainingWarning:
    """A trouble that training survives; `count` says how often since it was last told."""

    code: str
    message: str
    count: int = 1


@dataclass(frozen=True)
class Request:
    """What the user asked for, resolved: the same for every attempt."""

    strategy_path: str
    strategy_name: str
    symbols: tuple[str, ...]
    timeframes: tuple[str, ...]
    start_date: str | None
    end_date: str | None
    epochs: int
    seed: int
    workers: int
    fold: int | None = None
    """Which fold of the strategy's split it trains, from 1; None where it has no folds."""


@dataclass(frozen=True)
class Plan:
    """What an attempt runs from: automatic restarts never read the strategy file again."""

    config: dict[str, Any]
    """The effective strategy config."""
    overrides: dict[str, Any]
    """Options that were laid over the strategy file: a resume lays them over it again."""
    strategy_fingerprint: str
    data_fingerprint: str
    dataset_digest: str
    """Of the features and labels made from the two."""
    spans: list[dict[str, Any]]
    """Of each stored series that is used {"symbol", "timeframe", "first", "last", "rows"}: open
    times of the first and last bar, in microseconds since 1970, and how many bars that is."""
    storage: str
    """The storage root, absolute; an operation keeps the root it was made in."""
    max_restarts: int = 3
    strategy_given: str = ""
    """The strategy's path as the user wrote it: looked for again when the absolute one is gone."""
    overridden: dict[str, Any] = field(default_factory=dict)
    """What the file itself says where `overrides` has `epochs`: by it an edit is told."""
    former_configs: dict[str, dict[str, Any]] = field(default_factory=dict)
    """By fingerprint, the configs that checkpoints were made under before accepted changes."""


@dataclass(frozen=True)
class Progress:
    """Whole epochs done, and batches done of the next one."""

    epoch: int
    epochs: int
    batch: int
    batches: int | None
    percent: float
    metrics: dict[str, Any] | None


@dataclass(frozen=True)
class Failure:
    code: str
    reason: FailureReason | None
    message: str


@dataclass(frozen=True)
class Result:
    model_path: str
    weights_digest: str
    epochs: int
    best_epoch: int
    metrics: dict[str, Any]
    stopped_early: bool = False
    """Early stopping ended it before all epochs were run."""


@dataclass(frozen=True)
class ResumedFrom:
    checkpoint_type: CheckpointType
    created_at: datetime
    epoch: int
    batch: int
    exact: bool
    differences: tuple[str, ...] = ()


@dataclass(frozen=True)
class NewCheckpoint:
    """A durable checkpoint directory that has no row yet."""

    number: int
    path: str
    """Relative to the storage root."""
    epoch: int
    batch: int
    checkpoint_type: CheckpointType
    created_at: datetime
    size_bytes: int
    weights_digest: str
    is_best: bool = False
    """It holds the best epoch so far: the newest such one outlives retention."""


@dataclass(frozen=True)
class Checkpoint:
    """A committed checkpoint; the latest of an operation has the highest (attempt, number)."""

    id: int
    operation_id: str
    attempt: int
    number: int
    path: str
    epoch: int
    batch: int
    checkpoint_type: CheckpointType
    created_at: datetime
    size_bytes: int
    weights_digest: str
    is_best: bool = False
    doomed_at: datetime | None = None
    """Set when its directory may be removed; it never comes back."""
    unusable: str | None = None
    """Why a resume passed it over."""

    @property
    def key(self) -> tuple[int, int]:
        return self.attempt, self.number

    @property
    def good(self) -> bool:
        return self.doomed_at is None and self.unusable is None


@dataclass(frozen=True)
class HistoryRow:
    """The metrics of one finished epoch, 1-based."""

    epoch: int
    metrics: dict[str, Any]


@dataclass(frozen=True)
class Adoption:
    """Uncommitted checkpoints of an attempt that is over, and the history that they hold."""

    checkpoints: tuple[NewCheckpoint, ...] = ()
    history: tuple[HistoryRow, ...] = ()


@dataclass(frozen=True)
class Restored:
    """What an attempt found good and began from; None means from the beginning."""

    checkpoint_id: int | None
    resumed_from: ResumedFrom | None = None
    passed_over: tuple[tuple[int, str], ...] = ()
    """(checkpoint id, why) of the newer rows that did not verify."""


@dataclass(frozen=True)
class Report:
    """One message of a driver; `sequence` counts 1, 2, ... per attempt, without reuse."""

    sequence: int
    phase: Phase | None = None
    progress: Progress | None = None
    history: tuple[HistoryRow, ...] = ()
    restored: Restored | None = None
    """Once, from every attempt that begins from a checkpoint."""
    warnings: tuple[TrainingWarning, ...] = ()


@dataclass(frozen=True)
class Resumption:
    """What a user's resume writes once every check has passed."""

    checkpoint_id: int
    owner: Owner
    request_id: str
    resumed_from: ResumedFrom
    plan: Plan
    passed_over: tuple[tuple[int, str], ...] = ()
    request: Request | None = None
    """Where the strategy is now, and what was accepted of its changes; None: as before."""
    restored: dict[str, Any] = field(default_factory=dict)
    """What is taken over from the checkpoint, for the event."""


@dataclass(frozen=True)
class Event:
    """One transition as it happened; `status` and `attempt` are those after it."""

    id: int
    operation_id: str
    attempt: int
    event: str
    status: Status
    at: datetime
    details: dict[str, Any]


@dataclass(frozen=True)
class ModelRow:
    """A version of a strategy's model; visible once `completed_at` is set."""

    strategy_name: str
    version: int
    operation_id: str
    attempt: int
    storage: str
    path: str
    """Relative to `storage`."""
    weights_digest: str | None
    created_at: datetime
    completed_at: datetime | None


@dataclass(frozen=True)
class LastFailure:
    """What the crash-loop breaker compares: equal twice in a row means no progress was made."""

    reason: FailureReason
    step: tuple[int, int] | None
    """(epoch, batch) as last reported."""
    checkpoint: tuple[int, int] | None
    """(attempt, number) of the latest good checkpoint."""


@dataclass(frozen=True)
class Selection:
    """Which operations are meant; None: whatever it is."""

    status: Status | None = None
    strategy_name: str | None = None


@dataclass(frozen=True)
class Operation:
    operation_id: str
    status: Status
    phase: Phase | None
    attempt: int
    owner: Owner
    lease_expires_at: datetime | None
    request: Request
    plan: Plan
    created_at: datetime
    operation_type: str = "training"
    progress: Progress | None = None
    report_sequence: int = 0
    started_at: datetime | None = None
    completed_at: datetime | None = None
    cancel_requested_at: datetime | None = None
    error: Failure | None = None
    seed_checkpoint_id: int | None = None
    """Row the attempt starts from; None: its driver picks the latest good one, or the beginning."""
    resumed_from: ResumedFrom | None = None
    resumed_attempt: int = 0
    """First attempt since the last submit or user's resume; later ones are automatic restarts."""
    result: Result | None = None
    restarts: int = 0
    """Used part of the restart budget."""
    memory_restarts: int = 0
    """Restarts after `out_of_memory`, which is retried once."""
    last_failure: LastFailure | None = None
    launch_not_before: datetime | None = None
    """Back-off of a restart: its driver is not started before."""
    kill_requested_at: datetime | None = None
    """Its driver is to be killed at once; a cancel is requested then too."""
    waiting_for: str | None = None
    """What must be free before it gets a driver."""
    driver: str | None = None
    """Name of the actor that runs the current attempt; None before it has one."""
    warnings: tuple[TrainingWarning, ...] = ()
    """One per code, with the latest message and how often there was one."""


def check_operation_id(text: str) -> str:
    """Return `text` when it has the form of an operation id, else raise InvalidId."""
    if OPERATION_ID.fullmatch(text):
        return text
    raise InvalidId(
        f"{short_echo(text)} is not an operation id (op_training_YYYYMMDD_HHMMSS_xxxxxxxx):"
        " see `ktrdr operations list`"
    )


def new_operation_id(now: datetime) -> str:
    """Make an id from an aware time and 32 random bits."""
    return f"op_training_{now.astimezone(UTC):%Y%m%d_%H%M%S}_{secrets.token_hex(4)}"


def timestamp(at: datetime) -> str:
    """Return an aware time as ISO 8601 in UTC with `Z`, as records and events carry it."""
    return at.astimezone(UTC).replace(tzinfo=None).isoformat() + "Z"


def short_echo(text: str) -> str:
    """Return `text` fit for one line of a message: ASCII, quoted, cut off."""
    if len(text) <= _ECHOED_CHARACTERS:
        return ascii(text)
    return f"{text[:_ECHOED_CHARACTERS]!a}... ({len(text)} characters)"
