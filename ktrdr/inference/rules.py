"""The rules and membership curves of a trained rule base, readable for people."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ktrdr.errors import Usage
from ktrdr.features.columns import InputColumn
from ktrdr.inference.model import LoadedModel
from ktrdr.strategy.memberships import Membership
from ktrdr.training.networks.neuro_fuzzy import NeuroFuzzyNetwork

_VALUE = "value"
_NUM_STRONGEST = 3


@dataclass(frozen=True)
class FuzzyRule:
    """A rule; what it says holds where it fires alone.

    `weight` is what its firing counts beside the others', 1 before training. `support` is its mean
    share of the output on the training rows, before training. `contributions` are the logit of
    each class, or the value, that it concludes where it fired on average; `strongest` are the
    inputs that change its conclusion most, each with the change per standard deviation (none where
    conclusions are constant).
    """

    number: int
    conditions: tuple[tuple[str, str], ...]
    conclusion: str
    weight: float
    support: float
    contributions: tuple[tuple[str, float], ...]
    strongest: tuple[tuple[str, float], ...]

    @property
    def text(self) -> str:
        conditions = " AND ".join(f"{name} IS {membership}" for name, membership in self.conditions)
        return f"IF {conditions} THEN {self.conclusion}"

    def as_json(self) -> dict[str, Any]:
        return {
            "number": self.number,
            "text": self.text,
            "conditions": [
                {"input": name, "membership": membership} for name, membership in self.conditions
            ],
            "conclusion": self.conclusion,
            "weight": self.weight,
            "support": self.support,
            "contributions": dict(self.contributions),
            "strongest": dict(self.strongest),
        }


@dataclass(frozen=True)
class MovedCurve:
    """A membership as the strategy says, and as training left it."""

    name: str
    before: Membership
    after: Membership


@dataclass(frozen=True)
class FuzzyInput:
    name: str
    curves: tuple[MovedCurve, ...]


def rules_of(model: LoadedModel) -> list[FuzzyRule]:
    """The rules of a stored model; Usage where its type has none."""
    return read_rules(_rule_base(model), model.columns, model.class_names)


def inputs_of(model: LoadedModel) -> list[FuzzyInput]:
    """The fuzzy inputs of a stored model; Usage where its type has none."""
    return read_inputs(_rule_base(model), model.columns)


def read_rules(
    module: NeuroFuzzyNetwork, columns: Sequence[InputColumn], class_names: Sequence[str]
) -> list[FuzzyRule]:
    """All rules, the weightiest first; of equal weights those with more support.

    `class_names` is empty for a regression.
    """
    names = tuple(class_names) or (_VALUE,)
    fuzzy = [column for column in columns if column.memberships]
    weights, support = module.weights.tolist(), module.support.tolist()
    rules = []
    for place, members in enumerate(module.rules.tolist()):
        contributions = module.constants[place].tolist()
        best = max(range(len(names)), key=contributions.__getitem__)
        rules.append(
            FuzzyRule(
                number=place + 1,
                conditions=tuple(
                    (column.name, column.memberships[member][0])
                    for column, member in zip(fuzzy, members, strict=True)
                ),
                conclusion=names[best] if class_names else f"{contributions[0]:+.4g}",
                weight=weights[place],
                support=support[place],
                contributions=tuple(zip(names, contributions, strict=True)),
                strongest=_strongest(module.slopes, place, best, columns),
            )
        )
    return sorted(rules, key=lambda rule: (-rule.weight, -rule.support, rule.number))


def read_inputs(module: NeuroFuzzyNetwork, columns: Sequence[InputColumn]) -> list[FuzzyInput]:
    """The fuzzy inputs in their order, each with its curves in the order of the fuzzy set."""
    curves = zip(module.curves.before(), module.curves.after(), strict=True)
    return [
        FuzzyInput(
            column.name,
            tuple(MovedCurve(name, *next(curves)) for name, _ in column.memberships),
        )
        for column in columns
        if column.memberships
    ]


def _rule_base(model: LoadedModel) -> NeuroFuzzyNetwork:
    module: nn.Module = model.module
    if not isinstance(module, NeuroFuzzyNetwork):
        raise Usage(
            f"{model.strategy.name} is of type {model.strategy.model.type}, which has no rules:"
            " models of type neuro_fuzzy have"
        )
    return module


def _strongest(
    slopes: Tensor | None, rule: int, output: int, columns: Sequence[InputColumn]
) -> tuple[tuple[str, float], ...]:
    if slopes is None:
        return ()
    own = slopes[rule, output].detach()
    order = torch.argsort(own.abs(), descending=True, stable=True)[:_NUM_STRONGEST]
    return tuple((columns[place].name, own[place].item()) for place in order.tolist())
