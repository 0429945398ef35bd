"""Which filesystem a path lies on: SQLite's locks and shared memory do not hold on a network."""

from __future__ import annotations

import re
from pathlib import Path

MOUNT_TABLE = Path("/proc/self/mounts")

_NETWORK = re.compile(
    "afs|beegfs|ceph|cifs|coda|davfs|glusterfs|gpfs|lustre|ncpfs|nfs[34]?|orangefs|pvfs2"
    "|smb[23]|smbfs"
    "|fuse[.](blobfuse2?|ceph|davfs2|gcsfuse|geesefs|glusterfs|goofys|juicefs|mount-s3|rclone"
    "|s3fs|sshfs)"
)


def network_filesystem(path: Path, mounts: str) -> str | None:
    """Return the type of the network filesystem that holds an absolute, resolved path.

    `mounts` is the text of /proc/self/mounts; None means a local filesystem, or one not known.
    """
    kind = _filesystem(path, mounts)
    return kind if _NETWORK.fullmatch(kind) else None


def mount_table() -> str:
    """Return the mount table, empty where the system has none of this form."""
    try:
        return MOUNT_TABLE.read_text(encoding="utf-8", errors="surrogateescape")
    except OSError:
        return ""


def _filesystem(path: Path, mounts: str) -> str:
    """Return the type of the deepest mount above a path; a later mount covers an earlier one."""
    deepest, kind = -1, ""
    for line in mounts.splitlines():
        columns = line.split(" ")
        if len(columns) < 3:
            continue
        point = Path(_unescaped(columns[1]))
        if path.is_relative_to(point) and len(point.parts) >= deepest:
            deepest, kind = len(point.parts), columns[2]
    return kind


def _unescaped(mount_point: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), mount_point)
