"""Salted commitments to the records of a journal segment: how one audited leaf stands for all of them.

    salts       <segment>.salts = "FALAJS1\\n" (commitment: 32 bytes, salt: 32 bytes) a record, in the segment's order
    commitment  SHA-256(salt || the record's payload)
    root        the Merkle tree hash of RFC 6962 with the commitments as leaf data

The root goes into the audit log. A record is erased by overwriting its payload in the segment and its salt
with zeros, their lengths kept: the commitment stays, so the root stays valid, and without the salt nobody
can try out what the record may have said. The digest of the file's bytes holds until the first erasure.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec

from falaj.governance.audit.merkle import leaf_hash, root_from_leaves
from falaj.kernel.errors import Integrity
from falaj.lifecycle.serving.plane.files import replace_file
from falaj.lifecycle.serving.plane.journal import frames_of, payloads_from

MAGIC = b"FALAJS1\n"
SALTS = ".salts"
_HASH = 32
_ERASED = bytes(_HASH)


class Seal(msgspec.Struct, frozen=True):
    """A segment compared with its commitments: all records, how many of them are erased, and the root."""

    records: int
    erased: int
    root: str


def commit(segment: Path, payloads: Iterable[bytes]) -> None:
    """Draw a salt for each record and keep the commitments beside the segment; survives a power cut.

    Commitments that are there already are never replaced: a root may be in the audit log.
    """
    path = segment.with_suffix(SALTS)
    if path.exists():
        return
    content = bytearray(MAGIC)
    for payload in payloads:
        salt = secrets.token_bytes(_HASH)
        content += commitment(salt, payload) + salt
    replace_file(path, bytes(content), sync=True)


def commitment(salt: bytes, payload: bytes) -> bytes:
    """SHA-256(salt || payload)."""
    return hashlib.sha256(salt + payload).digest()


def check(segment: Path) -> Seal:
    """Compare every record with its commitment. Raises `Integrity` for the first that differs, or is missing."""
    erased = behind = 0
    commitments: list[bytes] = []
    frames = frames_of(segment)
    for number, (made, salt) in enumerate(_entries(segment)):
        payload, behind = next(frames, (None, behind))
        if payload is None:
            raise _broken(segment, f"record {number} is missing")
        if salt == _ERASED:
            erased += 1
        elif commitment(salt, payload) != made:
            raise _broken(segment, f"record {number} is not the one that was sealed")
        commitments.append(made)
    if next(payloads_from(segment, behind), None) is not None:
        raise _broken(segment, f"there is a record after the {len(commitments)} that were sealed")
    return Seal(len(commitments), erased, root_of(commitments))


def root_of(commitments: Iterable[bytes]) -> str:
    """The root over commitments, as it stands in the audit log."""
    return "sha256:" + root_from_leaves([leaf_hash(c) for c in commitments]).hex()


def _entries(segment: Path) -> Iterator[tuple[bytes, bytes]]:
    try:
        content = segment.with_suffix(SALTS).read_bytes()
    except FileNotFoundError as e:
        raise _broken(segment, "its salts are missing") from e
    body = memoryview(content)[len(MAGIC) :]
    if content[: len(MAGIC)] != MAGIC or len(body) % (2 * _HASH):
        raise _broken(segment, "its salts cannot be read")
    for start in range(0, len(body), 2 * _HASH):
        yield bytes(body[start : start + _HASH]), bytes(body[start + _HASH : start + 2 * _HASH])


def _broken(segment: Path, why: str) -> Integrity:
    return Integrity(
        f"the journal segment {segment.stem} does not agree with its commitments: {why}",
        hint=f"restore {segment.name} and {segment.stem}{SALTS} from a backup of the same moment",
        code="journal_seal_broken",
    )
