"""What the tests of the supervisor drive; after each of them all rows are checked."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import checkpoint_bench
import pytest
import supervision
from checkpoint_bench import Bench
from invariants import check_rows
from supervision import World


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with supervision.opened(tmp_path) as world:
        yield world


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    with checkpoint_bench.opened(tmp_path) as bench:
        yield bench


@pytest.fixture(autouse=True)
def _checked_rows(request: pytest.FixtureRequest) -> Iterator[None]:
    names = [name for name in ("world", "bench") if name in request.fixturenames]
    used = [request.getfixturevalue(name) for name in names]  # closed after this one
    yield
    for bench in used:
        check_rows(bench.service)
