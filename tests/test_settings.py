"""What the environment may say, and what another process reads of it."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from ktrdr.errors import Usage
from ktrdr.settings import read_settings


def test_another_process_reads_the_same_settings(tmp_path: Path) -> None:
    given = {
        "KTRDR_HOME": str(tmp_path / "home"),
        "KTRDR_DATABASE_URL": "sqlite:////elsewhere/a.db",
        "KTRDR_STORAGE": str(tmp_path / "storage"),
        "KTRDR_HANG_AFTER_S": "5",
        "KTRDR_CACHE_BYTES": "123",
        "KTRDR_IDLE_S": "7",
    }
    settings = read_settings(given)
    assert read_settings(settings.environment()) == settings
    plain = read_settings({})
    for field in dataclasses.fields(settings):
        if field.name != "ray_address":  # each process is told where it runs
            assert getattr(settings, field.name) != getattr(plain, field.name)


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("KTRDR_CACHE_BYTES", "10 GB", "no number of bytes"),
        ("KTRDR_CACHE_BYTES", "1e10", "no number of bytes"),
        ("KTRDR_CACHE_BYTES", "-1", "no number of bytes"),
        ("KTRDR_CACHE_BYTES", "9" * 30, "no number of bytes"),
        ("KTRDR_HANG_AFTER_S", "soon", "no number of seconds"),
        ("KTRDR_HANG_AFTER_S", "nan", "no number of seconds"),
        ("KTRDR_HANG_AFTER_S", "0", "no number of seconds"),
        ("KTRDR_IDLE_S", "ten", "no number of seconds"),
        ("KTRDR_STORAGE", "s3://bucket", "no folder of this machine"),
    ],
)
def test_what_is_no_setting_is_refused_by_name(name: str, text: str, said: str) -> None:
    with pytest.raises(Usage, match=f"{name}: .*{said}"):
        read_settings({name: text})


def test_a_cache_of_no_bytes_keeps_only_what_is_in_use() -> None:
    assert read_settings({"KTRDR_CACHE_BYTES": "0"}).cache_bytes == 0
