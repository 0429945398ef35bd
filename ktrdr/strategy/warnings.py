"""Notes on settings of a strategy that have no effect on its training."""

from __future__ import annotations

from collections.abc import Iterator

from ktrdr.strategy.input_names import input_groups
from ktrdr.strategy.schema import Strategy
from ktrdr.strategy.training import Training

# Knobs of one loss: where another one is used, a value that is not the default was meant.
_KNOB_OF_LOSS = {"focal_gamma": "focal", "huber_delta": "huber"}


def notes(strategy: Strategy) -> list[str]:
    """One line each, in the order of the file."""
    return [*_unused(strategy), *_for_later(strategy), *_of_another_loss(strategy.training)]


def _unused(strategy: Strategy) -> Iterator[str]:
    groups = input_groups(strategy)
    shown = {group.timeframe for group in groups} | {strategy.base_timeframe}
    for timeframe in strategy.timeframes:
        if timeframe not in shown:
            yield f"training_data.timeframes: no input shows {timeframe}"
    computed = _sources(strategy, {group.reference.partition(".")[0] for group in groups})
    for indicator_id in strategy.indicators:
        if indicator_id not in computed:
            yield f"indicators.{indicator_id}: no input needs it"
    sets = {group.entry.fuzzy_set for group in groups}
    for set_id in strategy.fuzzy_sets:
        if set_id not in sets:
            yield f"fuzzy_sets.{set_id}: not among nn_inputs"


def _sources(strategy: Strategy, shown: set[str]) -> set[str]:
    """These indicators and all that they are computed from."""
    needed, left = set[str](), list(shown)
    while left:
        indicator_id = left.pop()
        if indicator_id in strategy.indicators and indicator_id not in needed:
            needed.add(indicator_id)
            source = strategy.indicators[indicator_id].series_source or ""
            left.append(source.partition(".")[0])
    return needed


def _for_later(strategy: Strategy) -> Iterator[str]:
    for key in strategy.decisions.model_dump(exclude_none=True, exclude={"output_format"}):
        yield f"decisions.{key}: stored with the model, not used in training"


def _of_another_loss(training: Training) -> Iterator[str]:
    for key, loss in _KNOB_OF_LOSS.items():
        if training.loss != loss and getattr(training, key) != Training.model_fields[key].default:
            yield f"training.{key}: only for loss {loss}, not used with {training.loss}"
