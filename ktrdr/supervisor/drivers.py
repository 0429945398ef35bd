"""What the supervisor asks of the drivers, so that it can be tested without Ray."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from ktrdr.driver.heartbeat import Heartbeat
from ktrdr.driver.names import AttemptKey
from ktrdr.operations.types import FailureReason, StopKind


@dataclass(frozen=True)
class Lost:
    """Why an attempt has no driver any more that could end it itself."""

    reason: FailureReason
    message: str
    found_on_start: bool = False


class Drivers(Protocol):
    """The drivers of one owner, by operation and attempt. No method waits for a driver.

    Only `lost`, `launch` and `kill` may be asked of a driver that is gone.
    """

    def room(self) -> int:
        """Return how many more drivers the cluster can place now."""

    def choose(self, key: AttemptKey) -> str:
        """Return the name of the driver that is to run an attempt: one kept ready, or a new one.

        Nothing happens before it is launched.
        """

    def launch(self, key: AttemptKey, name: str) -> None:
        """Let the driver of this name run an attempt; repeated, nothing more happens."""

    def attach(self, named: Mapping[str, AttemptKey]) -> set[AttemptKey]:
        """Find the drivers that live, also those that another process started.

        `named` are those that rows name; those that no row names are ended.
        """

    def lost(self, key: AttemptKey) -> Lost | None:
        """Say why the driver is gone; None while it lives, or waits for a place to live."""

    def pulse(self, key: AttemptKey) -> Heartbeat | None:
        """Return its last answer, if one came in since this was last called."""

    def unplaced(self, key: AttemptKey) -> bool:
        """Say whether the cluster has found no place for it."""

    def stop(self, key: AttemptKey, kind: StopKind) -> None:
        """Ask it to stop at its next batch."""

    def stacks(self, key: AttemptKey) -> str | None:
        """Return what all its threads do; None until it has answered that."""

    def outside(self, key: AttemptKey) -> str:
        """Return what can be said of a driver that does not answer."""

    def kill(self, key: AttemptKey) -> None:
        """End its process, frozen or not; nothing happens when it is gone."""
