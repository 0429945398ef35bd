"""A resume rounds as its checkpoint says, in a process that has loaded torch already."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest

from ktrdr.training.environment import differences, round_as

PRODUCTS = """
import json, sys
import torch
from ktrdr.training.environment import round_as
if recorded := json.loads(sys.argv[1]):
    round_as(recorded)
torch.manual_seed(0)
for rows in (1, 2, 10, 1024):
    x, w = torch.randn(rows, 5), torch.randn(9, 5)
    print((x @ w.t()).numpy().tobytes().hex(), (x.t() @ x).numpy().tobytes().hex())
"""


def test_it_rounds_as_a_process_that_was_started_so() -> None:
    told = products({"mkl_cbwr": "COMPATIBLE"}, "AVX2,STRICT")
    assert told == products({}, "COMPATIBLE")


def test_older_versions_left_the_choice_to_mkl(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MKL_CBWR", "AVX2,STRICT")
    round_as({"torch": "2.13.0"})
    assert os.environ["MKL_CBWR"] == "AUTO"


def test_what_older_versions_did_not_record_is_no_difference() -> None:
    assert differences({"torch": "1"}, {"torch": "1", "mkl_cbwr": "AUTO"}) == []
    assert differences({"torch": "1"}, {"torch": "1", "mkl_cbwr": "AVX2,STRICT"}) == [
        "mkl_cbwr: AUTO -> AVX2,STRICT"
    ]


def products(recorded: dict[str, Any], rounding: str) -> str:
    """What a process computes that is started with a rounding, and then told of another."""
    return subprocess.run(
        [sys.executable, "-c", PRODUCTS, json.dumps(recorded)],
        env=os.environ | {"MKL_CBWR": rounding},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
