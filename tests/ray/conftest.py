"""After each test all rows of the shared store are checked, whatever was killed meanwhile."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from invariants import check_rows


@pytest.fixture(autouse=True)
def _checked_rows(request: pytest.FixtureRequest) -> Iterator[None]:
    shared = "shared_client" in request.fixturenames
    client = request.getfixturevalue("shared_client") if shared else None
    yield
    if client is not None:
        check_rows(client.service)
