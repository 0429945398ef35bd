"""One call of the operations actor, which may be away, restarted or another one by now."""

from __future__ import annotations

from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError, UnserializableException

from ktrdr.driver.names import NAMESPACE, OPERATIONS, AttemptKey
from ktrdr.errors import StoreUnavailable

CALL_TIMEOUT_S = 15.0


class ActorCall:
    """Calls the service's verbs for one attempt.

    Holds the actor's handle, and looks the actor up by name again when that died.
    """

    def __init__(self, key: AttemptKey) -> None:
        self._key = key
        self._actor: Any = None

    def __call__(self, verb: str, *arguments: Any) -> Any:
        """Return the service's answer.

        Raises what the service raises; StoreUnavailable when no answer came: the verb may have
        been carried out, and may be called again.
        """
        try:
            answer = self._found().ask.remote(verb, (*self._key, *arguments))
            return ray.get(answer, timeout=CALL_TIMEOUT_S)
        except RayTaskError as error:
            raise error.cause from None
        except UnserializableException:
            raise
        except RayError as error:
            self._actor = None
            raise StoreUnavailable(f"the operations actor does not answer: {error}") from error

    def _found(self) -> Any:
        if self._actor is None:
            try:
                self._actor = ray.get_actor(OPERATIONS, namespace=NAMESPACE)
            except ValueError as error:
                raise StoreUnavailable(f"there is no operations actor: {error}") from error
        return self._actor
