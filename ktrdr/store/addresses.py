"""Where a store is, and how that may be shown: no password ever stands in a message."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from urllib.parse import unquote

from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from ktrdr.errors import StoreUnavailable
from ktrdr.store.dialect import POSTGRESQL

_WHAT_IT_MAY_BE = "sqlite:////path/to/file or postgresql+psycopg2://user:password@host/database"
_DRIVERS = ("sqlite", "sqlite+pysqlite", "postgresql", "postgresql+psycopg2")
_USER = re.compile(r"^([^:/]*):.*@", re.DOTALL)
_PASSWORD = re.compile(r"(password\s*=\s*)('[^']*'?|[^\s&]*)", re.IGNORECASE)


@dataclass(frozen=True)
class Address:
    """A database URL; `shown` is what may stand in messages."""

    url: URL = field(repr=False)
    shown: str

    @property
    def on_server(self) -> bool:
        return self.url.get_backend_name() == POSTGRESQL

    def cleaned(self, message: str) -> str:
        """Return a message of the database library without the passwords of this URL."""
        for secret in _secrets(self.url):
            message = message.replace(secret, "***")
        return message


def address(text: str) -> Address:
    """Read a database URL; raise StoreUnavailable for one that no store can be on."""
    shown = masked(text)
    try:
        url = make_url(text)
        _check_characters(text)
    except (ArgumentError, ValueError):
        raise StoreUnavailable(
            f"{shown!a} is not a database URL: set KTRDR_DATABASE_URL to {_WHAT_IT_MAY_BE}"
        ) from None
    if url.drivername not in _DRIVERS:
        raise StoreUnavailable(
            f"the store {shown} is on a database that is not supported:"
            f" set KTRDR_DATABASE_URL to {_WHAT_IT_MAY_BE}"
        )
    if url.get_backend_name() == POSTGRESQL and _has_stray_at(text):
        raise StoreUnavailable(
            f"the store {shown} has an '@' in its user, password, host or database:"
            " write it as %40 in KTRDR_DATABASE_URL"
        )
    return Address(url, shown)


def masked(url: str) -> str:
    """Return a database URL, or what was meant as one, with every password replaced."""
    scheme, separator, rest = url.partition("://") if "://" in url else ("", "", url)
    return _PASSWORD.sub(r"\1***", scheme + separator + _USER.sub(r"\1:***@", rest))


def _check_characters(url: str) -> None:
    if "\0" in unquote(url):
        raise ValueError("no database takes a null character")


def _has_stray_at(url: str) -> bool:
    """Say whether the first '@', which ends a password, is followed by another one.

    What stands behind it would be taken for the host, and shown.
    """
    behind = url.partition("@")[2]
    return "@" in behind.partition("=")[0]


def _secrets(url: URL) -> list[str]:
    """Return the passwords of a URL, longest first."""
    query = url.normalized_query
    found = {value for key in query if "password" in key.lower() for value in query[key]}
    return sorted({str(url.password or ""), *found} - {""}, key=len, reverse=True)
