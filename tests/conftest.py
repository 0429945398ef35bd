"""One local cluster for the whole session of tests, started by the first that needs it."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from local_cluster import end_cluster

from ktrdr.client import Client
from ktrdr.cluster import local
from ktrdr.data.sample import sample_bars
from ktrdr.settings import read_settings

HANG_AFTER_S = 5


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.parent.name in ("store", "golden") and "postgres" in item.nodeid:
            item.add_marker(pytest.mark.postgres)


@pytest.fixture(autouse=True)
def _no_cluster_by_chance(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a test of this process start a cluster only when it is marked so."""

    def refuse(*_: object) -> int:
        raise AssertionError("mark it `ray`: it starts a cluster")

    if request.node.get_closest_marker("ray") is None:
        monkeypatch.setattr(local, "_spawn", refuse)


@pytest.fixture(scope="session")
def shared_home() -> Iterator[Path]:
    """A home with sample bars; its path is short, since Ray's sockets lie in it."""
    with tempfile.TemporaryDirectory(prefix="kt-") as folder:
        yield Path(folder)
        end_cluster(Path(folder))


@pytest.fixture(scope="session")
def shared_client(shared_home: Path) -> Iterator[Client]:
    """Other operations than a test's own are there too."""
    settings = read_settings({"KTRDR_HANG_AFTER_S": str(HANG_AFTER_S)}, home=shared_home)
    with Client(settings) as client:
        client.bars.write(sample_bars())
        yield client
