"""A driver's line to the operations actor: it outlives the actor, and delivers again what was lost.

Every verb it carries may be repeated: a call whose answer got lost is simply made once more.
"""

from __future__ import annotations

import time
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, RayActorError, RayTaskError

from ktrdr.errors import StoreUnavailable

CALL_TIMEOUT_S = 15.0
DEADLINE_S = 3600.0
"""How long a driver tries: an actor that stays away longer has lost its operations anyway."""

_BACK_OFF_S = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0)


class _Absent(Exception):
    """No actor of that name is there at the moment."""


class Link:
    """Holds the actor's handle, and looks it up again by name when that died.

    Safe to use from several threads.
    """

    def __init__(self, name: str, namespace: str, operation_id: str, attempt: int) -> None:
        self._name = name
        self._namespace = namespace
        self._actor: Any = None
        self.operation_id = operation_id
        self.attempt = attempt

    def ask(self, verb: str, *arguments: Any, deadline_s: float = DEADLINE_S) -> Any:
        """Run a verb of the service for this operation and attempt, however long it takes.

        Raises what the service raises; StoreUnavailable when the deadline has passed.
        """
        return self._deliver(
            "ask", (verb, (self.operation_id, self.attempt, *arguments)), deadline_s
        )

    def forget_checkpoints(self, ids: tuple[int, ...], deadline_s: float = DEADLINE_S) -> None:
        arguments = ("forget_checkpoints", (self.operation_id, ids))
        self._deliver("ask", arguments, deadline_s)

    def brief(self) -> Any:
        """The operation's row and its checkpoints."""
        return self._deliver("brief", (self.operation_id,), DEADLINE_S)

    def _deliver(self, method: str, arguments: tuple[Any, ...], deadline_s: float) -> Any:
        started, attempts = time.monotonic(), 0
        while True:
            try:
                return self._call(method, arguments)
            except (_Absent, RayActorError, GetTimeoutError, StoreUnavailable) as error:
                if time.monotonic() - started > deadline_s:
                    raise StoreUnavailable(
                        f"the operations actor did not answer for {deadline_s:.0f} s: {error}"
                    ) from error
            time.sleep(_BACK_OFF_S[min(attempts, len(_BACK_OFF_S) - 1)])
            attempts += 1

    def _call(self, method: str, arguments: tuple[Any, ...]) -> Any:
        try:
            answer = getattr(self._found(), method).remote(*arguments)
            return ray.get(answer, timeout=CALL_TIMEOUT_S)
        except RayTaskError as error:
            raise error.cause from None
        except RayActorError:
            self._actor = None  # restarted, or another one by now: looked up again
            raise

    def _found(self) -> Any:
        if self._actor is None:
            try:
                self._actor = ray.get_actor(self._name, namespace=self._namespace)
            except ValueError as error:
                raise _Absent(str(error)) from None
        return self._actor
