"""Manifests: written last into a directory, with the size and digest of every other file.

A manifest is canonical JSON sealed by a digest over itself, so that one changed byte in it is
found as surely as one in the files that it lists.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, TypeVar

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, JsonValue, ValidationError

from ktrdr.operations.types import CheckpointType

MANIFEST = "manifest.json"
MANIFEST_LIMIT = 16 * 1024 * 1024

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
FileName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}\.[a-z0-9]{1,8}$")]
Ordinal = Annotated[int, Field(ge=1)]
Count = Annotated[int, Field(ge=0)]


class NotAManifest(ValueError):
    """Why the bytes are no manifest that this version can trust."""


class _Closed(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class FileEntry(_Closed):
    size: Ordinal
    sha256: Sha256


class Sealed(_Closed):
    """Base of every manifest: names its format, and lists the files beside it."""

    FORMAT: ClassVar[str]
    VERSION: ClassVar[int] = 1

    files: dict[FileName, FileEntry]


class Provenance(_Closed):
    """What an attempt trains from and on: equal in every checkpoint that it writes."""

    request: dict[str, JsonValue]
    strategy_path: str
    strategy_fingerprint: str
    data_fingerprint: str
    dataset_digest: str
    environment: dict[str, JsonValue]


class Header(Provenance):
    """Everything that a checkpoint's manifest says besides its files."""

    operation_id: str
    attempt: Ordinal
    number: Ordinal
    epoch: Count
    batch: Count
    checkpoint_type: CheckpointType
    weights_digest: Sha256
    is_best: bool
    created_at: AwareDatetime


class Manifest(Header, Sealed):
    FORMAT = "ktrdr-checkpoint"


class ModelHeader(_Closed):
    """Everything that a stored model's manifest says besides its files."""

    strategy_name: str
    version: Ordinal
    operation_id: str
    attempt: Ordinal
    weights_digest: Sha256
    epochs: Ordinal
    best_epoch: Ordinal
    metrics: dict[str, JsonValue]
    input_names: list[str]
    class_names: list[str]
    strategy_fingerprint: str
    data_fingerprint: str
    dataset_digest: str
    environment: dict[str, JsonValue]
    created_at: AwareDatetime


class ModelManifest(ModelHeader, Sealed):
    FORMAT = "ktrdr-model"


M = TypeVar("M", bound=Sealed)


def list_files(files: Mapping[str, bytes]) -> dict[str, FileEntry]:
    return {
        name: FileEntry(size=len(data), sha256=hashlib.sha256(data).hexdigest())
        for name, data in files.items()
    }


def encode(manifest: Sealed) -> bytes:
    body = {
        "format": manifest.FORMAT,
        "format_version": manifest.VERSION,
        **manifest.model_dump(mode="json"),
    }
    return _canonical(body | {"seal": hashlib.sha256(_canonical(body)).hexdigest()})


def decode(kind: type[M], data: bytes) -> M:
    """Parse strictly; raises NotAManifest for a truncated, foreign, newer or changed manifest."""
    body = _json_object(data)
    if body.pop("format", None) != kind.FORMAT:
        raise NotAManifest(f"not a {kind.FORMAT} manifest")
    version = body.pop("format_version", None)
    if version != kind.VERSION:
        raise NotAManifest(
            f"format version {version!a}, this ktrdr reads {kind.VERSION}: upgrade ktrdr"
        )
    body.pop("seal", None)
    try:
        manifest = kind.model_validate_json(json.dumps(body))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise NotAManifest(f"wrong content at {where[:80]}: {first['msg']}") from None
    if encode(manifest) != data:
        raise NotAManifest("changed since it was written")
    return manifest


def _json_object(data: bytes) -> dict[str, Any]:
    try:
        body = json.loads(data.decode("ascii"))
    except (ValueError, RecursionError):
        raise NotAManifest("truncated or not JSON") from None
    if not isinstance(body, dict):
        raise NotAManifest("not a JSON object")
    return body


def _canonical(body: Mapping[str, Any]) -> bytes:
    return json.dumps(body, sort_keys=True, indent=1, allow_nan=False).encode("ascii")
