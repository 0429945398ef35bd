"""A checkpoint on storage: whole or not there, and every kind of damage is found and named."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from ktrdr.checkpoints.adoption import found
from ktrdr.checkpoints.layout import attempt_folder
from ktrdr.checkpoints.manifest import Header, Manifest, NotAManifest, decode, encode, list_files
from ktrdr.checkpoints.retention import remove_doomed, sweep
from ktrdr.checkpoints.verify import (
    inspect_rows,
    latest_good,
    read_checkpoint,
)
from ktrdr.checkpoints.write import write_checkpoint
from ktrdr.errors import (
    CheckpointCorrupted,
    CheckpointNotFound,
    StorageUnavailable,
    StoreMismatch,
)
from ktrdr.operations.types import Checkpoint, CheckpointType, NewCheckpoint
from ktrdr.storage.posix import Files
from ktrdr.storage.root import MARKER, Storage

OPERATION = "op_training_20260101_000000_0123abcd"
FILES = {"model.pt": b"weights" * 50, "optimizer.pt": b"moments" * 90, "loop.pt": b"position"}


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    storage = Storage(tmp_path / "storage")
    storage.claim("store-1")
    return storage


def header(number: int = 1, **changes: Any) -> Header:
    fields: dict[str, Any] = {
        "operation_id": OPERATION,
        "attempt": 1,
        "number": number,
        "epoch": 3,
        "batch": 7,
        "checkpoint_type": CheckpointType.PERIODIC,
        "weights_digest": hashlib.sha256(str(number).encode()).hexdigest(),
        "is_best": False,
        "created_at": datetime(2026, 1, 2, 3, 4, 5, 678900, tzinfo=UTC),
        "request": {"epochs": 10, "learning_rate": 0.1, "symbols": ["EURUSD"]},
        "strategy_path": "s.yaml",
        "strategy_fingerprint": "a",
        "data_fingerprint": "b",
        "dataset_digest": "c",
        "environment": {"torch": "2.13.0", "threads": 1},
    }
    return Header(**(fields | changes))


def row_of(new: NewCheckpoint, row_id: int = 1, doomed: bool = False) -> Checkpoint:
    return Checkpoint(
        id=row_id,
        operation_id=OPERATION,
        attempt=1,
        **vars(new),
        doomed_at=datetime.now(UTC) if doomed else None,
    )


def write(storage: Storage, number: int) -> tuple[Checkpoint, Path]:
    new = write_checkpoint(storage, header(number), {**FILES, "loop.pt": b"%d" % number})
    return row_of(new, number), storage.at(new.path)


def test_a_written_checkpoint_reads_back_as_it_was(storage: Storage) -> None:
    new = write_checkpoint(storage, header(), FILES)

    manifest, files = read_checkpoint(storage.at(new.path))

    assert files == FILES
    assert (manifest.epoch, manifest.batch, manifest.request) == (3, 7, header().request)
    assert new.path == f"operations/{OPERATION}/attempt-0001/checkpoint-000001"
    assert new.size_bytes == sum(p.stat().st_size for p in storage.at(new.path).iterdir())
    assert new.created_at == manifest.created_at == header().created_at


def test_a_second_checkpoint_of_the_same_number_leaves_the_first(storage: Storage) -> None:
    _, directory = write(storage, 1)

    with pytest.raises(StorageUnavailable):
        write_checkpoint(storage, header(1), FILES)

    assert read_checkpoint(directory)[1]["loop.pt"] == b"1"


Damage = Callable[[Path], object]


def _flip(position: float) -> Damage:
    def flip(path: Path) -> None:
        data = bytearray(path.read_bytes())
        data[int(position * (len(data) - 1))] ^= 1
        path.write_bytes(data)

    return flip


def _replace_by_link(path: Path) -> None:
    target = path.with_name("..").resolve().parent / "elsewhere"
    target.write_bytes(path.read_bytes())
    path.unlink()
    path.symlink_to(target)


def _replace_by_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


DAMAGES: dict[str, Damage] = {
    "first byte": _flip(0.0),
    "byte at a third": _flip(1 / 3),
    "byte at two thirds": _flip(2 / 3),
    "last byte": _flip(1.0),
    "truncated": lambda path: os.truncate(path, path.stat().st_size - 1),
    "emptied": lambda path: os.truncate(path, 0),
    "removed": lambda path: path.unlink(),
    "longer": lambda path: path.write_bytes(path.read_bytes() + b" "),
    "a link": _replace_by_link,
    "a pipe": _replace_by_pipe,
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
@pytest.mark.parametrize("name", [*FILES, "manifest.json"])
def test_damage_of_any_file_is_found_and_named(storage: Storage, name: str, damage: Damage) -> None:
    _, directory = write(storage, 1)

    damage(directory / name)

    with pytest.raises(CheckpointCorrupted) as caught:
        read_checkpoint(directory)
    assert list(caught.value.details["files"]) == [name]
    assert name in caught.value.message


def test_every_damaged_file_is_named_at_once(storage: Storage) -> None:
    _, directory = write(storage, 1)
    (directory / "model.pt").unlink()
    (directory / "loop.pt").write_bytes(b"x")
    (directory / "extra.pt").write_bytes(b"x")

    with pytest.raises(CheckpointCorrupted) as caught:
        read_checkpoint(directory)

    assert set(caught.value.details["files"]) == {"model.pt", "loop.pt", "extra.pt"}


def test_a_file_of_another_checkpoint_is_found(storage: Storage) -> None:
    distinct = {name: data + b"2" for name, data in FILES.items()}
    one = storage.at(write_checkpoint(storage, header(1), FILES).path)
    two = storage.at(write_checkpoint(storage, header(2), distinct).path)

    for name in (*FILES, "manifest.json"):
        kept = (one / name).read_bytes()
        (one / name).write_bytes((two / name).read_bytes())
        with pytest.raises(CheckpointCorrupted) as caught:
            read_checkpoint(one)
        named = set(caught.value.details["files"])
        assert named == (set(FILES) if name == "manifest.json" else {name})
        (one / name).write_bytes(kept)
    read_checkpoint(one)


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
@pytest.mark.parametrize("name", FILES)
def test_an_inspection_tells_of_every_file(storage: Storage, name: str, damage: Damage) -> None:
    row, directory = write(storage, 1)
    damage(directory / name)
    [(_, found)] = inspect_rows(storage, [row])
    assert set(found) == {*FILES, "manifest.json"}
    assert {other for other, state in found.items() if state == "ok"} == set(found) - {name}
    assert (found[name] == "missing") == (not os.path.lexists(directory / name))


def test_an_inspection_of_what_is_not_there_or_another_says_so(storage: Storage) -> None:
    rows = [write(storage, number)[0] for number in (1, 2, 3)]
    one, two, three = (storage.at(row.path) for row in rows)
    os.rename(one, one.with_name("aside"))
    os.rename(two, one)
    (three / "manifest.json").unlink()
    found = [files for _, files in inspect_rows(storage, rows)]
    assert found[0]["manifest.json"] == "of another checkpoint"
    assert found[1:] == [{".": "missing"}, {"manifest.json": "missing"}]


def test_a_manifest_of_a_newer_or_foreign_format_says_so() -> None:
    manifest = Manifest(**header().model_dump(), files=list_files(FILES))
    body = json.loads(encode(manifest))

    for change, verdict in (
        ({"format_version": 2}, "upgrade"),
        ({"format": "other"}, "not a ktrdr-checkpoint"),
        ({"unknown": 1}, "unknown"),
        ({"epoch": "3"}, "epoch"),
        ({"epoch": 4}, "changed"),
        ({"files": {"../x.pt": {"size": 1, "sha256": "0" * 64}}}, "files"),
    ):
        with pytest.raises(NotAManifest, match=verdict):
            decode(Manifest, json.dumps(body | change).encode())
    for data in (b"", b"{", b"[]", b"\xff\xfe", b"[" * 100_000):
        with pytest.raises(NotAManifest):
            decode(Manifest, data)


def test_the_newest_good_checkpoint_is_taken_and_the_bad_ones_are_told(storage: Storage) -> None:
    rows = [write(storage, number)[0] for number in (1, 2, 3, 4)]
    (storage.at(rows[3].path) / "model.pt").unlink()
    os.rename(storage.at(rows[2].path), storage.at(rows[2].path).with_name("gone"))

    row, manifest, passed_over = latest_good(storage, rows)

    assert (row, manifest.number) == (rows[1], 2)
    assert [(bad.id, "missing" in why) for bad, why in passed_over] == [(4, True), (3, True)]


def test_a_directory_that_holds_another_checkpoint_is_passed_over(storage: Storage) -> None:
    rows = [write(storage, number)[0] for number in (1, 2)]
    one, two = (storage.at(row.path) for row in rows)
    os.rename(two, two.with_name("aside"))
    os.rename(one, two)

    with pytest.raises(CheckpointCorrupted, match="none of 2") as caught:
        latest_good(storage, rows)

    assert "another checkpoint" in caught.value.details["checkpoints"][rows[1].path]


def test_without_rows_there_is_no_checkpoint(storage: Storage) -> None:
    row, _ = write(storage, 1)
    with pytest.raises(CheckpointNotFound):
        latest_good(storage, [])
    with pytest.raises(CheckpointNotFound):
        latest_good(storage, [row_of(NewCheckpoint(**_new_fields(row)), doomed=True)])


def _new_fields(row: Checkpoint) -> dict[str, Any]:
    names = NewCheckpoint.__dataclass_fields__
    return {name: getattr(row, name) for name in names}


def test_an_unmounted_share_is_not_a_corrupt_checkpoint(storage: Storage) -> None:
    row, _ = write(storage, 1)
    os.rename(storage.root, storage.root.with_name("unmounted"))
    storage.root.mkdir()

    with pytest.raises(StorageUnavailable, match="mounted"):
        latest_good(storage, [row])
    with pytest.raises(StorageUnavailable, match="mounted"):
        remove_doomed(storage, [row_of(NewCheckpoint(**_new_fields(row)), doomed=True)])
    with pytest.raises(StorageUnavailable, match="mounted"):
        inspect_rows(storage, [row])
    with pytest.raises(StorageUnavailable, match="mounted"):
        write_checkpoint(storage, header(2), FILES)
    assert list(storage.root.iterdir()) == []


class Refusing(Files):
    """Refuses the n-th of the calls that change the disk, as a full disk would."""

    def __init__(self, refused: int, error: type[BaseException] = OSError) -> None:
        self.refused, self.error = refused, error
        self.calls = 0
        self.armed = True

    def _count(self, *, half_done: Callable[[], object] | None = None) -> None:
        self.calls += 1
        if self.armed and self.calls == self.refused:
            if half_done:
                half_done()
            if self.error is OSError:
                self.armed = False
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            raise self.error
        if self.armed and self.error is not OSError and self.calls > self.refused:
            raise AssertionError("a dead process touched the disk")

    def make_folder(self, path: Path) -> None:
        self._count()
        super().make_folder(path)

    def write(self, path: Path, data: bytes) -> None:
        self._count(half_done=lambda: path.write_bytes(data[: len(data) // 2]))
        super().write(path, data)

    def sync_folder(self, path: Path) -> None:
        self._count()
        super().sync_folder(path)

    def rename(self, source: Path, target: Path) -> None:
        self._count()
        super().rename(source, target)

    def remove_tree(self, path: Path) -> None:
        self._count(half_done=lambda: (path / "manifest.json").unlink(missing_ok=True))
        super().remove_tree(path)


class Killed(BaseException):
    """Stands for a process that is gone: nothing after it runs."""


def test_a_full_disk_at_any_step_leaves_the_last_good_one_and_no_litter(storage: Storage) -> None:
    row, directory = write(storage, 1)
    folder = directory.parent
    step, done = 0, False
    refusals: list[str] = []
    while not done:
        step += 1
        refusing = Storage(storage.root, Refusing(step))
        try:
            new = write_checkpoint(refusing, header(step + 1), FILES)
            done = True
        except StorageUnavailable as error:
            refusals.append(error.message)
            assert [path.name for path in folder.iterdir()] == ["checkpoint-000001"]
        read_checkpoint(directory)
    assert len(refusals) == step - 1 > 7
    assert all("No space left" in message for message in refusals)
    assert latest_good(storage, [row, row_of(new, 2)])[0].number == new.number


def test_a_commit_killed_at_any_step_leaves_the_old_or_the_new(storage: Storage) -> None:
    row, directory = write(storage, 1)
    step, done, new_ones = 0, False, 0
    while not done:
        step += 1
        number = step + 1
        killed = Storage(storage.root, Refusing(step, Killed))
        try:
            write_checkpoint(killed, header(number), FILES)
            done = True
        except Killed:
            pass
        read_checkpoint(directory)
        numbers = {new.number for new in found(storage, OPERATION, 1)}
        assert numbers - {number} == {1} | {n for n in numbers if 1 < n < number}
        new_ones += number in numbers
        sweep(storage, OPERATION, [1])
        names = sorted(path.name for path in directory.parent.iterdir())
        assert names == [f"checkpoint-{n:06d}" for n in sorted(numbers)]
    assert new_ones == 2  # killed after the rename, and not killed
    assert latest_good(storage, [row])[0] == row


def test_a_removal_killed_at_any_step_is_finished_by_repeating_it(storage: Storage) -> None:
    for step in range(1, 5):
        new = write_checkpoint(storage, header(step), FILES)
        doomed = row_of(new, step, doomed=True)
        try:
            remove_doomed(Storage(storage.root, Refusing(step, Killed)), [doomed])
        except Killed:
            assert step < 4
        for survivor in found(storage, OPERATION, 1):
            read_checkpoint(storage.at(survivor.path))

        assert remove_doomed(storage, [doomed]) == (step,)
        assert remove_doomed(storage, [doomed]) == (step,)
        assert list(storage.at(new.path).parent.iterdir()) == []


def test_only_doomed_rows_lose_their_directory(storage: Storage) -> None:
    row, directory = write(storage, 1)
    assert remove_doomed(storage, [row]) == ()
    read_checkpoint(directory)


def test_a_sweep_spares_attempts_that_go_on(storage: Storage) -> None:
    write(storage, 1)
    write_checkpoint(storage, header(1, attempt=2), FILES)
    for attempt in (1, 2):
        for name in (".tmp-checkpoint-000009", ".trash-checkpoint-000008"):
            (attempt_folder(storage, OPERATION, attempt) / name).mkdir()

    sweep(storage, OPERATION, [1, 7])

    ended, going_on = (attempt_folder(storage, OPERATION, n) for n in (1, 2))
    assert [path.name for path in ended.iterdir()] == ["checkpoint-000001"]
    assert len(list(going_on.iterdir())) == 3


def test_storage_is_claimed_once_and_known_again(tmp_path: Path) -> None:
    storage = Storage(tmp_path / "a" / "b")
    storage.claim("one")
    storage.claim("one")
    storage.check("one")
    assert storage.root.stat().st_mode & 0o777 == 0o700
    with pytest.raises(StoreMismatch, match="another store"):
        storage.claim("two")
    with pytest.raises(StoreMismatch):
        storage.check("two")


def test_checking_storage_creates_nothing(tmp_path: Path) -> None:
    with pytest.raises(StorageUnavailable):
        Storage(tmp_path / "absent").check("one")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_with_other_things_is_not_claimed(tmp_path: Path) -> None:
    (tmp_path / "holiday.jpg").write_bytes(b"x")
    with pytest.raises(StorageUnavailable, match=r"holiday\.jpg"):
        Storage(tmp_path).claim("one")
    assert [path.name for path in tmp_path.iterdir()] == ["holiday.jpg"]


def test_bars_imported_earlier_do_not_hinder_a_claim(tmp_path: Path) -> None:
    (tmp_path / "bars").mkdir()
    Storage(tmp_path).claim("one")
    Storage(tmp_path).check("one")


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"format": "other"}'])
def test_a_damaged_marker_is_neither_ours_nor_overwritten(tmp_path: Path, content: bytes) -> None:
    (tmp_path / MARKER).write_bytes(content)
    with pytest.raises(StorageUnavailable, match="marker"):
        Storage(tmp_path).claim("one")
    assert (tmp_path / MARKER).read_bytes() == content


def test_of_many_stores_claiming_at_once_one_wins(tmp_path: Path) -> None:
    won: list[str] = []
    barrier = threading.Barrier(8)

    def claim(store_id: str) -> None:
        barrier.wait()
        try:
            Storage(tmp_path / "s").claim(store_id)
        except StoreMismatch:
            return
        won.append(store_id)

    threads = [threading.Thread(target=claim, args=(f"store-{n}",)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert won == [Storage(tmp_path / "s").marked_by()]
    assert [path.name for path in (tmp_path / "s").iterdir()] == [MARKER]


@pytest.mark.parametrize("part", ["..", ".", "", "a/b", "a..b", "/etc", "a\n", "x" * 200, "\x00"])
def test_no_name_leads_out_of_the_storage(storage: Storage, part: str) -> None:
    with pytest.raises(StorageUnavailable):
        storage.path("operations", part)


def test_no_link_leads_out_of_the_storage(storage: Storage, tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (storage.root / "operations").symlink_to(tmp_path / "outside")
    with pytest.raises(StorageUnavailable, match="leads out"):
        write_checkpoint(storage, header(), FILES)
    assert list((tmp_path / "outside").iterdir()) == []


def test_an_unreadable_checkpoint_is_not_called_corrupt(storage: Storage) -> None:
    class Failing(Files):
        def read(self, path: Path, limit: int) -> bytes:
            if path.name == "model.pt":
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            return super().read(path, limit)

    row, _ = write(storage, 1)
    with pytest.raises(StorageUnavailable):
        latest_good(Storage(storage.root, Failing()), [row])
