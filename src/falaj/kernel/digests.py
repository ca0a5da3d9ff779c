"""What bytes are called: `sha256:<64 hex>`, over canonical forms only."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec

from falaj.kernel.errors import Invalid

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}\Z")
_encoder = msgspec.json.Encoder(order="sorted")


def sha256(data: bytes) -> str:
    """The digest of some bytes."""
    return "sha256:" + hashlib.sha256(data).hexdigest()


def sha256_file(path: Path) -> str:
    """The digest of a file's bytes, read in blocks."""
    with path.open("rb") as f:
        return "sha256:" + hashlib.file_digest(f, "sha256").hexdigest()


def is_digest(text: str) -> bool:
    """Whether this is a digest."""
    return bool(_DIGEST.match(text))


def parse_digest(text: str) -> str:
    """Return `text` if it is a digest; raise `Invalid` otherwise."""
    if not is_digest(text):
        raise Invalid(
            f"{text[:80]!r} is not a digest",
            hint="a digest is 'sha256:' and 64 lower-case hex digits",
            code="bad_digest",
        )
    return text


def short(digest: str) -> str:
    """The first twelve hex digits, for people."""
    return digest.removeprefix("sha256:")[:12]


def canonical_json(value: Any) -> bytes:
    """UTF-8 JSON with sorted keys and no white space; the form that is hashed and signed."""
    return _encoder.encode(value)


def digest_of(value: Any) -> str:
    """The digest of a value's canonical JSON."""
    return sha256(canonical_json(value))


class FileEntry(msgspec.Struct, frozen=True, order=True):
    """One file of a manifest: its POSIX path relative to the root, size in bytes, digest."""

    path: str
    size: int
    sha256: str


def manifest(root: Path) -> tuple[FileEntry, ...]:
    """All regular files below `root`, sorted by path. A link or a special file is refused."""
    entries = []
    for path in sorted(root.rglob("*")):
        if path.is_dir() and not path.is_symlink():
            continue
        if path.is_symlink() or not path.is_file():
            raise Invalid(
                f"{path.name} is not a regular file",
                hint="a model holds regular files only; copy what a link points to",
                code="not_a_regular_file",
            )
        name = path.relative_to(root).as_posix()
        if not name.isprintable():
            raise Invalid(
                f"{name!a} cannot name a file of a model",
                hint="rename it with printable characters",
                code="bad_file_name",
            )
        entries.append(FileEntry(name, path.stat().st_size, sha256_file(path)))
    return tuple(sorted(entries))


def manifest_digest(entries: Iterable[FileEntry]) -> str:
    """The name of a folder: the digest over its sorted (path, size, sha256).

    The OpenSSF model signature's subject does not bind file names; this digest does.
    """
    return digest_of([[e.path, e.size, e.sha256] for e in sorted(entries)])
