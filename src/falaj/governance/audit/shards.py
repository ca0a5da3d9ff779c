"""A log in shards: each is a C2SP log of its own, and a signed link leads from each to the next and back.

The first shard lies in the log's folder, the later ones in `shard/2`, `shard/3`, … below it. Entries keep their numbers: a shard is
the range from its first entry to below the first of the next one.

forward    the last checkpoint of a shard is final. It says so in an extension line, which any C2SP reader accepts:

    falaj.example/log
    42
    XcnaeacGWamtVZy3Ad7ZoqudgjqtL0lgz+Nw7/RgQyg=
    sealed: next falaj.example/log/2027+03a1b2c4+ATVgP/qzjSQ…      ← the vkey of the shard that follows

back       the first entry of the next shard names the key, the size and the root that the shard before it ended with

So whoever trusts the key of any shard gets to all of them, and nobody can drop, exchange or insert a whole shard unseen.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Sequence
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec

from falaj.governance.audit import merkle, note, rotation, tiles
from falaj.governance.audit.model import AUDIT_SHARD, AUDIT_TURN, Entry, decode
from falaj.governance.audit.note import Checkpoint, Verifier
from falaj.governance.audit.proof import Proof, check_proof, encode_proof, parse_proof
from falaj.governance.audit.rotation import LogKeys
from falaj.kernel.errors import FalajError, Integrity

FOLDER = "shard"
MAX_SHARDS = 1000
ACTIONS = (AUDIT_SHARD.name, AUDIT_TURN.name)
"""What the entry that begins a shard says was done."""
FORMAT = "falaj log shard v1"
NONE, YEAR, MONTH = "none", "year", "month"
PERIODS = (NONE, YEAR, MONTH)
_PERIOD = re.compile(r"\d{4}(-\d{2})?(\.[1-9]\d{0,3})?\Z", re.ASCII)
_SEALED = "sealed: next "
_MARK = f'"log":"{FORMAT}"'.encode()
_BUNDLE = tiles.WIDTH * (tiles.MAX_BYTES + 2)


class End(msgspec.Struct, frozen=True):
    """What a shard ended with: its key then, its size and its root (base64, as in the checkpoint)."""

    vkey: str
    size: int
    root: str


class Shard(msgspec.Struct, frozen=True):
    """A shard: which one (from 1), its name, the number of its first entry in the whole log, what the one before it ended
    with, its key when it began, and when that was. The first one has neither of the last three."""

    number: int
    origin: str
    first: int = 0
    previous: End | None = None
    vkey: str = ""
    at: str = ""

    @property
    def place(self) -> str:
        """Where it lies below the log's folder; ends in a slash unless that is the folder itself."""
        return place(self.number)


class Part(msgspec.Struct, frozen=True):
    """What one shard hands out so that all of them can be followed; nothing of it is believed yet.

    `link` is the proof (c2sp.org/tlog-proof) of its first entry under `checkpoint`; the first shard needs none.
    """

    checkpoint: bytes
    rotations: tuple[bytes, ...] = ()
    link: bytes = b""


class Known(msgspec.Struct, frozen=True):
    """A shard that was followed: its keys, its newest checkpoint, and the number of its first entry in the whole log."""

    number: int
    keys: LogKeys
    checkpoint: Checkpoint
    opened: note.Opened
    first: int = 0


def place(number: int) -> str:
    """Where a shard lies below the log's folder; see `Shard.place`."""
    return "" if number == 1 else f"{FOLDER}/{number}/"


def split(path: str) -> tuple[int, str] | None:
    """A file's path below the log's folder as shard and path in it; None for one that is spelt otherwise."""
    head, _, rest = path.partition("/")
    if head != FOLDER:
        return 1, path
    number, _, name = rest.partition("/")
    fits = number.isascii() and number.isdecimal() and len(number) < 5 and 1 < int(number) <= MAX_SHARDS
    return (int(number), name) if fits and path == place(int(number)) + name else None


def sealed(checkpoint: Checkpoint, vkey: str) -> Checkpoint:
    """A shard's final checkpoint; `vkey` is the next one's."""
    return Checkpoint(checkpoint.origin, checkpoint.size, checkpoint.root, (f"{_SEALED}{vkey}",))


def next_of(checkpoint: Checkpoint) -> str:
    """The vkey of the shard that a final checkpoint says follows; empty for a checkpoint that is not final."""
    lines = [line for line in checkpoint.extensions if line.startswith(_SEALED)]
    return lines[0].removeprefix(_SEALED) if lines else ""


