"""What a backup says of itself: which files, how large, with which digests; and what it was taken of.

It travels as a DSSE envelope of payload type `BACKUP_TYPE`, signed by the key that signs the home's statements.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from hashlib import blake2b
from pathlib import PurePosixPath
from typing import Any

import msgspec

from falaj.kernel.digests import FileEntry, digest_of, is_digest
from falaj.kernel.errors import Integrity

BACKUP_TYPE = "application/vnd.falaj.backup+json"
FORMAT = 2
MANIFESTS, OBJECTS = "backups", "objects"
SEALED, IDENTITY = "sealed", "backup"
"""Where objects lie that are encrypted, and as what; those of backups of form 1, in clear, lie in `OBJECTS`."""
_ID = re.compile(r"bak_[0-9a-z]{26}\Z")


class Standing(msgspec.Struct, frozen=True):
    """How the home was at the backup's moment: schema, flow shape, the audit log's signed size and root (base64)."""

    schema: str
    flow_shape: str
    log_size: int
    log_root: str


class Manifest(msgspec.Struct, frozen=True):
    """A backup. `files` are sorted by path below the home; `keys` are the public ids of the home's keys, by name;
    `home` is where it lay: what flows under way remember of it is moved at restoring. Times are RFC 3339."""

    format: int
    id: str
    made_at: str
    release: str
    host: str
    home: str
    standing: Standing
    keys: dict[str, str]
    files: tuple[FileEntry, ...]
    sealed: tuple[str, ...] = ()  # the keys of the objects, wrapped by the home's key-encryption key; none in form 1

    @property
    def size(self) -> int:
        """Bytes of all files together."""
        return sum(f.size for f in self.files)


def object_name(digest: str, key: bytes = b"") -> str:
    """Where the bytes of a digest lie below the folder. With the first of a home's keys: under a pseudonym, so that the name
    tells nobody what they are, and no other home's backup in the folder has it."""
    if not key:
        name = digest.removeprefix("sha256:")
        return f"{OBJECTS}/{name[:2]}/{name}"
    name = blake2b(digest.encode(), key=key, digest_size=32).hexdigest()
    return f"{SEALED}/{name[:2]}/{name}"


def manifest_name(backup: str) -> str:
    """Where a backup's manifest lies below the folder."""
    return f"{MANIFESTS}/{backup}.json"


def is_backup_id(text: str) -> bool:
    """Whether this can be the id of a backup."""
    return bool(_ID.match(text))


def decoded(payload: bytes, name: str) -> Manifest:
    """A manifest from its signed bytes. Raises `Integrity` for a form that is not known, for paths that lead out, for what is no digest."""
    try:
        manifest = msgspec.json.decode(payload, type=Manifest)
    except (msgspec.DecodeError, UnicodeDecodeError) as e:
        raise unreadable(name, str(e)) from e
    if manifest.format not in (1, FORMAT) or (manifest.format == FORMAT) != bool(manifest.sealed):
        raise unreadable(name, f"it has form {manifest.format}, this release knows {FORMAT}")
    bad = [f.path for f in manifest.files if not _inside(f.path)]
    bad += [f.sha256 for f in manifest.files if not is_digest(f.sha256)]  # the object's own place is made of it
    if bad or not is_backup_id(manifest.id):
        raise unreadable(name, f"it names {(bad or [manifest.id])[0]!r}")
    return manifest


def contents(files: Iterable[FileEntry]) -> str:
    """One digest for everything that a backup holds."""
    return digest_of([[f.path, f.size, f.sha256] for f in sorted(files)])


def unreadable(name: str, why: str) -> Integrity:
    """What to say of a manifest that cannot be used."""
    return Integrity(
        f"the backup's manifest {name} cannot be used: {why}",
        hint="take another backup of the folder (`falaj restore` lists them), or another copy of this one",
        code="backup_damaged",
    )


def damaged(name: str, why: str, **details: Any) -> Integrity:
    """What to say of a backup one of whose files is not what was signed."""
    return Integrity(
        f"the backup cannot be used: {name} {why}",
        hint="nothing was restored; take another backup, or another copy of this one",
        code="backup_damaged",
        details={"file": name, **details},
    )


def _inside(path: str) -> bool:
    parts = PurePosixPath(path).parts
    return bool(parts) and not PurePosixPath(path).is_absolute() and ".." not in parts and not {"\\", "\0"} & set(path)
