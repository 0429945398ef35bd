"""Which ktrdr this is: the package's version and a digest of its sources."""

from __future__ import annotations

import functools
import hashlib
from importlib import metadata
from pathlib import Path

_PACKAGE = Path(__file__).parent


@functools.cache
def version() -> str:
    """Return what a client compares with its cluster's, such as `0.1.0+3f2a9c01d47e`."""
    digest = hashlib.sha256()
    for path in sorted(_PACKAGE.rglob("*.py")):
        digest.update(f"{path.relative_to(_PACKAGE)}\0".encode())
        digest.update(path.read_bytes())
    return f"{metadata.version('ktrdr')}+{digest.hexdigest()[:12]}"
