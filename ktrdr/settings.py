"""Where ktrdr keeps things: read from the environment once, here, and handed down from here."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ktrdr.errors import Usage

CACHE_BYTES = 10 * 10**9


@dataclass(frozen=True)
class Settings:
    """`home` holds what this machine keeps, `storage` the bars, checkpoints and models."""

    home: Path
    database_url: str = field(repr=False)
    """It may hold a password."""
    storage: Path
    hang_after_s: float = 60.0
    """How long a training may show no progress, unless it has been slower before."""
    cache_bytes: int = CACHE_BYTES
    """How much the features kept on the storage may take; those in use stay in any case."""
    idle_s: float = 600.0
    """How long the local cluster stays after its last operation has ended."""
    ray_address: str | None = None
    """Of a cluster of many nodes; None: the local cluster of the home."""

    def environment(self) -> dict[str, str]:
        """The variables from which another process reads the same settings."""
        return {
            "KTRDR_HOME": str(self.home),
            "KTRDR_DATABASE_URL": self.database_url,
            "KTRDR_STORAGE": str(self.storage),
            "KTRDR_HANG_AFTER_S": str(self.hang_after_s),
            "KTRDR_CACHE_BYTES": str(self.cache_bytes),
            "KTRDR_IDLE_S": str(self.idle_s),
        }


def read_settings(
    environ: Mapping[str, str] = os.environ,
    *,
    home: str | Path | None = None,
    database_url: str | None = None,
    storage: str | Path | None = None,
) -> Settings:
    """Settings from arguments, else from the environment, else below `~/.ktrdr`.

    Raises:
        Usage: the storage is no path of this machine, the time to hang or the size of the cache
            no number.
    """
    root = _absolute(home or environ.get("KTRDR_HOME") or "~/.ktrdr")
    where = str(storage or environ.get("KTRDR_STORAGE") or root / "storage")
    if "://" in where:
        raise Usage(f"KTRDR_STORAGE: {where[:80]!r} is no folder of this machine: give its path")
    return Settings(
        home=root,
        database_url=database_url
        or environ.get("KTRDR_DATABASE_URL")
        or f"sqlite:///{root / 'ktrdr.db'}",
        storage=_absolute(where),
        hang_after_s=_seconds("KTRDR_HANG_AFTER_S", environ.get("KTRDR_HANG_AFTER_S") or "60"),
        cache_bytes=_bytes(
            "KTRDR_CACHE_BYTES", environ.get("KTRDR_CACHE_BYTES") or f"{CACHE_BYTES}"
        ),
        idle_s=_seconds("KTRDR_IDLE_S", environ.get("KTRDR_IDLE_S") or "600"),
        ray_address=environ.get("RAY_ADDRESS") or None,
    )


def _seconds(name: str, text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if 1.0 <= seconds <= 1e6:
        return seconds
    raise Usage(f"{name}: {text[:40]!r} is no number of seconds from 1 to a million")


def _bytes(name: str, text: str) -> int:
    try:
        number = int(text)
    except ValueError:
        number = -1
    if 0 <= number < 2**63:
        return number
    raise Usage(f"{name}: {text[:40]!r} is no number of bytes, such as {CACHE_BYTES}")


def _absolute(path: str | Path) -> Path:
    try:
        return Path(os.path.abspath(Path(path).expanduser()))
    except (RuntimeError, ValueError):
        raise Usage(f"{str(path)[:80]!r} is no path: set KTRDR_HOME to a folder") from None
