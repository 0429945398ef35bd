"""What is seen of drivers through a real Ray: why one is gone, and whether there is room."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.ray, pytest.mark.timeout(120)]

SCRIPT = Path(__file__).parents[1] / "support" / "idle_drivers.py"


def seen(case: str) -> Any:
    plain = {k: v for k, v in os.environ.items() if not k.startswith(("KTRDR_", "RAY_"))}
    command = [sys.executable, str(SCRIPT), case]
    ran = subprocess.run(command, env=plain, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    [document] = [line for line in ran.stdout.splitlines() if line.startswith("{")]  # Ray talks too
    return json.loads(document)["seen"]


def test_a_driver_that_ray_kills_for_its_memory_is_out_of_memory() -> None:
    lost = seen("killed_for_memory")
    assert lost["reason"] == "out_of_memory"
    assert "running low on memory" in lost["message"]


def test_there_is_room_for_as_many_drivers_as_cpus_are_free() -> None:
    found = seen("room_of_two")
    assert found["rooms"] == [2, 1, 0, 0]
    assert found["reason"] == "driver_lost"
    assert "ray.kill" in found["message"]
    chosen, again, after = found["names"]
    assert chosen == again  # a choice that comes to nothing costs no CPU
    assert "op_training" not in chosen
    assert "op_training" in after


def test_a_driver_that_is_kept_ready_is_used_once_and_replaced_when_it_dies() -> None:
    first, second = seen("used_once")
    assert first["name"].startswith("spare:")
    assert second["name"].startswith("spare:")
    assert first["pid"] != second["pid"]
    assert (first["begun"], second["begun"]) == (1, 1)  # nothing of the first is in the second
