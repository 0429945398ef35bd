"""Columns of the input matrix: their names, and the memberships of crisp ones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ktrdr.strategy.memberships import Membership


@dataclass(frozen=True)
class InputColumn:
    """A network input: the column's name, and for a crisp one the curves to grade it by.

    Without `memberships` a column is what the network takes as it is: one membership's grade, or a
    raw indicator. With them it is an indicator's own value, unscaled, that `neuro_fuzzy` grades
    itself: `memberships` are names and curves in the order of the fuzzy set.
    """

    name: str
    memberships: tuple[tuple[str, Membership], ...] = ()

    def as_json(self) -> dict[str, Any]:
        """Plain JSON; numbers come back from it to the last bit."""
        return {
            "name": self.name,
            "memberships": [
                {"name": name, **curve.model_dump(mode="json")} for name, curve in self.memberships
            ],
        }

    @classmethod
    def from_json(cls, data: Any) -> InputColumn:
        """What `as_json` gave; ValueError for anything else."""
        content = _named(data)
        memberships = content.get("memberships")
        if not isinstance(memberships, list):
            raise ValueError("a column has a list of memberships")
        return cls(content["name"], tuple(map(_membership, memberships)))


def _membership(data: Any) -> tuple[str, Membership]:
    content = dict(_named(data))
    return content.pop("name"), Membership.model_validate(content)


def _named(data: Any) -> Mapping[str, Any]:
    if not isinstance(data, Mapping) or not isinstance(data.get("name"), str):
        raise ValueError("columns and memberships have names")
    return data
