"""Blobs in a folder: `aa/<64 hex>` by the digest of the plain bytes.

Survives a power cut once `put` returned: temporary file, fsync, rename, fsync of the folder.
"""

from __future__ import annotations

import functools
import os
import secrets
import threading
from collections.abc import Callable
from pathlib import Path

from falaj.kernel.digests import parse_digest, sha256
from falaj.kernel.errors import Integrity, NotFound
from falaj.kernel.files import flush
from falaj.storage.blobs.format import open_sealed, seal, unwrap


def blob_path(root: Path, digest: str) -> Path:
    """Where a blob lies below `root`; only a well-formed digest can name one."""
    name = parse_digest(digest).removeprefix("sha256:")
    return root / name[:2] / name


Get = Callable[["LocalBlobs", str], bytes]


def _naming(get: Get) -> Get:
    """Whatever is wrong with a blob is told with its name: that is what to restore."""

    @functools.wraps(get)
    def named(self: LocalBlobs, digest: str) -> bytes:
        try:
            return get(self, digest)
        except Integrity as e:
            if digest in e.message:
                raise
            raise Integrity(f"{digest}: {e.message}", hint=e.hint, code=e.code) from e

    return named


class LocalBlobs:
    """An encrypted, content-addressed store. Nothing overwrites a blob that holds what its name says."""

    def __init__(self, root: Path, keys: bytes | Callable[[], tuple[bytes, ...]]) -> None:
        """`keys` wrap data keys, the first those of new blobs; one key alone never changes."""
        self.root = root
        self._keys = keys if callable(keys) else lambda: (keys,)
        self._placing = threading.Lock()
        root.mkdir(parents=True, exist_ok=True, mode=0o700)

    def put(self, plain: bytes) -> str:
        """Store and return the digest; storing the same bytes again changes nothing, or mends a broken blob."""
        digest = sha256(plain)
        path = blob_path(self.root, digest)
        if self._holds(digest):
            return digest
        if not path.parent.exists():
            path.parent.mkdir(exist_ok=True, mode=0o700)
            flush(self.root)
        temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
        try:
            with temporary.open("xb") as f:
                f.write(seal(plain, secrets.token_bytes(32), self._keys()[0]))
                f.flush()
                os.fsync(f.fileno())
            with self._placing:  # the first stays: its data key may be sealed to a data plane already
                if not self._holds(digest):
                    temporary.replace(path)
                    flush(path.parent)
        finally:
            temporary.unlink(missing_ok=True)  # on a full disk, half of it must not take the room that is left
        return digest

    def sweep(self) -> int:
        """Remove what a process left half written that was killed; returns the number of files. Only while nobody puts."""
        left = list(self.root.glob("[0-9a-f][0-9a-f]/.*"))
        for path in left:
            path.unlink(missing_ok=True)
        return len(left)

    @_naming
    def get(self, digest: str) -> bytes:
        """The plain bytes, compared with their name. Raises `NotFound`, `Integrity`."""
        sealed = self._sealed(digest)
        plain = open_sealed(sealed, unwrap(sealed, *self._keys()))
        if sha256(plain) != digest:
            raise Integrity(
                f"the blob {digest} holds other bytes",
                hint="restore the home's blobs folder from a backup",
                code="blob_broken",
            )
        return plain

    @_naming
    def data_key(self, digest: str) -> bytes:
        """The key of one blob, to be sealed to a data plane."""
        return unwrap(self._sealed(digest), *self._keys())

    def exists(self, digest: str) -> bool:
        """Whether a blob is there; its bytes are not looked at."""
        return blob_path(self.root, digest).exists()

    def _holds(self, digest: str) -> bool:
        """Whether the blob is there and whole."""
        try:
            self.get(digest)
        except (NotFound, Integrity):
            return False
        return True

    def _sealed(self, digest: str) -> bytes:
        try:
            return blob_path(self.root, digest).read_bytes()
        except FileNotFoundError as e:
            raise NotFound(
                f"there is no blob {digest}", hint="restore the home's blobs folder from a backup", code="blob_missing"
            ) from e
