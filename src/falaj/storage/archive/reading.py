"""Check a backup and lay its files out. Nothing is believed that the signed manifest does not name."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import msgspec

from falaj.kernel.digests import FileEntry
from falaj.kernel.disk import refusal
from falaj.kernel.errors import Integrity, NotFound
from falaj.kernel.files import flush
from falaj.storage.archive.manifest import (
    IDENTITY,
    MANIFESTS,
    Manifest,
    damaged,
    decoded,
    is_backup_id,
    manifest_name,
    object_name,
    unreadable,
)
from falaj.storage.sealed import opening

_BLOCK = 1 << 20

Verify = Callable[[dict[str, Any]], bytes]
"""Checks an envelope and returns the bytes that were signed. Raises `Integrity`."""
Report = Callable[[str, int, int], None]
"""Told how far it is: text, done, total."""


def backups(folder: Path) -> list[str]:
    """The ids of the backups in a folder, oldest first: an id begins with its time."""
    return sorted(p.stem for p in (folder / MANIFESTS).glob("*.json") if is_backup_id(p.stem))


def read_manifest(folder: Path, backup: str, verify: Verify) -> Manifest:
    """A backup's manifest, its signature checked; the newest for an empty id.

    Raises `NotFound` without such a backup, `Integrity` for one that is not what was signed.
    """
    there = backups(folder)
    if not there or (backup and backup not in there):
        told = f"no backup {backup[:60]}" if there else "no backup"
        raise NotFound(
            f"there is {told} in {folder}",
            hint=f"name one of these: {', '.join(there[-5:])}"
            if there
            else "name the folder that `falaj backup` wrote",
            code="no_backup",
        )
    name = manifest_name(backup or there[-1])
    try:
        envelope = msgspec.json.decode((folder / name).read_bytes(), type=dict[str, Any])
    except (OSError, msgspec.DecodeError, UnicodeDecodeError) as e:
        raise unreadable(name, str(e)) from e
    manifest = decoded(verify(envelope), name)
    if manifest.id != Path(name).stem:
        raise unreadable(name, f"it is that of {manifest.id}")
    return manifest


def check(folder: Path, manifest: Manifest, report: Report, keys: Sequence[bytes] = ()) -> None:
    """Read every byte; `keys` open the objects, oldest first. Raises `Integrity` that names the first file that differs."""
    for number, file in enumerate(manifest.files):
        report(f"checking {file.path}", number, len(manifest.files))
        try:
            _stream(folder, file, keys, None)
        except OSError as e:
            raise damaged(file.path, f"cannot be read ({e.strerror or e})") from e


def lay_out(folder: Path, manifest: Manifest, target: Path, report: Report, keys: Sequence[bytes] = ()) -> None:
    """Write the files below an empty folder, for its owner only, each compared with its digest on the way, flushed.

    Raises `Integrity` that names a file which differs, `Unavailable` when the target cannot be written.
    """
    folders: set[Path] = {target}
    for number, file in enumerate(manifest.files):
        report(f"restoring {file.path}", number, len(manifest.files))
        path = target / file.path
        missing = [p for p in path.parents if p != target and target in p.parents and not p.exists()]
        try:
            for parent in reversed(missing):
                parent.mkdir(mode=0o700)
                folders.add(parent)
            _stream(folder, file, keys, path)
        except OSError as e:
            raise refusal(e, target) or damaged(file.path, f"cannot be laid out ({e.strerror or e})") from e
    for made in sorted(folders):
        flush(made)


def _stream(folder: Path, file: FileEntry, keys: Sequence[bytes], target: Path | None) -> None:
    """Read an object, no further than it was signed, and copy it when there is a target."""
    name, lies = file.path, object_name(file.sha256, keys[0] if keys else b"")
    hashed, seen = hashlib.sha256(), 0
    try:
        f = (folder / lies).open("rb")
    except OSError as e:
        raise damaged(name, f"is missing ({lies})", object=lies) from e
    out = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600) if target is not None else -1
    try:
        with f:
            for block in opening(f.read, keys[::-1], IDENTITY) if keys else _in_clear(f, file.size):
                hashed.update(block)
                seen += len(block)
                if out >= 0:
                    _write_all(out, block)
                if seen > file.size:
                    break
        if out >= 0:
            os.fsync(out)
    except Integrity as e:
        raise damaged(name, f"is not what was signed ({lies})", object=lies) from e
    finally:
        if out >= 0:
            os.close(out)
    if seen != file.size or f"sha256:{hashed.hexdigest()}" != file.sha256:
        raise damaged(name, f"is not what was signed ({lies})", object=lies)


def _in_clear(f: BinaryIO, size: int) -> Iterator[bytes]:
    seen = 0
    while seen <= size and (block := f.read(min(_BLOCK, size + 1 - seen))):
        seen += len(block)
        yield block


def _write_all(descriptor: int, block: bytes) -> None:
    view = memoryview(block)
    while view:
        view = view[os.write(descriptor, view) :]