def beginning(shard: Shard) -> dict[str, Any]:
    """What the entry that begins a shard says of it."""
    told = {"vkey": shard.vkey, "first": shard.first, "previous": msgspec.to_builtins(shard.previous)}
    return {"log": FORMAT, **told}


def told_in(entry: bytes) -> Shard | None:
    """The shard that an entry begins (its number is not known from it: 0); None for an entry of anything else."""
    if _MARK not in entry:
        return None
    try:
        found = decode(entry)
    except FalajError:
        return None
    return of_entry(found)


def of_entry(entry: Entry, number: int = 0) -> Shard | None:
    """The shard that an entry begins; None for an entry of anything else."""
    if entry.action not in ACTIONS or entry.outcome != "done" or entry.detail.get("log") != FORMAT:
        return None
    try:
        told = entry.detail
        origin = note.parse_vkey(str(told.get("vkey"))).name
        previous = msgspec.convert(told.get("previous"), End)
        return Shard(number, origin, msgspec.convert(told.get("first"), int), previous, str(told["vkey"]), entry.at)
    except (msgspec.ValidationError, FalajError):
        return None


def period_of(kind: str, moment: datetime) -> str:
    """The year or the month of a moment, as shards are named by; the year too where no period is set."""
    return f"{moment:%Y-%m}" if kind == MONTH else f"{moment:%Y}"


def is_shard_of(name: str, log: str) -> bool:
    """Whether a shard of this name may follow the log, or the shard, of that one."""
    base, parted, period = name.rpartition("/")
    own, _, last = log.rpartition("/")
    bases = (log, own) if _PERIOD.match(last) else (log,)
    return bool(parted and _PERIOD.match(period)) and base in bases


def name_for(base: str, period: str, taken: Sequence[str]) -> str:
    """The name of a new shard: the log's and the period's; a second one in the same period counts on."""
    names = (f"{base}/{period}" + (f".{n}" if n > 1 else "") for n in range(1, MAX_SHARDS + 1))
    return next(name for name in names if name not in taken)


def there(folder: Path, *, midway: bool = False) -> int:
    """How many shards lie in a log's folder, up to the first gap. One that may be `midway` was left by a crash between two
    shards: the last one does not count before it has a checkpoint."""
    number = 1
    while number < MAX_SHARDS and (folder / place(number + 1)).is_dir():
        number += 1
    unsigned = midway and number > 1 and not (folder / place(number) / "checkpoint").exists()
    return number - unsigned


def parts_in(folder: Path, *, midway: bool = False) -> list[Part]:
    """The shards that lie in a log's folder, as `there`. What cannot be read is empty: whoever follows says so."""
    return [_part(folder, number) for number in range(1, there(folder, midway=midway) + 1)]


def link_of(folder: Path, checkpoint: bytes) -> bytes:
    """The proof of the first entry of the log in a folder, under its checkpoint. Raises `FalajError` or `OSError`."""
    size = note.unsigned(checkpoint).size
    bundle = tiles.read_tile(folder, tiles.Name(None, 0, 1), size)
    entries, _ = tiles.decode_entries(bundle or b"")
    hashes = merkle.inclusion_proof(tiles.stored_nodes(folder, size), 0, size)
    return encode_proof(Proof(0, hashes, checkpoint, entries[0] if entries else b""))


def follow(parts: Sequence[Part], trusted: Verifier) -> tuple[Known, ...]:
    """All shards, from a trusted key of any of them, each bound to its neighbours. Raises `Integrity`, naming the shard."""
    origins = [_named(number, part) for number, part in enumerate(parts, 1)]
    if trusted.name not in origins:
        raise _cut(1, f"the trusted key is of {trusted.name}, and no shard is")
    start = origins.index(trusted.name)
    known = {start: _opened(start, parts[start], trusted)}
    for i in range(start + 1, len(parts)):
        after = next_of(known[i - 1].checkpoint)
        if not after:
            raise _cut(i, f"its checkpoint is not final, and {place(i + 1)[:-1]} follows it")
        known[i] = _opened(i, parts[i], _vkey(i, after))
    for i in range(start - 1, -1, -1):
        end = _told(i + 1, parts[i + 1], known[i + 1])
        known[i] = _opened(i, parts[i], _vkey(i, end.previous.vkey if end.previous else ""))
    chain: list[Known] = []
    for i in range(len(parts)):
        first = chain[-1].first + chain[-1].checkpoint.size if chain else 0
        chain.append(msgspec.structs.replace(known[i], first=first))
        if i:
            _check_joint(chain[-2], chain[-1], parts[i])
    return tuple(chain)


