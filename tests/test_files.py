"""Files that appear whole or not at all, and leave nothing beside them."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import BinaryIO

import pytest

from ktrdr.files import new_file, replacement, synced

Writer = Callable[..., AbstractContextManager[BinaryIO]]

both = pytest.mark.parametrize("write", [replacement, new_file])


@both
def test_a_file_appears_at_the_end_with_all_its_content(tmp_path: Path, write: Writer) -> None:
    path = tmp_path / "answer"
    with write(path) as file:
        file.write(b"whole")
        assert not path.exists()
    assert path.read_bytes() == b"whole"
    assert os.listdir(tmp_path) == ["answer"]


@both
def test_a_failure_leaves_no_file_behind(tmp_path: Path, write: Writer) -> None:
    def fail() -> None:
        with write(tmp_path / "answer") as file:
            file.write(b"ha")
            raise RuntimeError("half way")

    with pytest.raises(RuntimeError, match="half way"):
        fail()
    assert os.listdir(tmp_path) == []


def test_a_failed_replacement_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "answer"
    path.write_bytes(b"before")
    with pytest.raises(RuntimeError), replacement(path):
        raise RuntimeError
    assert path.read_bytes() == b"before"
    with replacement(path) as file:
        file.write(b"after")
    assert path.read_bytes() == b"after"
    assert os.listdir(tmp_path) == ["answer"]


def test_a_name_that_cannot_be_replaced_leaves_no_file_behind(tmp_path: Path) -> None:
    (tmp_path / "answer").mkdir()
    with pytest.raises(IsADirectoryError), replacement(tmp_path / "answer"):
        pass
    assert os.listdir(tmp_path) == ["answer"]


@both
def test_what_a_dead_writer_left_goes_with_the_next_write(tmp_path: Path, write: Writer) -> None:
    old, young, other = (tmp_path / f".{n}" for n in ("a.csv.tmp-1", "a.csv.tmp-2", "b.csv.tmp-3"))
    for path in (old, young, other):
        path.write_bytes(b"half a fi")
    for path in (old, other):
        os.utime(path, (0, 0))
    with write(tmp_path / "a.csv"):
        pass
    assert {path.name for path in tmp_path.iterdir()} == {"a.csv", young.name, other.name}


@pytest.mark.parametrize("links", [True, False])
def test_a_new_file_never_takes_the_place_of_another(
    tmp_path: Path, links: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError("no links on this disk")

    if not links:
        monkeypatch.setattr(os, "link", refuse)
    path = tmp_path / "answer"

    def come_second() -> None:
        with new_file(path) as file:
            file.write(b"mine")
            path.write_bytes(b"theirs")

    with pytest.raises(FileExistsError):
        come_second()
    assert path.read_bytes() == b"theirs"
    assert os.listdir(tmp_path) == ["answer"]
    path.unlink()
    with new_file(path) as file:
        file.write(b"mine")
    assert path.read_bytes() == b"mine"


@pytest.mark.parametrize("write", [replacement, new_file, synced])
def test_the_mode_is_the_one_given(tmp_path: Path, write: Writer) -> None:
    before = os.umask(0)
    try:
        with write(tmp_path / "secret", 0o600):
            pass
    finally:
        os.umask(before)
    assert (tmp_path / "secret").stat().st_mode & 0o777 == 0o600


def test_the_longest_name_that_a_folder_takes_can_be_written(tmp_path: Path) -> None:
    for path in (tmp_path / ("n" * 255), tmp_path / ("ü" * 127)):
        with replacement(path) as file:
            file.write(b"whole")
        assert path.read_bytes() == b"whole"
