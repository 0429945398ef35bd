"""Scores of predicted classes and values, as JSON values.

What would be divided by nothing is None: a precision without a single prediction, a correlation
with what does not vary.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ktrdr.data.bars import FloatArray, IntArray

NUM_BINS = 10

Scores = dict[str, Any]

NO_SCORES: Scores = dict.fromkeys(
    (
        "accuracy",
        "log_loss",
        "brier_score",
        "expected_calibration_error",
        "per_class",
        "confusion_matrix",
        "calibration",
        "mae",
        "rmse",
        "r2",
        "sign_agreement",
        "correlation",
    )
)
"""Every figure that there is; those of the other output format stay None."""


def class_scores(outputs: FloatArray, labels: IntArray, names: Sequence[str]) -> Scores:
    """Figures of raw outputs [N, classes] by labels [N], N > 0.

    `log_loss` is the mean of -log p(label), `brier_score` of the squared distance between the
    probabilities and the label as one of them (Brier 1950: 0 to 2), `confusion_matrix` counts
    [true][predicted]. The likeliest class is the prediction, its probability the confidence.
    """
    logs = _log_softmax(outputs)
    shares = np.exp(logs)
    rows = np.arange(len(labels))
    actual = np.zeros_like(shares)
    actual[rows, labels] = 1.0
    predicted = outputs.argmax(axis=1)
    hits = predicted == labels
    bins = calibration(shares[rows, predicted], hits)
    confusion = _confusion(predicted, labels, len(names))
    return {
        **NO_SCORES,
        "accuracy": float(hits.mean()),
        "log_loss": float(-logs[rows, labels].mean()),
        "brier_score": float(((shares - actual) ** 2).sum(axis=1).mean()),
        "expected_calibration_error": _calibration_error(bins, len(labels)),
        "per_class": {name: _of_class(confusion, i) for i, name in enumerate(names)},
        "confusion_matrix": confusion.tolist(),
        "calibration": bins,
    }


def calibration(confidences: FloatArray, hits: NDArray[np.bool_]) -> list[Scores]:
    """Return how often predictions of a confidence are right, in ten bins of equal width.

    A confidence on an edge belongs to the bin below it (Guo et al. 2017, "On calibration",
    section 2).
    """
    indices = np.clip(np.ceil(confidences * NUM_BINS).astype(np.int64) - 1, 0, NUM_BINS - 1)
    counts = np.bincount(indices, minlength=NUM_BINS)
    sums = np.bincount(indices, confidences, NUM_BINS)
    right = np.bincount(indices, hits.astype(np.float64), NUM_BINS)
    return [
        {
            "above": place / NUM_BINS,
            "up_to": (place + 1) / NUM_BINS,
            "rows": int(counts[place]),
            "confidence": ratio(sums[place], counts[place]),
            "accuracy": ratio(right[place], counts[place]),
        }
        for place in range(NUM_BINS)
    ]


def value_scores(values: FloatArray, labels: FloatArray) -> Scores:
    """Figures of predicted values [N] by labels [N], N > 0.

    `r2` is the share of the labels' variance that is explained, below 0 where their mean would be
    the better guess; `correlation` is Pearson's; signs agree as in training, 0 with 0 only.
    """
    errors = values - labels
    squares = float((errors**2).sum())
    spread = float(((labels - labels.mean()) ** 2).sum())
    varies = bool((labels != labels[0]).any())
    return {
        **NO_SCORES,
        "mae": float(np.abs(errors).mean()),
        "rmse": float(np.sqrt(squares / len(labels))),
        "r2": 1.0 - squares / spread if varies and spread > 0 else None,
        "sign_agreement": float((np.sign(values) == np.sign(labels)).mean()),
        "correlation": _correlation(values, labels),
    }


def ratio(part: float, whole: float) -> float | None:
    return float(part) / float(whole) if whole else None


def _log_softmax(outputs: FloatArray) -> FloatArray:
    shifted = outputs - outputs.max(axis=1, keepdims=True)
    logs: FloatArray = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return logs


def _confusion(predicted: IntArray, labels: IntArray, count: int) -> IntArray:
    pairs = np.bincount(labels * count + predicted, minlength=count * count)
    return pairs.reshape(count, count)


def _of_class(confusion: IntArray, index: int) -> Scores:
    hits = int(confusion[index, index])
    actual, predicted = int(confusion[index].sum()), int(confusion[:, index].sum())
    return {
        "precision": ratio(hits, predicted),
        "recall": ratio(hits, actual),
        "f1": ratio(2 * hits, actual + predicted),
        "support": actual,
        "predicted": predicted,
    }


def _calibration_error(bins: Sequence[Scores], count: int) -> float:
    """The mean distance between confidence and accuracy, each bin by its rows."""
    filled = [one for one in bins if one["rows"]]
    distances = [float(o["rows"] * abs(o["confidence"] - o["accuracy"])) for o in filled]
    return sum(distances) / count


def _correlation(values: FloatArray, labels: FloatArray) -> float | None:
    if (values == values[0]).all() or (labels == labels[0]).all():
        return None
    one, two = values - values.mean(), labels - labels.mean()
    scale = float(np.sqrt((one**2).sum()) * np.sqrt((two**2).sum()))
    return ratio(float((one * two).sum()), scale)
