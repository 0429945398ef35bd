"""Homes of older versions: opened, listed, used and resumed by this one, on either database."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from old_homes import OldHome, copied
from stopped_training import Site
from store_bench import SHARED_STORES, database

from ktrdr.client import Client, Operation
from ktrdr.cluster import local
from ktrdr.errors import CheckpointNotFound
from ktrdr.operations.types import Owner, OwnerKind
from ktrdr.usecases import resume

SCHEMAS = ("0003",)
LOST = ("lost", "lost_before_start", "lost_on_cluster")
WITH_CHECKPOINT = ("cancelled", "failed", "lost", "lost_on_cluster")
WITHOUT_CHECKPOINT = ("cancelled_before_start", "lost_before_start")
DEADLINE_S = 240.0
OWNER = Owner("local-of-this-test", OwnerKind.LOCAL)

Record = dict[str, Any]
Old = tuple[OldHome, Client]


@pytest.fixture(params=[(s, store) for s in SCHEMAS for store in SHARED_STORES], ids="-".join)
def old(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Old]:
    """An old home, and a client of today on it."""
    schema, store = request.param
    with database(store, tmp_path) as url:
        home = copied(schema, tmp_path / "copy", url if store == "postgres" else None)
        with home.opened() as client:
            yield home, client


def test_it_says_what_the_version_that_made_it_said(old: Old) -> None:
    home, client = old
    records, total = client.operations()
    assert total == len(home.expected["operations"])
    for record in records:
        before = home.expected["records"][record["operation_id"]]
        assert said_before(record, before) == before
        operation = client.operation(record["operation_id"])
        assert operation.history() == home.expected["history"][operation.id]
        assert operation.events() == home.expected["events"][operation.id]
    assert client.models() == home.expected["models"]


def test_its_database_file_is_sound_after_the_migrations(tmp_path: Path) -> None:
    """One of them writes the text of a CHECK into SQLite's own schema."""
    home = copied(SCHEMAS[0], tmp_path / "copy")
    with home.opened() as client:
        assert client.operations()[1] == len(home.expected["operations"])
    with closing(sqlite3.connect(home.settings.home / "ktrdr.db")) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert connection.execute("PRAGMA foreign_key_check").fetchall() == []


def test_what_no_process_runs_any_more_is_lost(old: Old) -> None:
    home, client = old
    lost = {record["operation_id"] for record in client.operations()[0] if record["lost"]}
    assert lost == {home.id(name) for name in LOST}


def test_its_model_predicts_as_before(old: Old) -> None:
    home, client = old
    frame = client.load_model("tiny").predict(client.bars.read("SAMPLE", "1h"))
    before = np.array(home.expected["predictions"], dtype=np.float32)
    now = frame.drop("timestamp").tail(len(before)).to_numpy()
    np.testing.assert_allclose(now, before, rtol=1e-5)
    if home.made_in_this_environment:
        assert now.tobytes() == np.ascontiguousarray(before).tobytes()


@pytest.mark.parametrize("name", WITH_CHECKPOINT)
def test_what_has_a_checkpoint_resumes_to_the_same_model(old: Old, name: str) -> None:
    home, client = old
    operation = client.operation(home.id(name))
    assert all(found["good"] for found in operation.verify_checkpoints())
    held = operation.history()
    resumed_from = claimed(operation, client)["resumed_from"]
    outcome = Site(client, home.settings.home / "tiny.yaml").completed(operation)
    history = operation.history()
    assert [row["epoch"] for row in history] == list(range(1, 61))
    assert history[: resumed_from["epoch"]] == held[: resumed_from["epoch"]]
    if home.made_in_this_environment:
        assert outcome.weights_digest == home.straight["result"]["weights_digest"]
        assert outcome.metrics == home.straight["result"]["metrics"]
        assert without_duration(history) == without_duration(home.straight["history"])


@pytest.mark.parametrize("name", WITHOUT_CHECKPOINT)
def test_what_has_no_checkpoint_says_how_to_train_it_again(old: Old, name: str) -> None:
    home, client = old
    operation = client.operation(home.id(name))
    with pytest.raises(CheckpointNotFound, match="ktrdr operations rerun"):
        claimed(operation, client)
    assert operation.cancel()["status"] == "cancelled"


@pytest.mark.ray
@pytest.mark.timeout(500)
@pytest.mark.parametrize("schema", SCHEMAS)
def test_a_cluster_of_today_resumes_it(schema: str, tmp_path: Path) -> None:
    """To what this process makes of the same checkpoints, and to the straight run's model.

    The latter only where the processor is that of the version before: half a training is its.
    """
    home, twin = copied(schema, tmp_path / "copy"), copied(schema, tmp_path / "twin")
    forget_history(home, home.id("failed"), epochs=(3, 20))
    with cluster_of(home) as client, twin.opened() as beside:
        straight = client.operation(home.id("cancelled_before_start")).rerun()
        resumed = [client.operation(home.id(name)) for name in WITH_CHECKPOINT]
        for operation in resumed:
            operation.resume()
        model = finished(straight)
        if home.made_in_this_environment:
            assert model == essence(home.straight["result"], home.straight["history"])
        for operation in resumed:
            made = finished(operation)
            assert made == continued_here(twin, beside, operation.id)
            if home.made_in_this_environment:
                assert made == model
                # The version before did not record how MKL rounds: it is not known to be the same.
                differences = operation.record()["resumed_from"]["differences"]
                assert differences == ["mkl_cbwr: unknown -> AVX2,STRICT"]


@contextmanager
def cluster_of(home: OldHome) -> Iterator[Client]:
    """A client of a home whose local cluster is ended afterwards."""
    with home.opened() as client:
        try:
            yield client
        finally:
            local.stop(home.settings, lambda: client.service)


def forget_history(home: OldHome, operation_id: str, epochs: tuple[int, int]) -> None:
    """Leave the hole that an adopted checkpoint left whose epochs were never reported."""
    with closing(sqlite3.connect(home.settings.home / "ktrdr.db")) as connection, connection:
        hole = "DELETE FROM history WHERE operation_id = ? AND epoch BETWEEN ? AND ?"
        connection.execute(hole, (operation_id, *epochs))


def claimed(operation: Operation, client: Client) -> Record:
    """Resume an operation for this process, which is no cluster and starts none."""
    service, options = client.service, resume.ResumeOptions()
    resume.claim(service, client.store_id(), lambda: OWNER, operation.id, options)
    return operation.record()


def finished(operation: Operation) -> Record:
    record = operation.wait(DEADLINE_S)
    assert record["status"] == "completed", record["error"]
    return essence(record["result"], operation.history())


def continued_here(home: OldHome, client: Client, operation_id: str) -> Record:
    """Resume an operation in this process, without a cluster."""
    operation = client.operation(operation_id)
    claimed(operation, client)
    outcome = Site(client, home.settings.home / "tiny.yaml").completed(operation)
    return essence(vars(outcome), operation.history())


def essence(result: Record, history: list[Record]) -> Record:
    """What is equal, bit for bit, where two trainings make the same model."""
    names = ("weights_digest", "epochs", "best_epoch", "metrics")
    return {**{name: result[name] for name in names}, "history": without_duration(history)}


def without_duration(history: list[Record]) -> list[Record]:
    return [{name: value for name, value in row.items() if name != "duration"} for row in history]


def said_before(now: Any, before: Any) -> Any:
    """As much of a record as the version before knew; who lives may have changed since."""
    if not isinstance(before, dict):
        return now
    return {
        name: value if name == "alive" else said_before(now[name], value)
        for name, value in before.items()
    }
