"""The environment that decides on the bits of a result; recorded, compared on resume."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

_BEFORE_IT_WAS_RECORDED = {"mkl_cbwr": "AUTO"}
"""Versions that did not record how MKL rounds left the choice to it."""
_DISTRIBUTIONS = ("torch", "numpy", "polars", "TA-Lib", "ktrdr")


def package_versions() -> dict[str, str]:
    """Return the part of an environment that is known without torch, wherever this runs."""
    return {name: version(name) for name in _DISTRIBUTIONS}


def environment(device: str, workers: int, threads: int) -> dict[str, Any]:
    """Versions, processor and shape of this run; a resume is exact only where all are equal."""
    import torch

    kind = torch.cuda.get_device_name(device) if device.startswith("cuda") else device
    return {
        **package_versions(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "mkl_cbwr": os.environ.get("MKL_CBWR"),
        "architecture": platform.machine(),
        "device": kind,
        "workers": workers,
        "threads": threads,
    }


def round_as(recorded: Mapping[str, Any]) -> None:
    """Let MKL round in this process as where a checkpoint of this environment was written.

    That is read once, before the first product of matrices: a driver has computed nothing yet.
    """
    os.environ["MKL_CBWR"] = _complete(recorded)["mkl_cbwr"]


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What changed, as `torch: 2.12.0 -> 2.13.0`; empty when a resume is exact."""
    before = _complete(before)
    return [
        f"{name}: {before.get(name, 'unknown')} -> {now.get(name, 'unknown')}"
        for name in sorted(before.keys() | now.keys())
        if before.get(name) != now.get(name)
    ]


def _complete(recorded: Mapping[str, Any]) -> dict[str, Any]:
    return {**_BEFORE_IT_WAS_RECORDED, **recorded}
