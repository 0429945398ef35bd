"""The database behind the operations service."""

from __future__ import annotations

from ktrdr.store.opening import masked, open_store
from ktrdr.store.sql import SqlStore

__all__ = ["SqlStore", "masked", "open_store"]
