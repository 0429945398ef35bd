"""Which changes of a strategy a resume may accept: the rules, and that none is missing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from ktrdr.strategy.differences import (
    RULES,
    Difference,
    Progressed,
    differences,
    refusal,
    rules_markdown,
)
from ktrdr.strategy.loading import config, validate_strategy
from ktrdr.strategy.schema import Strategy
from ktrdr.strategy.training import Training

ROOT = Path(__file__).parents[2]


def progressed(old: Training, new: Training, begun: int = 3) -> Progressed:
    return Progressed(old, new, begun)


def judged(begun: int = 3, **edits: Any) -> dict[str, str | None]:
    """Edit the shipped strategy, `training__epochs=5` below `training`; None removes a key."""
    text = (ROOT / "strategies" / "mean_reversion.yaml").read_text()
    old, new = yaml.safe_load(text), yaml.safe_load(text)
    for name, value in edits.items():
        *folders, key = name.split("__")
        part = new
        for folder in folders:
            part = part.setdefault(folder, {})
        part.pop(key, None)
        if value is not None:
            part[key] = value
    before, after = validate_strategy(old, "old"), validate_strategy(new, "new")
    seen = progressed(before.training, after.training, begun)
    return {d.key: refusal(d, seen) for d in differences(config(before), config(after))}


@pytest.mark.parametrize(
    "edits",
    [
        {"training__epochs": 500},
        {"training__epochs": 3},
        {"training__learning_rate": 0.5},
        {"training__weight_decay": 0},
        {"training__gradient_clip": None},
        {"training__lr_scheduler": None},
        {"training__lr_scheduler": {"type": "cosine"}},
        {"training__lr_scheduler__patience": 1},
        {"training__early_stopping": {"patience": 2, "min_delta": 0.1}},
        {"training__checkpoint": {"every_epochs": 1}},
        {"model__architecture__dropout": 0.0},
        {"decisions": {"confidence_threshold": 0.5}},
    ],
    ids=lambda edits: next(iter(edits)),
)
def test_what_leaves_data_and_network_alone_is_accepted(edits: dict[str, Any]) -> None:
    found = judged(**edits)
    assert found
    assert set(found.values()) == {None}


@pytest.mark.parametrize(
    ("edits", "why"),
    [
        ({"training__epochs": 2}, "3 have begun already"),
        ({"training__batch_size": 64}, "counted in batches"),
        ({"training__seed": 1}, "every shuffle"),
        ({"training__optimizer": "adam"}, "state"),
        ({"training__loss": "cross_entropy"}, "could not be compared"),
        ({"training__focal_gamma": 1.0}, "could not be compared"),
        ({"training__early_stopping": {"monitor": "val_accuracy"}}, "was not kept"),
        ({"training__labels__zigzag_threshold": 0.03}, "data must be those"),
        ({"training__data_split": {"train": 0.6, "validation": 0.2, "test": 0.2}}, "data must be"),
        ({"training_data__history_required": 300}, "data must be"),
        ({"training_data__symbols__symbol": "OTHER"}, "data must be"),
        ({"indicators__rsi_7__period": 9}, "data must be"),
        ({"fuzzy_sets__stretch__low": [0, 1, 2]}, "data must be"),
        ({"nn_inputs": [{"fuzzy_set": "stretch"}]}, "data must be"),
        ({"model__architecture__hidden_layers": [3]}, "network as it was"),
        ({"model__architecture__activation": "relu"}, "network as it was"),
        ({"name": "other"}, "folder of the models"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_everything_else_is_refused_with_the_reason(edits: dict[str, Any], why: str) -> None:
    found = judged(**edits)
    assert found
    assert all(reason and why in reason for reason in found.values()), found


def test_momentum_changes_only_where_there_was_some_and_will_be() -> None:
    def of(old: float, new: float) -> str | None:
        before, after = (Training(optimizer="sgd", momentum=m) for m in (old, new))
        return refusal(Difference("training.momentum", old, new), progressed(before, after))

    assert of(0.5, 0.9) is None
    assert "optimizer state" in str(of(0.0, 0.9))
    assert "optimizer state" in str(of(0.9, 0.0))


def test_focal_gamma_changes_where_accuracy_chooses_the_best_epoch() -> None:
    stopping: Any = {"monitor": "val_accuracy"}
    old = Training(loss="focal", early_stopping=stopping)
    new = Training(loss="focal", early_stopping=stopping, focal_gamma=1.0)
    assert refusal(Difference("training.focal_gamma", 2.0, 1.0), progressed(old, new)) is None


def test_descriptions_are_no_difference() -> None:
    assert judged(description="other words", scope="wider") == {}


def test_every_key_of_a_strategy_has_a_rule() -> None:
    ruled = {rule.key for rule in RULES} | {"description", "scope", "version"}
    top = set(Strategy.model_fields) - {"training"}
    training = {f"training.{name}" for name in Training.model_fields}
    assert {key for key in top | training if key not in ruled} == set()


def test_what_differs_in_an_input_is_told_by_its_own_key() -> None:
    names = ("stretch", "market", "short_change", "long_change")
    inputs: list[dict[str, Any]] = [{"fuzzy_set": name} for name in names]
    inputs[2]["timeframes"] = ["1h"]
    found = judged(nn_inputs=inputs)
    assert list(found) == ["nn_inputs.2.timeframes"]
    assert all(reason and "data must be" in reason for reason in found.values())


def test_an_unknown_key_is_refused() -> None:
    training = Training()
    assert refusal(Difference("later.key", 1, 2), progressed(training, training)) is not None


def test_a_difference_is_short() -> None:
    assert str(Difference("a.b", None, "x")) == "a.b none -> x"
    assert str(Difference("a.b", 0.002, 0.003)) == "a.b 0.002 -> 0.003"
    assert len(str(Difference("a", list(range(1000)), {"x": "y" * 1000}))) < 140


def test_the_page_shows_the_rules() -> None:
    page = (ROOT / "docs" / "resume.md").read_text(encoding="utf-8")
    for table in rules_markdown():
        assert table in page
