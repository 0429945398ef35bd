"""Simple baselines, as JSON values: the majority class, the mean, the last label."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ktrdr.features.labels import LabelArray
from ktrdr.inference.evaluation.rows import EvaluatedRows
from ktrdr.inference.evaluation.scores import NO_SCORES, Scores, value_scores

_OF_CLASSES = ("majority", "persistence")
_OF_VALUES = ("zero", "mean", "persistence")

TRAINING_ROWS = "training rows"
THESE_ROWS = "these rows"
"""Where what is commonest or the mean comes from; the latter is hindsight."""


def baselines(
    parts: Sequence[EvaluatedRows], class_names: Sequence[str]
) -> dict[str, Scores | None]:
    """Each by its figures over the labelled rows, None where it is none for the output format.

    `persistence` repeats the last label that was known at the time; rows before the first such
    label are left out, so `rows` may be less.
    """
    labels = joined(part.labels[part.labelled] for part in parts)
    known, source = _known_labels(parts, labels)
    past = joined(part.past[part.labelled & part.past_known] for part in parts)
    then = joined(part.labels[part.labelled & part.past_known] for part in parts)
    found: dict[str, Scores | None] = dict.fromkeys((*_OF_CLASSES, *_OF_VALUES))
    if class_names:
        commonest = int(np.bincount(known).argmax())
        found["majority"] = {
            "class": class_names[commonest],
            "known_from": source,
            **_class_baseline(np.full_like(labels, commonest), labels),
        }
        found["persistence"] = _class_baseline(past, then)
    else:
        mean = float(known.mean(dtype=np.float64))
        found["zero"] = _value_baseline(np.zeros_like(labels), labels)
        found["mean"] = {
            "value": mean,
            "known_from": source,
            **_value_baseline(np.full(len(labels), mean), labels),
        }
        found["persistence"] = _value_baseline(past, then)
    return found


def joined(arrays: Any) -> LabelArray:
    result: LabelArray = np.concatenate(list(arrays))
    return result


def _known_labels(parts: Sequence[EvaluatedRows], labels: LabelArray) -> tuple[LabelArray, str]:
    """Return the training rows, where every symbol has them, else the evaluated ones."""
    if all(len(part.training_labels) for part in parts):
        return joined(part.training_labels for part in parts), TRAINING_ROWS
    return labels, THESE_ROWS


def _class_baseline(said: LabelArray, labels: LabelArray) -> Scores:
    accuracy = float((said == labels).mean()) if len(labels) else None
    return {"rows": len(labels), **_PLAIN, "accuracy": accuracy}


def _value_baseline(said: LabelArray, labels: LabelArray) -> Scores:
    if not len(labels):
        return {"rows": 0, **_PLAIN}
    scores = value_scores(said.astype(np.float64), labels.astype(np.float64))
    return {"rows": len(labels), **{name: scores[name] for name in _PLAIN}}


_PLAIN: Scores = {
    name: NO_SCORES[name]
    for name in ("accuracy", "mae", "rmse", "r2", "sign_agreement", "correlation")
}
