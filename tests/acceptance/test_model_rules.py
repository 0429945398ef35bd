"""`ktrdr models rules`: the rules of a stored model as text, as JSON and as a picture."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from running import Run
from stopped_training import Site, make_site
from trained_model import complete

from ktrdr.client import Operation
from ktrdr.errors import OutputLost
from ktrdr.features.columns import InputColumn
from ktrdr.features.dataset import Dataset, Splits
from ktrdr.reports.plots import write_png
from ktrdr.storage.root import Storage
from ktrdr.strategy.loading import validate_strategy
from ktrdr.strategy.memberships import Membership
from ktrdr.training.context import LocalContext
from ktrdr.training.plan import planned_job
from ktrdr.training.trainer import Completed, fit

PNG = b"\x89PNG\r\n\x1a\n"
RULES = 6


def small_dataset() -> Dataset:
    """A class by where the two inputs are; the third is none that rules are made of."""
    random = np.random.default_rng(5)
    inputs = random.random((400, 3), dtype=np.float32)
    labels = np.digitize(inputs[:, 0] - inputs[:, 1], [-0.2, 0.2]).astype(np.int64)
    three = ("low", [-0.5, 0, 0.5]), ("middle", [0, 0.5, 1]), ("high", [0.5, 1, 1.5])
    two = ("weak", [-1, 0, 1]), ("strong", [0, 1, 2])
    curves = [tuple((n, Membership.model_validate(p)) for n, p in own) for own in (three, two)]
    return Dataset(
        inputs=inputs,
        labels=labels,
        timestamps=np.arange(400, dtype=np.int64),
        columns=(
            InputColumn("1h_momentum", curves[0]),
            InputColumn("1h_trend", curves[1]),
            InputColumn("1h_volume_raw"),
        ),
        class_names=("BUY", "HOLD", "SELL"),
        splits=Splits(range(240), range(240, 320), range(320, 400)),
        digest="d" * 64,
    )


def train(site: Site, operation: Operation, dataset: Dataset) -> None:
    """A training to its end, with these rows in place of the bars'."""
    row = site.row(operation)
    storage = Storage(Path(row.plan.storage))
    strategy = validate_strategy(row.plan.config, "the plan")
    job = planned_job(row.request, row.plan, strategy, dataset)
    outcome = fit(job, dataset, LocalContext(storage, row.operation_id, row.attempt), None)
    assert isinstance(outcome, Completed)
    complete(site.service, storage, row, (job, dataset, outcome))


@pytest.fixture
def site(home: Path) -> Site:
    """A store with two models: fuzzy, with rules, and plain, without."""
    site = make_site(home, epochs=2, batch_size=64, learning_rate=0.05)
    site.edit(name="fuzzy", model={"type": "neuro_fuzzy"})
    train(site, site.submit(), small_dataset())
    site.edit(name="plain", model={"type": "mlp"})
    train(site, site.submit(), small_dataset())
    return site


@pytest.mark.usefixtures("site")
def test_rules_are_printed_the_weightiest_first(ktrdr: Run) -> None:
    ran = ktrdr("models", "rules", "fuzzy", "--json")
    assert (ran.status, ran.err) == (0, "")
    document = ran.document
    assert document.keys() == {"rules", "total"}
    rules = document["rules"]
    assert document["total"] == len(rules) == RULES
    weights = [rule["weight"] for rule in rules]
    assert weights == sorted(weights, reverse=True)
    assert len(set(weights)) > 1
    assert "IF 1h_momentum IS low AND 1h_trend IS strong THEN BUY" in {r["text"] for r in rules}
    assert all(set(rule["contributions"]) == {"BUY", "HOLD", "SELL"} for rule in rules)
    assert {name for rule in rules for name in rule["strongest"]} == {
        "1h_momentum",
        "1h_trend",
        "1h_volume_raw",
    }

    lines = ktrdr("models", "rules", "fuzzy@v1").out.splitlines()
    assert lines[0].split() == ["WEIGHT", "SUPPORT", "RULE", "STRONGEST", "INPUTS"]
    assert [rule["text"] in line for rule, line in zip(rules, lines[1:], strict=True)] == [True] * 6

    ran = ktrdr("models", "rules", "fuzzy", "--top", "2", "--json")
    assert ran.document == {"rules": rules[:2], "total": RULES}
    assert ktrdr("models", "rules", "fuzzy", "--top", "2").out.splitlines()[3] == "2 of 6 rules"


@pytest.mark.usefixtures("site")
def test_memberships_are_drawn(ktrdr: Run, tmp_path: Path) -> None:
    picture = tmp_path / "memberships.png"
    picture.write_bytes(b"an older one")
    ran = ktrdr("models", "rules", "fuzzy", "--plot", str(picture), "--json")
    assert ran.status == 0
    assert ran.document["total"] == RULES
    assert ran.err == f"memberships drawn to {picture}\n"
    data = picture.read_bytes()
    assert data.startswith(PNG)
    assert len(data) > 10_000
    assert [path.name for path in tmp_path.glob("*.png*")] == [picture.name]
    assert not list(tmp_path.glob(".*"))


@pytest.mark.usefixtures("site")
@pytest.mark.parametrize(
    ("words", "status", "code", "said"),
    [
        (["plain"], 2, "USAGE", "plain is of type mlp, which has no rules: models of type neuro"),
        (["fuzzy@v7"], 3, "MODEL_NOT_FOUND", "fuzzy"),
        (["fuzzy", "--top", "0"], 2, "USAGE", "--top"),
        (["fuzzy", "--plot", "."], 2, "USAGE", "is a folder: name a file in it"),
        (["fuzzy", "--plot", "x.pdf"], 2, "USAGE", "ends in .png"),
        (["fuzzy", "--plot", "nowhere/x.png"], 2, "USAGE", "there is no folder 'nowhere'"),
        (["fuzzy", "--plot", "x" * 999 + ".png"], 1, "OUTPUT_LOST", "File name too long"),
        (["plain", "--plot", "x.png"], 2, "USAGE", "has no rules"),
        (["fuzzy", "--plot", "y" * 252 + ".png"], 1, "OUTPUT_LOST", "cannot write the plot to yyy"),
    ],
)
def test_what_cannot_be_shown_or_drawn_is_one_line(
    ktrdr: Run,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    words: list[str],
    status: int,
    code: str,
    said: str,
) -> None:
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    ran = ktrdr("models", "rules", *words, "--json")
    assert (ran.status, ran.error["code"]) == (status, code)
    assert said in ran.error["message"]
    assert ran.err == f"error: {ran.error['message']}\n"
    assert not list(here.iterdir())


def test_a_picture_that_cannot_be_put_in_its_place_leaves_nothing(tmp_path: Path) -> None:
    from matplotlib.figure import Figure

    folder = tmp_path / "taken.png"
    folder.mkdir()
    with pytest.raises(OutputLost, match=r"cannot write the plot to .*taken\.png"):
        write_png(Figure(), folder)
    assert list(tmp_path.iterdir()) == [folder]