def missing_after(chain: Sequence[Known]) -> str:
    """That the newest shard there is says that another one follows; empty where it is the newest."""
    after = next_of(chain[-1].checkpoint)
    at = place(len(chain) + 1)[:-1]
    return f"{at}: it is missing: the final checkpoint before it names {after.partition('+')[0]}" if after else ""


def _part(folder: Path, number: int) -> Part:
    at = folder / place(number)
    try:
        with (at / "checkpoint").open("rb") as f:
            checkpoint = f.read(note.MAX_NOTE + 1)
    except OSError:
        return Part(b"")
    try:
        link = link_of(at, checkpoint) if number > 1 else b""
    except (FalajError, OSError):
        link = b""
    return Part(checkpoint, tuple(rotation.stored(at)), link)


def _named(number: int, part: Part) -> str:
    try:
        return note.unsigned(part.checkpoint).origin
    except FalajError as e:
        raise _cut(number, f"checkpoint: {e.message}") from e


def _vkey(i: int, text: str) -> Verifier:
    try:
        return note.parse_vkey(text)
    except FalajError as e:
        raise _cut(i + 1, f"what leads to it names no key: {e.message}") from e


def _opened(i: int, part: Part, trusted: Verifier) -> Known:
    try:
        keys = rotation.follow(trusted, part.rotations)
        return Known(i + 1, keys, *keys.open(part.checkpoint))
    except FalajError as e:
        raise _cut(i + 1, f"checkpoint: {e.message}") from e


def _told(i: int, part: Part, known: Known) -> Shard:
    """What the first entry of a shard says, proven under its checkpoint."""
    try:
        proof = parse_proof(part.link)
        if proof.checkpoint != part.checkpoint:
            raise _cut(i + 1, "the proof of its first entry is under another checkpoint")
        # Any key of the shard may have signed; it was opened by the trusted ones already.
        proven = check_proof(proof, known.keys.newest.vkey, rotations=part.rotations)
    except FalajError as e:
        raise _cut(i + 1, f"its first entry is not proven: {e.message}") from e
    told = of_entry(proven.entry)
    if proven.index != 0 or told is None:
        raise _cut(i + 1, "its first entry names no shard before it")
    return told


def _check_joint(earlier: Known, later: Known, part: Part) -> None:
    """The final checkpoint names the next shard, and its first entry names that checkpoint."""
    i = later.number - 1
    told = _told(i, part, later)
    after = next_of(earlier.checkpoint)
    if not after:
        raise _cut(earlier.number, f"its checkpoint is not final, and {place(later.number)[:-1]} follows it")
    if after != later.keys.verifiers[0].vkey or after != told.vkey:
        raise _cut(later.number, f"it is {later.checkpoint.origin}, and the final checkpoint before it names another")
    ended = End(earlier.keys.newest.vkey, earlier.checkpoint.size, earlier.checkpoint.text.split("\n")[2])
    if told.previous != ended or told.first != later.first:
        raise _cut(later.number, f"its first entry names another end of {earlier.checkpoint.origin} than there is")


def root_of(text: str) -> bytes:
    """A root as an entry names it; empty for what is none."""
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return b""


def in_order(begun: Sequence[tuple[int, Entry]], base: str) -> tuple[Shard, ...]:
    """The shards of a log, from the entries (with their numbers) that begin the later ones. Raises `Integrity`."""
    found = [Shard(1, base)]
    for index, entry in sorted(begun, key=lambda pair: pair[0]):
        told = of_entry(entry, len(found) + 1)
        if told is not None:
            found.append(told)
            if told.first != index:
                raise _cut(told.number, f"entry {index} begins it, and says that entry {told.first} does")
    for earlier, later in pairwise(found):
        if later.previous is None or later.previous.size != later.first - earlier.first:
            raise _cut(later.number, f"entry {later.first} begins it, and names another end of {earlier.origin}")
    return tuple(found)


def _cut(number: int, why: str) -> FalajError:
    at = place(number)[:-1] or "the first shard"
    return Integrity(
        f"{at}: {why}",
        hint="fetch the log again from its operator; if it stays so, a shard was exchanged, or the link between two was cut",
        code="audit_shard_cut",
    )
