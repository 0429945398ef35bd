"""The rows of an evaluation: predictions, labels, and the labels known before."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ktrdr.data.bars import Bars, FloatArray, IntArray
from ktrdr.features.input_schema import TrainingRange
from ktrdr.features.labels import LabelArray, Labels, make_labels
from ktrdr.inference.model import LoadedModel
from ktrdr.inference.prediction import ModelInputs

Mask = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class EvaluatedRows:
    """Consecutive bars of one symbol, N of them, with a model's prediction at each.

    `outputs`: float64 [N, classes] or [N, 1], raw. `labels` count where `labelled`. `past` is the
    label of the last bar whose label was known at the close of the row's bar; `past_known` where
    there was one. `moves`: close[t + 1] / close[t] - 1, NaN at the last stored bar. `splits` says
    for each of training's splits which rows it had. `training_labels` are those of the symbol's
    training rows, as far as their bars are at hand.
    """

    symbol: str
    timestamps: IntArray
    outputs: FloatArray
    labels: LabelArray
    labelled: Mask
    past: LabelArray
    past_known: Mask
    moves: FloatArray
    splits: dict[str, Mask]
    training_labels: LabelArray


def evaluated_rows(model: LoadedModel, made: ModelInputs, start: int, stop: int) -> EvaluatedRows:
    """Return a model's predictions at the base bars [start, stop), with their labels."""
    base, rows = made.base, slice(start, stop)
    labels = make_labels(model.strategy.training.labels, base)
    past, past_known = _past_labels(labels, start, stop)
    return EvaluatedRows(
        symbol=base.symbol,
        timestamps=base.timestamps[rows],
        outputs=model.outputs(made.between(start, stop)).astype(np.float64),
        labels=labels.values[rows],
        labelled=labels.valid[rows],
        past=past,
        past_known=past_known,
        moves=_moves(base)[rows],
        splits={
            name: _within(base.timestamps[rows], _spans(model, base.symbol, name))
            for name in ("train", "validation", "test")
        },
        training_labels=_training_labels(model, made, labels),
    )


def _past_labels(labels: Labels, start: int, stop: int) -> tuple[LabelArray, Mask]:
    valid = np.flatnonzero(labels.valid)
    # Never falling among valid bars: the last one known by a bar is found by bisection.
    places = np.searchsorted(labels.known_at[valid], np.arange(start, stop), side="right") - 1
    known = places >= 0
    if not len(valid):
        return np.zeros_like(labels.values[start:stop]), known
    return labels.values[valid[np.maximum(places, 0)]], known


def _moves(base: Bars) -> FloatArray:
    return np.append(base.close[1:] / base.close[:-1] - 1.0, np.nan)


def _spans(model: LoadedModel, symbol: str, split: str) -> list[TrainingRange]:
    return [
        seen for seen in model.input_schema.seen if (seen.symbol, seen.split) == (symbol, split)
    ]


def _within(timestamps: IntArray, spans: Sequence[TrainingRange]) -> Mask:
    inside = np.zeros(len(timestamps), bool)
    for span in spans:
        inside |= (span.first <= timestamps) & (timestamps <= span.last)
    return inside


def _training_labels(model: LoadedModel, made: ModelInputs, labels: Labels) -> LabelArray:
    trained = _within(made.base.timestamps, _spans(model, made.base.symbol, "train"))
    trained[: made.first] = False
    chosen: LabelArray = labels.values[trained & labels.valid]
    return chosen
