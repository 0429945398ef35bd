"""What a model is worth on given rows, beside what costs nothing to say."""

from __future__ import annotations

from ktrdr.inference.evaluation.evaluation import Evaluation, evaluate

__all__ = ["Evaluation", "evaluate"]
