"""Put files into a backup folder. The manifest comes last, so half a backup is none.

Survives a power cut once `finish` returned: every object and the manifest are flushed before they get their names.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from falaj.kernel.digests import FileEntry, sha256
from falaj.kernel.disk import refusal
from falaj.kernel.errors import Conflict, FalajError, Integrity, Unavailable
from falaj.kernel.files import flush, write_private
from falaj.storage.archive.manifest import IDENTITY, MANIFESTS, OBJECTS, SEALED, Manifest, manifest_name, object_name
from falaj.storage.sealed import Sealer, opening

_BLOCK = 1 << 20
_PARTIAL = ".partial-"

Sign = Callable[[bytes], dict[str, Any]]
"""Makes the envelope around a manifest's bytes."""


class Writer:
    """Collects the files of one backup. `abandon` removes what only an unfinished one needed."""

    def __init__(self, folder: Path, keys: Sequence[bytes]) -> None:
        """`keys` are all that objects of this home were ever sealed under, oldest first; new ones are under the last."""
        self.folder = folder
        self._keys = keys
        self.files: dict[str, FileEntry] = {}
        self.written = 0  # bytes that were not there before
        self._partial = folder / f"{_PARTIAL}{secrets.token_hex(6)}"
        self._checked: set[str] = set()
        try:
            _own(folder)
            for path in (folder / MANIFESTS, folder / SEALED, self._partial):
                path.mkdir(exist_ok=True, mode=0o700)
        except OSError as e:
            raise _failed(e, folder) from e

    @property
    def scratch(self) -> Path:
        """A folder on the backup's own disk for what is made on the way; it is gone at the end."""
        return self._partial

    def add(self, name: str, source: Path, limit: int | None = None) -> FileEntry:
        """Take a file, or its first `limit` bytes: what grows is taken as far as it was when somebody looked.

        Raises `FileNotFoundError` when the source is gone, `Unavailable` when the folder cannot be written.
        """
        with source.open("rb") as f:
            return self._take(name, f.read, limit if limit is not None else os.fstat(f.fileno()).st_size)

    def put(self, name: str, data: bytes) -> FileEntry:
        """Take some bytes."""
        left = memoryview(data)

        def read(count: int) -> bytes:
            nonlocal left
            block, left = left[:count], left[count:]
            return bytes(block)

        return self._take(name, read, len(data))

    def finish(self, manifest: Manifest, sign: Sign) -> str:
        """Write the signed manifest; returns its digest. From here on this is a backup."""
        raw = msgspec.json.encode(sign(msgspec.json.encode(manifest)))
        path = self.folder / manifest_name(manifest.id)
        try:
            for folder in sorted({self._place(f.sha256).parent for f in self.files.values()}):
                flush(folder)
            flush(self.folder / SEALED)
            temporary = self._partial / path.name
            write_private(temporary, raw)
            temporary.replace(path)
            flush(path.parent)
            flush(self.folder)
        except OSError as e:
            raise _failed(e, self.folder) from e
        shutil.rmtree(self._partial, ignore_errors=True)
        return sha256(raw)

    def abandon(self) -> None:
        """Let go. Objects that were written stay: the next backup finds them there."""
        shutil.rmtree(self._partial, ignore_errors=True)

    def _take(self, name: str, read: Callable[[int], bytes], size: int) -> FileEntry:
        temporary = self._partial / "object"
        hashed, left, sealer = hashlib.sha256(), size, Sealer(self._keys[-1], IDENTITY)
        try:
            with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as f:
                f.write(sealer.head)
                while left and (block := read(min(_BLOCK, left))):
                    hashed.update(block)
                    f.write(sealer.feed(block))
                    left -= len(block)
                f.write(sealer.end())
                digest = f"sha256:{hashed.hexdigest()}"
                known = self._holds(digest)
                if not known:
                    f.flush()
                    os.fsync(f.fileno())
            if not known:
                path = self._place(digest)
                path.parent.mkdir(exist_ok=True, mode=0o700)
                temporary.replace(path)
                self.written += size - left
                self._checked.add(digest)
        except OSError as e:
            raise _failed(e, self.folder) from e
        entry = FileEntry(name, size - left, digest)
        self.files[name] = entry
        return entry

    def _holds(self, digest: str) -> bool:
        """Whether an earlier backup left these bytes, whole: they are read, for disks forget."""
        path = self._place(digest)
        if digest in self._checked:
            return True
        try:
            with path.open("rb") as f:
                hashed = hashlib.sha256()
                for block in opening(f.read, self._keys[::-1], IDENTITY):
                    hashed.update(block)
        except (FileNotFoundError, Integrity):
            return False
        if f"sha256:{hashed.hexdigest()}" != digest:
            return False
        self._checked.add(digest)
        return True

    def _place(self, digest: str) -> Path:
        return self.folder / object_name(digest, self._keys[0])


def _own(folder: Path) -> None:
    """Make the folder, or take it when it is empty or holds backups. Raises `Conflict` for anything else in it."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    names = {p.name for p in folder.iterdir() if not p.name.startswith(_PARTIAL)}
    if names - {MANIFESTS, OBJECTS, SEALED}:
        raise Conflict(
            f"{folder} holds something else than backups ({min(names - {MANIFESTS, OBJECTS, SEALED})})",
            hint="name a folder that is empty, missing, or holds earlier backups",
            code="folder_not_empty",
        )
    for path in folder.glob(f"{_PARTIAL}*"):  # of backups that were not finished; one is taken at a time
        shutil.rmtree(path, ignore_errors=True)


def _failed(error: OSError, folder: Path) -> FalajError:
    return refusal(error, folder) or Unavailable(
        f"the backup cannot be written: {error.strerror or error}",
        hint=f"check the disk and the rights of {folder}; what is there already stays",
        code="backup_not_written",
    )
