"""The network's inputs in their order, and their names."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from ktrdr.strategy.inputs import NetworkInput
from ktrdr.strategy.memberships import FuzzySet
from ktrdr.strategy.schema import Strategy


@dataclass(frozen=True)
class InputGroup:
    """What one entry of `nn_inputs` shows at one timeframe."""

    timeframe: str
    entry: NetworkInput
    fuzzy_set: FuzzySet | None
    """None for a raw indicator."""

    @property
    def name(self) -> str:
        return f"{self.timeframe}_{self.entry.name}"

    @property
    def reference(self) -> str:
        """The indicator, or its output, whose values are shown."""
        return self.entry.name if self.fuzzy_set is None else self.fuzzy_set.indicator

    @property
    def input_names(self) -> tuple[str, ...]:
        """`{timeframe}_{fuzzy_set}_{membership}` each, or `{timeframe}_{raw}_raw`."""
        if self.fuzzy_set is None:
            return (f"{self.name}_raw",)
        return tuple(f"{self.name}_{membership}" for membership in self.fuzzy_set.order)


def input_groups(strategy: Strategy) -> tuple[InputGroup, ...]:
    """Entry by entry in the strategy's order, each at its timeframes in the strategy's order."""
    return tuple(
        InputGroup(timeframe, entry, strategy.fuzzy_sets.get(entry.fuzzy_set or ""))
        for entry in strategy.nn_inputs
        for timeframe in strategy.timeframes
        if entry.timeframes == "all" or timeframe in entry.timeframes
    )


def name_problems(strategy: Strategy) -> list[tuple[str, str]]:
    """Inputs that would be called alike, as paths and messages."""
    groups = input_groups(strategy)
    counts = Counter(name for group in groups for name in group.input_names)
    if strategy.model.type == "neuro_fuzzy":  # which takes a set as one column, named by the set
        counts += Counter(group.name for group in groups if group.fuzzy_set)
    return [
        ("nn_inputs", f"{count} inputs would be called {name}: rename a fuzzy set or membership")
        for name, count in counts.items()
        if count > 1
    ]
