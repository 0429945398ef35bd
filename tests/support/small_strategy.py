"""A small strategy and bars on which a verification takes seconds."""

from __future__ import annotations

from pathlib import Path

from ktrdr.data.sample import sample_bars
from ktrdr.data.store import SYNTHETIC, BarStore

STRATEGY = """
name: verified
training_data:
  symbols: {mode: single, symbol: SAMPLE}
  timeframes: {mode: single, timeframe: 1h}
  history_required: 50
indicators:
  rsi_14: {type: rsi, period: 14}
fuzzy_sets:
  momentum: {indicator: rsi_14, low: [0, 20, 40], middle: [30, 50, 70], high: [60, 80, 100]}
nn_inputs:
  - {fuzzy_set: momentum, timeframes: all}
model:
  type: mlp
  architecture: {hidden_layers: [8], dropout: 0.3}
training:
  epochs: 8
  batch_size: 32
  lr_scheduler: {type: cosine}
  checkpoint: {every_epochs: 1, every_seconds: 0.01}
"""


def write_strategy(path: Path) -> Path:
    path.write_text(STRATEGY, encoding="utf-8")
    return path


def write_bars(storage: Path) -> None:
    BarStore(storage).write(sample_bars(rows=2_000), source=SYNTHETIC)
