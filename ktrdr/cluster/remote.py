"""A Ray of many nodes, named by RAY_ADDRESS: its owner, found in the store or made by a child.

What needs Ray happens in a child process (`python -m ktrdr.cluster.joining ADDRESS`), so that
a command, or a notebook with a Ray of its own, never joins one.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys

from ktrdr.cluster.local import RAY_ENVIRONMENT
from ktrdr.errors import ClusterUnavailable, KtrdrError, StoreMismatch, VersionMismatch
from ktrdr.operations.service import OperationsService
from ktrdr.operations.types import Owner, OwnerRow
from ktrdr.settings import Settings
from ktrdr.version import version

CONNECT_TIMEOUT_S = 10.0
JOIN_DEADLINE_S = 120.0
_ERRORS: tuple[type[KtrdrError], ...] = (ClusterUnavailable, StoreMismatch, VersionMismatch)


def find(address: str, service: OperationsService) -> OwnerRow | None:
    """Return the row of the cluster at an address, when its actor has served lately."""
    now = service.now()
    for row in reversed(service.owners()):
        if row.address == address and row.accepting and row.lease_expires_at > now:
            return row
    return None


def ensure(address: str, settings: Settings, service: OperationsService) -> Owner:
    """Return the owner of the cluster at an address; its actor is made when there is none.

    Raises:
        ClusterUnavailable: nobody answers there.
        StoreMismatch: its nodes use another store or storage; no actor stays.
        VersionMismatch: it runs another ktrdr.
    """
    row = find(address, service)
    if row is None:
        check_listening(address)
        row = service.owner(_make_actor(address, settings))
    if row is None:
        raise ClusterUnavailable(f"the operations actor at {address} has gone again: try again")
    if row.version != version():
        raise VersionMismatch(
            f"the cluster at {address} runs ktrdr {row.version}, this is {version()}: use the same"
        )
    return row.owner


def check_listening(address: str) -> None:
    """Raise ClusterUnavailable when nobody listens: Ray itself would try for a minute."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=CONNECT_TIMEOUT_S).close()
    except (OSError, ValueError, OverflowError) as error:
        raise ClusterUnavailable(
            f"no Ray answers at {address[:80]!r} ({error}): unset RAY_ADDRESS to use the local"
            " cluster of your home"
        ) from None


def _make_actor(address: str, settings: Settings) -> str:
    """Let a child join the cluster and make its actor; return the owner's id.

    Raises what the child says is wrong.
    """
    environ = os.environ | settings.environment() | RAY_ENVIRONMENT | {"RAY_AUTH_MODE": "token"}
    environ.pop("RAY_ADDRESS", None)
    try:
        done = subprocess.run(
            [sys.executable, "-m", "ktrdr.cluster.joining", address],
            env=environ,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=JOIN_DEADLINE_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise ClusterUnavailable(
            f"the Ray at {address} could not be joined within {JOIN_DEADLINE_S:.0f} s"
        ) from None
    return _owner_id(done.stdout, done.stderr)


def _owner_id(out: str, err: str) -> str:
    try:
        told = json.loads(out.splitlines()[-1])
        if "owner_id" in told:
            return str(told["owner_id"])
        kind = {error.code: error for error in _ERRORS}[told["code"]]
    except (IndexError, ValueError, KeyError, TypeError):
        last = [line for line in err.splitlines() if line.strip()][-1:]
        raise ClusterUnavailable(
            f"the Ray cluster could not be joined: {''.join(last)[:300]}"
        ) from None
    raise kind(told["message"])
