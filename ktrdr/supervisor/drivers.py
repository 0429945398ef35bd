"""What the caretaker asks of the drivers, so that it can be tested without Ray."""

from __future__ import annotations

from typing import Protocol

from ktrdr.driver.heartbeat import Heartbeat
from ktrdr.driver.names import AttemptKey
from ktrdr.operations.types import StopKind


class Fleet(Protocol):
    """The drivers of one owner, by operation and attempt. No method waits for a driver.

    Only `ended`, `launch` and `kill` may be asked of a driver that has ended.
    """

    def launch(self, key: AttemptKey) -> None:
        """Start a driver; one of this name that lives already is kept."""

    def attach(self) -> set[AttemptKey]:
        """Find the drivers that live, also those that another process started."""

    def ended(self, key: AttemptKey) -> str | None:
        """Why the driver is gone, or None while it lives, or waits for a place to live."""

    def pulse(self, key: AttemptKey) -> Heartbeat | None:
        """Its last answer, if one came in since this was last called."""

    def waiting(self, key: AttemptKey) -> bool:
        """Whether there is no free place for it in the cluster."""

    def stop(self, key: AttemptKey, kind: StopKind) -> None:
        """Ask it to stop at its next batch."""

    def stacks(self, key: AttemptKey) -> str | None:
        """What all its threads do; None until it has answered that."""

    def outside(self, key: AttemptKey) -> str:
        """What can be said of a driver that does not answer."""

    def kill(self, key: AttemptKey) -> None:
        """End its process, frozen or not; nothing happens when it is gone."""
