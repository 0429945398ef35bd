"""Reading a file as plain bytes: gzip, zip and UTF-16 decoded, up to a maximum size.

Nothing is written to a disk, so a member's name in an archive leads nowhere; it is only looked at.
"""

from __future__ import annotations

import gzip
import io
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from ktrdr.data.bars import echo
from ktrdr.errors import InvalidData, Usage

MAX_BYTES = 2 << 30
_SAMPLE_BYTES = 1 << 16
_UTF8_MARK = b"\xef\xbb\xbf"
_TABLE_ENDINGS = (".csv", ".txt", ".tsv", ".json", ".parquet", ".feather")
_WORKBOOK = "xl/workbook.xml"


@dataclass(frozen=True)
class Content:
    """What a file holds, text as UTF-8 without a mark; `name` is of the innermost file."""

    path: Path
    name: str
    data: bytes


def unpack(path: Path) -> Content:
    """Read a file, out of its archive if it is one.

    Raises Usage where there is no such file, InvalidData where it is damaged or too large.
    """
    content = Content(path, path.name, _read_bytes(path))
    if content.data[:2] == b"\x1f\x8b":
        content = Content(path, path.name.removesuffix(".gz"), _gunzip(path, content.data))
    elif content.data[:4] == b"PK\x03\x04":
        content = _unzip(path, content.data)
    return Content(path, content.name, _to_utf8(path, content.data))


def refuse(path: Path, problem: str, advice: str = "nothing was imported") -> InvalidData:
    """The error of a file that cannot be imported at all."""
    return InvalidData(f"{path.name}: {problem}; {advice}", path=str(path))


def _read_bytes(path: Path) -> bytes:
    try:
        if not path.exists():
            raise Usage(f"no such file: {echo(str(path))}; check the path", path=str(path))
        if not path.is_file():
            raise Usage(f"{echo(str(path))} is not a regular file; name a CSV or Parquet file")
        if path.stat().st_size > MAX_BYTES:
            raise refuse(path, "it is larger than 2 GiB", "split it, or import a coarser timeframe")
        return path.read_bytes()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise Usage(f"cannot read {echo(str(path))}: {reason}; check the path") from error


def _gunzip(path: Path, data: bytes) -> bytes:
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(data)) as file:
            return _read_bounded(path, file)
    except (OSError, EOFError, zlib.error) as error:
        raise refuse(path, f"its gzip data is damaged ({error})", "download it again") from error


def _unzip(path: Path, data: bytes) -> Content:
    """The one table in a zip archive."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            member = _choose_member(path, archive)
            with archive.open(member) as file:
                return Content(path, Path(member.filename).name, _read_bounded(path, file))
    except RuntimeError as error:  # NotImplementedError too: a method that zipfile does not know
        reason = "with a password" if "password" in str(error) else "by an unknown method"
        raise refuse(path, f"it is packed {reason}", "unpack it and import the file") from error
    except (zipfile.BadZipFile, OSError, EOFError, zlib.error, ValueError) as error:
        raise refuse(path, "its zip data is damaged", "download it again") from error


def _choose_member(path: Path, archive: zipfile.ZipFile) -> zipfile.ZipInfo:
    members = [m for m in archive.infolist() if not _is_hidden(m.filename)]
    if any(member.filename == _WORKBOOK for member in members):
        raise refuse(path, "it is an Excel workbook", "save the sheet as CSV and import that")
    for ending in _TABLE_ENDINGS:
        tables = [member for member in members if member.filename.lower().endswith(ending)]
        if len(tables) == 1:
            if tables[0].file_size > MAX_BYTES:
                raise _too_large(path)
            return tables[0]
        if tables:
            shown = ", ".join(echo(member.filename) for member in tables[:4])
            more = ", ..." if len(tables) > 4 else ""
            raise refuse(
                path, f"it holds {len(tables)} files ({shown}{more})", "unpack it and import one"
            )
    raise refuse(path, "it holds no CSV, JSON, Parquet or Feather file")


def _is_hidden(name: str) -> bool:
    """Whether a member is a folder, or what an archiver adds for itself."""
    return name.endswith("/") or name.startswith("__MACOSX/") or Path(name).name.startswith(".")


def _read_bounded(path: Path, file: IO[bytes] | gzip.GzipFile) -> bytes:
    data = file.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise _too_large(path)
    return data


def _too_large(path: Path) -> InvalidData:
    return refuse(path, "it is larger than 2 GiB when unpacked", "split it")


def _to_utf8(path: Path, data: bytes) -> bytes:
    encoding = _encoding_of(data)
    if encoding is None:
        return data.removeprefix(_UTF8_MARK)
    try:
        return data.decode(encoding).removeprefix("\ufeff").encode()
    except UnicodeError as error:
        raise refuse(path, "its UTF-16 text is damaged", "export it as CSV in UTF-8") from error


def _encoding_of(data: bytes) -> str | None:
    """UTF-16 by its mark or, where that is missing, by the zero byte of every letter."""
    if data[:2] == b"\xff\xfe":
        return "utf-16-le"
    if data[:2] == b"\xfe\xff":
        return "utf-16-be"
    sample = data[:_SAMPLE_BYTES]
    pairs = len(sample) // 2
    if pairs < 8:
        return None
    for encoding, zeros, letters in (("utf-16-le", 1, 0), ("utf-16-be", 0, 1)):
        if sample[zeros::2].count(0) == len(sample[zeros::2]) and 0 not in sample[letters::2]:
            return encoding
    return None
