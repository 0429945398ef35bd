"""Where two effective configurations differ."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

INFORMATIVE_KEYS = ("description", "scope")  # they change no number


def changed_keys(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """The dotted paths at which two configurations differ, informative keys apart."""
    return sorted(
        path for path in _differing(old, new, "") if path.partition(".")[0] not in INFORMATIVE_KEYS
    )


def _differing(old: Any, new: Any, path: str) -> Iterator[str]:
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for key in {**old, **new}:
            inner = f"{path}.{key}" if path else str(key)
            yield from _differing(old.get(key), new.get(key), inner)
    elif old != new:
        yield path
