"""Evaluation of a model on given rows, beside simple baselines."""

from __future__ import annotations

from ktrdr.inference.evaluation.evaluation import Evaluation, evaluate

__all__ = ["Evaluation", "evaluate"]
