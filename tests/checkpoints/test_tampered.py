"""Rows that somebody changed by hand: the owner that starts sees it and says so."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from checkpoint_bench import SilentDrivers, opened
from sqlalchemy import text


def test_a_row_that_its_events_do_not_lead_to_is_told_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with opened(tmp_path) as bench:
        sound, changed = bench.running("sound"), bench.running("changed")
        drivers = SilentDrivers((sound.operation_id, 1), (changed.operation_id, 2))
        with bench.store._writer.begin() as connection:
            tamper = "UPDATE operations SET attempt = 2 WHERE operation_id = :id"
            connection.execute(text(tamper), {"id": changed.operation_id})
        with caplog.at_level(logging.ERROR):
            bench.supervise(drivers)
        expected = "the row says running, attempt 2; its events lead to running, attempt 1"
        warned = bench.service.events(changed.operation_id)[-1]
        assert (warned.event, warned.details) == (
            "warned",
            {
                "code": "ROW_INCONSISTENT",
                "message": f"row and events differ: {expected}",
                "count": 1,
            },
        )
        assert expected in caplog.text
        assert [e.event for e in bench.service.events(sound.operation_id)][-1] == "started"
        assert not drivers.killed
