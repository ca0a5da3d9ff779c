"""Storing bytes again mends a blob that no longer holds them; a whole one stays as it is."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from falaj.kernel.digests import sha256
from falaj.kernel.errors import FalajError
from falaj.storage.blobs.local import LocalBlobs, blob_path

KEK = bytes(range(32))


@pytest.mark.parametrize("damage", [lambda b: b[:-20] + bytes([b[-20] ^ 1]) + b[-19:], lambda b: b[:10], lambda _: b""])
def test_the_same_bytes_again_mend_a_broken_blob(tmp_path: Path, damage: object) -> None:
    blobs = LocalBlobs(tmp_path, KEK)
    digest = blobs.put(b"weights" * 100)
    path = blob_path(tmp_path, digest)
    assert callable(damage)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(FalajError):
        blobs.get(digest)
    assert blobs.put(b"weights" * 100) == digest
    assert blobs.get(digest) == b"weights" * 100
    whole = path.read_bytes()
    blobs.put(b"weights" * 100)
    assert path.read_bytes() == whole
    assert [p for p in path.parent.iterdir() if p != path] == []


def test_half_a_blob_does_not_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    blobs = LocalBlobs(tmp_path, KEK)
    blob_path(tmp_path, sha256(b"weights" * 100)).parent.mkdir()
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space left"):
            blobs.put(b"weights" * 100)
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == []
    assert blobs.get(blobs.put(b"weights" * 100)) == b"weights" * 100
