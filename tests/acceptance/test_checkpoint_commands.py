"""`checkpoints verify`, `delete` and `cleanup`: what they find, remove, and leave alone."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from running import Run
from stopped_training import BATCHES, Site, make_site

from ktrdr.client import Operation

UNKNOWN = "op_training_20200101_000000_0123abcd"


@pytest.fixture
def site(home: Path) -> Iterator[Site]:
    site = make_site(home)
    with site.client:
        yield site


@pytest.fixture
def stopped(site: Site) -> Operation:
    return site.stopped(2 * BATCHES + 3)


def newest(operation: Operation) -> Path:
    return Path(operation.checkpoints()[-1]["path"])


def states(document: Any) -> list[dict[str, str]]:
    return [{f["name"]: f["state"] for f in c["files"]} for c in document["checkpoints"]]


def test_verify_looks_at_every_file_of_every_checkpoint(stopped: Operation, ktrdr: Run) -> None:
    ran = ktrdr("checkpoints", "verify", stopped.id, "--json")
    assert (ran.status, ran.err) == (0, "")
    assert ran.document["total"] == len(stopped.checkpoints()) >= 2
    for checkpoint, found in zip(ran.document["checkpoints"], states(ran.document), strict=True):
        on_disk = {path.name for path in Path(checkpoint["path"]).iterdir()}
        assert found == dict.fromkeys(on_disk, "ok")
        assert checkpoint["good"] is True

    folder = newest(stopped)
    (folder / "model.pt").write_bytes(b"rubbish")
    (folder / "optimizer.pt").unlink()
    ran = ktrdr("checkpoints", "verify", stopped.id, "--json")
    assert ran.status == 5
    assert [c["good"] for c in ran.document["checkpoints"]][-2:] == [True, False]
    bad = {name: state for name, state in states(ran.document)[-1].items() if state != "ok"}
    assert bad == {"model.pt": "wrong", "optimizer.pt": "missing"}
    assert len(ran.err.splitlines()) == 1

    shown = ktrdr("checkpoints", "verify", stopped.id)
    assert shown.status == 5
    assert "7 bytes instead of" in shown.out
    shutil.rmtree(folder)
    assert str(folder) in ktrdr("checkpoints", "verify", stopped.id).out


def test_verify_without_a_storage_finds_nothing_wrong(
    stopped: Operation, site: Site, ktrdr: Run
) -> None:
    root = site.client.settings.storage
    os.rename(root, root.with_name("unmounted"))
    root.mkdir()
    ran = ktrdr("checkpoints", "verify", stopped.id, "--json")
    assert (ran.status, ran.error["code"]) == (6, "STORAGE_UNAVAILABLE")
    root.rmdir()
    os.rename(root.with_name("unmounted"), root)
    assert ktrdr("checkpoints", "verify", stopped.id).status == 0
    assert [c["unusable"] for c in stopped.checkpoints()] == [None] * len(stopped.checkpoints())


def test_a_resume_passes_over_what_verify_found_and_only_then_flags_it(
    stopped: Operation, site: Site, ktrdr: Run
) -> None:
    (newest(stopped) / "loop.pt").write_bytes(b"rubbish")
    *_, good, bad = stopped.checkpoints()  # which are there depends on how busy the disk was
    assert ktrdr("checkpoints", "verify", stopped.id).status == 5
    strategy = site.strategy.read_text()
    site.strategy.unlink()
    assert ktrdr("operations", "resume", stopped.id, "--json").error["code"] == "STRATEGY_NOT_FOUND"
    assert stopped.checkpoints()[-1]["unusable"] is None
    site.strategy.write_text(strategy)
    record = stopped.resume()
    source = record["resumed_from"]
    assert (source["epoch"], source["batch"]) == (good["epoch"], good["batch"])
    flagged = [c for c in stopped.checkpoints() if c["unusable"]]
    assert [c["id"] for c in flagged] == [bad["id"]]
    [event] = [e for e in stopped.events() if e["event"] == "resumed"]
    assert [p["id"] for p in event["details"]["passed_over"]] == [bad["id"]]


def test_with_no_good_checkpoint_left_a_resume_names_what_is_wrong(
    stopped: Operation, ktrdr: Run
) -> None:
    for checkpoint in stopped.checkpoints():
        (Path(checkpoint["path"]) / "model.pt").unlink()
    before = stopped.record(), stopped.events()
    ran = ktrdr("operations", "resume", stopped.id, "--json")
    assert (ran.status, ran.error["code"]) == (5, "CHECKPOINT_CORRUPTED")
    assert "model.pt: missing" in ran.error["message"]
    assert set(ran.error["details"]["checkpoints"]) == {
        str(Path(c["path"]).relative_to(Path(c["path"]).parents[3])) for c in stopped.checkpoints()
    }
    assert (stopped.record(), stopped.events()) == before


def test_deleted_checkpoints_are_gone_and_a_resume_says_so(
    stopped: Operation, site: Site, ktrdr: Run
) -> None:
    going = site.submit()
    number = len(stopped.checkpoints())
    folder = newest(stopped).parents[1]
    refused = ktrdr("checkpoints", "delete", going.id, "--json")
    assert (refused.status, refused.error["code"]) == (4, "OPERATION_RUNNING")
    ran = ktrdr("checkpoints", "delete", stopped.id, "--json")
    assert ran.document == {"operation_id": stopped.id, "deleted": number}
    assert not folder.exists()
    assert ktrdr("checkpoints", "show", stopped.id, "--json").document["total"] == 0
    assert ktrdr("checkpoints", "delete", stopped.id).status == 0
    ran = ktrdr("operations", "resume", stopped.id, "--json")
    assert (ran.status, ran.error["code"]) == (3, "CHECKPOINT_NOT_FOUND")
    assert ktrdr("checkpoints", "delete", UNKNOWN).status == 3
    assert ktrdr("checkpoints", "verify", UNKNOWN).status == 3


def test_cleanup_removes_orphans_only_when_told_twice(
    stopped: Operation, site: Site, ktrdr: Run
) -> None:
    storage = site.client.settings.storage
    orphan = storage / "operations" / UNKNOWN
    (orphan / "attempt-0001").mkdir(parents=True)
    kept = {path for path in storage.rglob("*") if orphan not in (path, *path.parents)}
    for words in ([], ["--orphans"], ["--older-than", "30d"], ["--older-than", "1w", "--orphans"]):
        ran = ktrdr("checkpoints", "cleanup", *words, "--json")
        assert ran.status == 0
        [listed] = ran.document["orphans"]
        assert (listed["path"], listed["removed"]) == (str(orphan), False)
        assert "--yes" in ran.err
    assert ktrdr("checkpoints", "cleanup", "--yes").status == 2
    ran = ktrdr("checkpoints", "cleanup", "--orphans", "--yes", "--json")
    assert [o["removed"] for o in ran.document["orphans"]] == [True]
    assert set(storage.rglob("*")) == kept
    assert ktrdr("checkpoints", "verify", stopped.id).status == 0


def test_cleanup_expires_what_ended_longer_ago(stopped: Operation, ktrdr: Run) -> None:
    number = len(stopped.checkpoints())
    for wrong in ("30", "d", "-1d", "1y", "1.5d", ""):
        assert ktrdr("checkpoints", "cleanup", "--older-than", wrong).status == 2
    ran = ktrdr("checkpoints", "cleanup", "--older-than", "1h", "--json")
    assert (ran.document["expired"], ran.document["removed"]) == ([], 0)
    ran = ktrdr("checkpoints", "cleanup", "--older-than", "0s", "--json")
    assert (ran.document["expired"], ran.document["removed"]) == ([stopped.id], number)
    assert stopped.record()["checkpoint"] is None


def test_cleanup_of_a_home_without_anything(ktrdr: Run, home: Path) -> None:
    ran = ktrdr("checkpoints", "cleanup", "--json")
    assert (ran.status, ran.document["total"]) == (0, 0)
    assert not (home / "storage").exists()
