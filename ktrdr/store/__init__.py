"""The database behind the operations service."""

from __future__ import annotations

from ktrdr.store.addresses import masked
from ktrdr.store.opening import open_store
from ktrdr.store.sql import SqlStore

__all__ = ["SqlStore", "masked", "open_store"]
