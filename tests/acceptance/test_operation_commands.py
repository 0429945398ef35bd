"""`operations list`, `why` and `delete`, as a user meets them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from running import Run
from stopped_training import BATCHES, Site, make_site

UNKNOWN = "op_training_20200101_000000_0123abcd"


@pytest.fixture
def site(home: Path) -> Iterator[Site]:
    site = make_site(home)
    with site.client:
        yield site


def folders(site: Site) -> list[str]:
    return [path.name for path in (site.client.settings.storage / "operations").iterdir()]


def test_a_deleted_operation_is_gone_with_its_folder(site: Site, ktrdr: Run) -> None:
    gone, stays = site.stopped(BATCHES + 1), site.stopped(BATCHES + 2)
    ran = ktrdr("operations", "delete", gone.id, "--json")
    assert (ran.status, ran.err) == (0, "")
    assert ran.document == {"operation_id": gone.id, "deleted": True}
    assert folders(site) == [stays.id]
    for words in (("delete",), ("status",), ("why",), ("events",)):
        again = ktrdr("operations", *words, gone.id, "--json")
        assert (again.status, again.error["code"]) == (3, "OPERATION_NOT_FOUND")
    listed = ktrdr("operations", "list", "--json").document
    assert ([o["operation_id"] for o in listed["operations"]], listed["total"]) == ([stays.id], 1)
    assert ktrdr("checkpoints", "cleanup", "--json").document["orphans"] == []


def test_what_runs_or_is_unknown_is_not_deleted(site: Site, ktrdr: Run) -> None:
    operation = site.submit()
    ran = ktrdr("operations", "delete", operation.id, "--json")
    assert (ran.status, ran.error["code"]) == (4, "OPERATION_RUNNING")
    assert f"ktrdr operations cancel {operation.id}" in ran.error["message"]
    assert ktrdr("operations", "delete", UNKNOWN).status == 3
    assert ktrdr("operations", "delete", "../x").status == 2
    assert operation.record()["status"] == "running"


def test_lists_are_filtered_paged_and_counted(site: Site, ktrdr: Run) -> None:
    ids = [site.submit().id for _ in range(3)]
    name = site.client.operation(ids[0]).record()["request"]["strategy_name"]
    words = ("operations", "list", "--strategy", name, "--status", "running", "--json")
    whole = ktrdr(*words).document
    assert {o["operation_id"] for o in whole["operations"]} == set(ids)
    pages = [ktrdr(*words, "--limit", "2", "--offset", str(n)) for n in (0, 2, 4)]
    assert [len(page.document["operations"]) for page in pages] == [2, 1, 0]
    assert [page.document["total"] for page in pages] == [3, 3, 3]
    shown = [o["operation_id"] for page in pages for o in page.document["operations"]]
    assert shown == [o["operation_id"] for o in whole["operations"]]
    assert "of 3" in pages[0].err
    assert ktrdr(*words[:3], "another", "--json").document == {"operations": [], "total": 0}
    assert ktrdr(*words[:3], "../x", "--json").status == 2
    for wrong in (("--limit", "0"), ("--offset", "-1"), ("--limit", "x")):
        assert ktrdr("operations", "list", *wrong, "--json").error["code"] == "USAGE"


def test_why_tells_the_chain_and_what_to_do_next(site: Site, ktrdr: Run) -> None:
    operation = site.stopped(BATCHES + 1)
    ran = ktrdr("operations", "why", operation.id, "--json")
    assert (ran.status, ran.err) == (0, "")
    document = ran.document
    assert set(document) == {"operation_id", "status", "lost", "chain", "next"}
    assert all(set(link) == {"at", "attempt", "event", "text"} for link in document["chain"])
    assert document["chain"][-1]["text"].startswith("attempt 1 stopped at a batch boundary")
    assert document["next"] == f"ktrdr operations resume {operation.id}"
    shown = ktrdr("operations", "why", operation.id).out
    assert document["chain"][-1]["text"] in shown
    assert shown.endswith(f"next: {document['next']}\n")
