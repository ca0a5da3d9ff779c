"""A log's key is replaced: a statement by the old key and by the new one, which leads from either to the other.

It is a signed note (c2sp.org/signed-note) that no checkpoint reader takes for a checkpoint: its second line is no size. It names
the last tree that the old key signed, and it is an entry of the log. As a file it lies beside the tiles: `rotation/1`, `rotation/2`, …

falaj log rotation v1
falaj.example/log                                  ← origin, which stays
falaj.example/log+530d903a+AekyeRrm56h…            ← the old key
falaj.example/log+03a1b2c4+ATVgP/qzjSQ…            ← the new one
8                                                  ← size and root of the last tree that the old one signed
XcnaeacGWamtVZy3Ad7ZoqudgjqtL0lgz+Nw7/RgQyg=

— falaj.example/log Uw2QOv…                        ← by the old key
— falaj.example/log A6GyxA…                        ← by the new one
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import msgspec

from falaj.governance.audit import note
from falaj.governance.audit.merkle import HASH_SIZE
from falaj.governance.audit.model import decode
from falaj.governance.audit.note import Checkpoint, Opened, Signs, Verifier
from falaj.kernel.errors import FalajError, Integrity

FIRST = "falaj log rotation v1"
FOLDER = "rotation"
MAX_STATEMENT = 4096
"""Bytes of a statement at the most."""
MAX_ROTATIONS = 1000
ACTION, KEY = "keys.rotate", "log"
"""What the entry of a rotation says was done, and to what."""
_MARK = f'"statement":"{FIRST}'.encode()


class Rotation(msgspec.Struct, frozen=True):
    """What a statement says. `size` and `root` are of the last tree that the old key signed."""

    old: Verifier
    new: Verifier
    size: int
    root: bytes

    @property
    def text(self) -> str:
        """The text that is signed."""
        root = base64.b64encode(self.root).decode()
        return "\n".join([FIRST, self.old.name, self.old.vkey, self.new.vkey, str(self.size), root, ""])


class LogKeys(msgspec.Struct, frozen=True):
    """The keys that a log has had, the oldest first, and what led from each to the next."""

    verifiers: tuple[Verifier, ...]
    rotations: tuple[Rotation, ...] = ()

    @property
    def newest(self) -> Verifier:
        """The key that signs now."""
        return self.verifiers[-1]

    def open(self, raw: bytes, witnesses: Sequence[Verifier] = ()) -> tuple[Checkpoint, Opened]:
        """A checkpoint by any of these keys, as `note.open_witnessed`; by a replaced one only of the trees up to its end.

        Raises `Integrity`.
        """
        if not self.rotations:
            return note.open_witnessed(raw, self.newest, witnesses)
        opened = note.open_note(raw, [*self.verifiers, *witnesses])
        checkpoint = note.parse_checkpoint(opened.text)
        if checkpoint.origin != self.newest.name:
            raise _bad(f"the checkpoint is of {checkpoint.origin}, not of {self.newest.name}", "bad_checkpoint")
        signed = [i for i, v in enumerate(self.verifiers) if v.vkey in opened.signers]
        if not signed:
            raise _bad("no signature by the log's own key", "audit_unsigned")
        if signed[-1] < len(self.rotations):
            end = self.rotations[signed[-1]]
            if checkpoint.size > end.size or (checkpoint.size == end.size and checkpoint.root != end.root):
                raise _bad(
                    f"the checkpoint of {checkpoint.size} entries is by a key that signed nothing beyond {end.size}",
                    "audit_key_replaced",
                )
        return checkpoint, opened


def state(rotation: Rotation, old: Signs, new: Signs) -> bytes:
    """The statement, signed by both keys."""
    name = rotation.old.name
    return note.sign(rotation.text, [(name, old), (name, new)])


def parse(statement: bytes) -> Rotation:
    """Read a statement. Raises `Integrity` unless both keys signed exactly this, and nobody else did."""
    try:
        if len(statement) > MAX_STATEMENT:
            raise _bad("it is too large")
        lines = statement.decode("utf-8").split("\n")
        if lines[0] != FIRST or len(lines) < 7 or not lines[4].isascii() or not lines[4].isdecimal():
            raise _bad("it is not written as one")
        root = note.unbase64(lines[5])
        rotation = Rotation(note.parse_vkey(lines[2]), note.parse_vkey(lines[3]), int(lines[4]), root)
        opened = note.open_note(statement, (rotation.old, rotation.new))
        if len(root) != HASH_SIZE or opened.text != rotation.text or lines[1] != rotation.old.name:
            raise _bad("it is not written as one")
        by = [(name, key_id) for name, key_id, _ in note.lines_of(statement)]
        if by != [(v.name, v.key_id) for v in (rotation.old, rotation.new)] or rotation.new.name != rotation.old.name:
            raise _bad("it is not by the old key and the new one of one log")
    except (FalajError, UnicodeDecodeError) as e:
        why = e.message if isinstance(e, FalajError) else "it is not text"
        raise _bad(f"this is no statement that a log's key was replaced: {why}") from e
    return rotation


def told_in(entry: bytes) -> bytes:
    """The statement that an entry of the log holds; nothing for an entry of anything else."""
    if _MARK not in entry:
        return b""
    try:
        found = decode(entry)
    except FalajError:
        return b""
    statement = found.detail.get("statement")
    replaced = (found.action, found.resource_id, found.outcome) == (ACTION, KEY, "done")
    return statement.encode() if replaced and isinstance(statement, str) else b""


def follow(trusted: Verifier, statements: Sequence[bytes]) -> LogKeys:
    """From a trusted key, wherever it stands among them, to all keys that the log has had. Raises `Integrity`."""
    if not statements:
        return LogKeys((trusted,))
    rotations = tuple(parse(s) for s in statements)
    for one, next_one in pairwise(rotations):
        if one.new != next_one.old or one.size > next_one.size:
            raise _bad("the statements that the log's key was replaced do not follow each other")
    verifiers = (rotations[0].old, *(r.new for r in rotations))
    if trusted not in verifiers or len(set(verifiers)) != len(verifiers):
        raise _bad("the trusted key is none of those that the statements lead to", "audit_unsigned")
    return LogKeys(verifiers, rotations)


def path(number: int) -> str:
    """Where the statement of the log's first, second, … rotation lies."""
    return f"{FOLDER}/{number}"


def is_path(name: str) -> bool:
    """Whether a name is one that `path` gives."""
    number = name.removeprefix(f"{FOLDER}/")
    return number.isascii() and number.isdecimal() and name == path(int(number)) and 0 < int(number) <= MAX_ROTATIONS


def stored(folder: Path) -> list[bytes]:
    """The statements that lie in a log's folder, in order, up to the first gap."""
    found: list[bytes] = []
    while len(found) < MAX_ROTATIONS:
        file = folder / path(len(found) + 1)
        if file.is_symlink() or not file.is_file():
            break
        with file.open("rb") as f:
            found.append(f.read(MAX_STATEMENT + 1))
    return found


def keys_in(folder: Path, vkey: str) -> LogKeys:
    """The keys of the log in a folder, as far as a trusted one vouches for them. Raises `Integrity`, `Invalid`."""
    return follow(note.parse_vkey(vkey), stored(folder))


def _bad(message: str, code: str = "bad_rotation") -> Integrity:
    return Integrity(
        message,
        hint="fetch it again from the log, and take the log's key from somewhere else than the copy",
        code=code,
    )
