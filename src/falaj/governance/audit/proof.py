"""A proof in one file that an entry is in the log (c2sp.org/tlog-proof): checked offline, with no home and no copy of it.

c2sp.org/tlog-proof@v1
extra eyJhY3Rpb24iOi…                              ← the entry's bytes, in base64
index 42
gSKyXoYZUgZ6jduWYrkDOARinOMGJveXjgMkBTcdPlQ=       ← from the leaf's sibling up to the root's child

falaj.example/log                                  ← the checkpoint, as it was signed and cosigned
…
"""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence

import msgspec

from falaj.governance.audit import merkle, note
from falaj.governance.audit.model import MAX_ENTRY, Entry, decode
from falaj.governance.audit.quorum import WitnessPolicy
from falaj.governance.audit.rotation import follow
from falaj.kernel.errors import FalajError, Integrity

FIRST = "c2sp.org/tlog-proof@v1"
SUFFIX = ".tlog-proof"
MAX_PROOF = note.MAX_NOTE + 100_000
"""Bytes of a proof at the most."""
_INDEX = re.compile(r"index (0|[1-9][0-9]{0,18})\Z")
_LONGEST = 63  # hashes: no tree has more levels


class Proof(msgspec.Struct, frozen=True):
    """A proof as it stands in a file: nothing in it is believed before `check`. `extra` is None where there is none."""

    index: int
    hashes: tuple[bytes, ...]
    checkpoint: bytes
    extra: bytes | None = None


class Proven(msgspec.Struct, frozen=True):
    """What a proof shows. `witnesses` are (vkey, seconds since 1970) of the cosignatures that were checked."""

    index: int
    entry: Entry
    origin: str
    size: int
    root: str
    witnesses: tuple[tuple[str, int], ...]


def encode_proof(proof: Proof) -> bytes:
    """The file."""
    lines = [FIRST]
    if proof.extra is not None:
        lines.append(f"extra {_base64(proof.extra)}")
    lines += [f"index {proof.index}", *map(_base64, proof.hashes), "", ""]
    return "\n".join(lines).encode() + proof.checkpoint


def parse_proof(data: bytes) -> Proof:
    """Read a file; it must be exactly what `encode_proof` writes. Raises `Integrity` otherwise."""
    head, parted, checkpoint = data.partition(b"\n\n")
    if len(data) > MAX_PROOF or not parted:
        raise _bad("it has no checkpoint")
    try:
        lines = head.decode("ascii").split("\n")
    except UnicodeDecodeError as e:
        raise _bad("it is not text") from e
    if lines.pop(0) != FIRST:
        raise _bad(f"it does not begin with {FIRST}")
    extra = note.unbase64(lines.pop(0).removeprefix("extra ")) if lines and lines[0].startswith("extra ") else None
    index = _INDEX.match(lines.pop(0)) if lines else None
    if index is None or len(lines) > _LONGEST:
        raise _bad("it names no index, or more hashes than any tree has levels")
    proof = Proof(int(index[1]), tuple(note.unbase64(line) for line in lines), checkpoint, extra)
    if encode_proof(proof) != data:
        raise _bad("it is not written as proofs are")
    return proof


def check_proof(
    proof: Proof, vkey: str, policy: WitnessPolicy | None = None, entry: bytes | None = None,
    rotations: Sequence[bytes] = (),
) -> Proven:  # fmt: skip
    """From the entry's bytes to its leaf, to the root, to the signature by the trusted `vkey`, or by a key that `rotations` lead to.

    The entry is the one that stands in the proof, or the given one. With a policy its quorum must have cosigned.
    Raises `Integrity` for whatever is not proven.
    """
    data = proof.extra if entry is None else entry
    if data is None or len(data) > MAX_ENTRY:
        raise _bad("it does not carry its entry")
    if entry is not None and proof.extra is not None and entry != proof.extra:
        raise _bad("it is about another entry")
    witnesses = policy.verifiers if policy else ()
    keys = follow(note.parse_vkey(vkey), rotations)
    checkpoint, opened = keys.open(proof.checkpoint, witnesses)
    merkle.verify_inclusion(merkle.leaf_hash(data), proof.index, checkpoint.size, proof.hashes, checkpoint.root)
    if policy is not None:
        demand_quorum(policy, opened)
    return Proven(
        proof.index, decode(data), checkpoint.origin, checkpoint.size, _base64(checkpoint.root),
        tuple(opened.times.items()),
    )  # fmt: skip


def demand_quorum(policy: WitnessPolicy, opened: note.Opened) -> None:
    """Raises `Integrity` unless the policy's quorum has cosigned and nobody whom it does not name has signed."""
    if opened.unknown:
        raise _unwitnessed(f"a line by {opened.unknown[0]} is by no key that the policy names")
    if not policy.met(opened.times):
        names = [w.name for w in policy.witnesses if w.verifier.vkey in opened.times]
        raise _unwitnessed(f"cosigned by {', '.join(names) or 'no witness'}, needed: {policy.rule}")


def encode_path(hashes: Sequence[bytes]) -> list[str]:
    """Hashes as they stand in a proof and in a request to a witness."""
    return [_base64(h) for h in hashes]


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _unwitnessed(why: str) -> FalajError:
    return Integrity(
        f"the checkpoint has no quorum of witnesses: {why}",
        hint="ask again in a while; if it stays so, ask the witnesses' operators what they have seen of this log",
        code="audit_unwitnessed",
    )


def _bad(why: str) -> FalajError:
    return Integrity(
        f"this is no proof of an entry: {why}",
        hint="ask for it again: `falaj audit prove ENTRY`; if it stays so, it was changed on its way",
        code="bad_proof",
    )
