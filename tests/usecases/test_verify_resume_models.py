"""`verify-resume` on two symbols, two timeframes, weights and a fold, network by network.

Processes are dear: that of mlp stands with the command's own tests, and every network is stopped
and resumed without any in test_weights_and_segments.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from ktrdr.data.sample import sample_bars
from ktrdr.data.store import SYNTHETIC, BarStore
from ktrdr.storage.root import Storage
from ktrdr.usecases.submit import TrainingOptions, prepare
from ktrdr.usecases.verify_resume.verification import Observer, verify

CHAOS_SEED = 17
STRATEGY = """
name: verified
training_data:
  symbols: {mode: multi_symbol, list: [ONE, TWO]}
  timeframes: {mode: multi_timeframe, list: [1h, 4h], resample: true}
  history_required: 50
indicators:
  rsi_14: {type: rsi, period: 14}
  change: {type: roc, period: 3}
fuzzy_sets:
  momentum: {indicator: rsi_14, low: [0, 20, 40], middle: [30, 50, 70], high: [60, 80, 100]}
  moves: {indicator: change, auto: 3}
nn_inputs:
  - {fuzzy_set: momentum}
  - {fuzzy_set: moves, timeframes: [4h]}
  - {raw_indicator: change, timeframes: [1h], normalization: robust}
model: {type: mlp}
training:
  epochs: 4
  batch_size: 64
  early_stopping: {patience: 2}
  checkpoint: {every_epochs: 1, every_seconds: 0.01}
  data_split: {mode: purged_kfold, folds: 2, embargo: 3}
  labels: {source: triple_barrier, max_holding_period: 10, vol_span: 20, compute_weights: true,
    cusum_threshold: 0.01}
"""
MODELS: dict[str, dict[str, Any]] = {
    "tcn": {"sequence_length": 6, "channels": [4, 4], "kernel_size": 2, "dropout": 0.3},
    "neuro_fuzzy": {"max_rules": 8},
}


@pytest.mark.parametrize("kind", MODELS)
def test_a_killed_training_ends_as_if_nothing_had_happened(kind: str, tmp_path: Path) -> None:
    for seed, symbol in ((7, "ONE"), (8, "TWO")):
        BarStore(tmp_path).write(sample_bars(symbol, rows=1_000, seed=seed), source=SYNTHETIC)
    content = yaml.safe_load(STRATEGY)
    content["model"] = {"type": kind, "architecture": MODELS[kind]}
    path = tmp_path / "verified.yaml"
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    request, plan = prepare(path, TrainingOptions(), Storage(tmp_path))[-1]
    assert request.fold == 2
    found = verify(request, plan, 1, CHAOS_SEED, Observer(lambda _: None, lambda _: None))
    assert found.equal, found.first_difference
    assert [interruption.kind for interruption in found.interruptions] == ["kill"]
    assert found.digests["straight"] == found.digests["interrupted"]
