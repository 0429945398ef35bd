"""Leases are renewed whatever else takes time, and whatever the store says meanwhile."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from store_bench import Bench, opened

from ktrdr.errors import StoreUnavailable
from ktrdr.supervisor.lease_renewal import LeaseRenewal

DEADLINE_S = 20.0


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    with opened("sqlite", tmp_path) as bench:
        yield bench


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_lease_that_has_expired_is_renewed_until_the_renewal_ends(bench: Bench) -> None:
    row = bench.running()

    def renewed() -> bool:
        return not bench.service.lease_expired(bench.service.get(row.operation_id))

    with LeaseRenewal(bench.service, row.owner.id, every_s=0.01):
        for _ in range(2):
            bench.expire_lease(row.operation_id)
            until(renewed)
    bench.expire_lease(row.operation_id)
    assert not renewed()


def test_a_store_that_is_away_is_asked_again(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    row, tried = bench.running(), threading.Semaphore(0)
    renew = bench.service.renew

    def away(_: str) -> int:
        tried.release()
        raise StoreUnavailable("the database does not answer")

    monkeypatch.setattr(bench.service, "renew", away)
    bench.expire_lease(row.operation_id)
    with LeaseRenewal(bench.service, row.owner.id, every_s=99.0, retry_s=0.01):
        assert all(tried.acquire(timeout=DEADLINE_S) for _ in range(3))
        monkeypatch.setattr(bench.service, "renew", renew)
        until(lambda: not bench.service.lease_expired(bench.service.get(row.operation_id)))
    assert "the database does not answer" in caplog.text
