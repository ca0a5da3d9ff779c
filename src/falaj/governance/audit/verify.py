"""Checks a published log from its bytes: entries → leaf hashes → tiles → root → signed checkpoint.

Nothing is taken from a cache or a column, and every byte of every file is either checked or named as surplus.
Knows no SQL: database rows are handed in.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from falaj.governance.audit import merkle, note, rotation, shards, tiles
from falaj.governance.audit.model import COLUMNS, Report, Stored, columns_of, decode
from falaj.governance.audit.quorum import NONE, WitnessPolicy
from falaj.kernel.clock import iso
from falaj.kernel.errors import FalajError

CHECKPOINT = "checkpoint"
VKEY = "vkey"
HEAD = "head"
MAX_PROBLEMS = 100
"""Differences that are named one by one; the rest is counted as one line."""
_TRIES = 5
_MAX_BUNDLE = tiles.WIDTH * (tiles.MAX_BYTES + 2)


def verify_folder(
    folder: Path, vkey: str | None, policy: WitnessPolicy | None = None, *, exported: bool = False, first: int = 0,
    beside: str = "",
) -> Report:  # fmt: skip
    """Check one published folder, of a log or of one of its shards, against a trusted `vkey`; with None only against the key that lies in it.

    With a `policy` every line below the checkpoint must be by the log or by a witness that the policy names, and is
    checked; whether they suffice is said in `quorum` and left to whoever asks. A folder that is being published is read
    again when its head moved meanwhile. One that may be `exported` needs no head: that file is the publisher's own.
    `first` is the number that its first entry is named by; what lies in the folder `beside` is looked at by whoever asks.
    """
    for _ in range(_TRIES):
        before = heads(folder)
        report = _FolderCheck(folder, vkey, policy, exported=exported, first=first, beside=beside).run()
        if report.ok or heads(folder) == before:
            return report
    return _FolderCheck(folder, vkey, policy, exported=exported, first=first, beside=beside).run()


def demanding_quorum(report: Report, policy: WitnessPolicy) -> Report:
    """The report of whoever believes no checkpoint that the policy's quorum has not cosigned."""
    if report.quorum is not False:
        return report
    seen = ", ".join(report.witnesses) or "no witness"
    problem = f"{CHECKPOINT}: it has no quorum of witnesses: cosigned by {seen}, needed: {policy.rule}"
    return msgspec.structs.replace(report, ok=False, problems=(*report.problems, problem))


def check_extends(
    old: bytes, new: bytes, vkey: str, proof: Sequence[bytes], rotations: Sequence[bytes] = ()
) -> tuple[note.Checkpoint, note.Checkpoint]:
    """Both checkpoints, after proving that the log of `new` begins with the log of `old`. Raises `Integrity`.

    Each is by the trusted `vkey`, or by a key that `rotations` lead to.
    """
    keys = rotation.follow(note.parse_vkey(vkey), rotations)
    first, last = keys.open(old)[0], keys.open(new)[0]
    if first.size == 0 and first.root == merkle.EMPTY_ROOT:
        return first, last  # an empty log is the beginning of every log
    merkle.verify_consistency(first.size, last.size, first.root, last.root, proof)
    return first, last


def verify_database_entries(entries: Iterable[Stored], folder: Path, vkey: str | None = None, first: int = 0) -> Report:
    """Check database rows (all from `first` on, by index) against the signed tiles in `folder`, and name those that differ.

    Rows that no checkpoint covers yet are checked only against themselves. The folder must not move meanwhile; where it
    may, the caller compares its `heads` before and after.
    """
    return _DatabaseCheck(folder, vkey, first=first).run(entries)


class _Problems:
    """The first `MAX_PROBLEMS` of what was found."""

    def __init__(self) -> None:
        self._found: list[str] = []

    def add(self, text: str) -> None:
        if len(self._found) < MAX_PROBLEMS:
            self._found.append(text)
        elif len(self._found) == MAX_PROBLEMS:
            self._found.append(f"more than {MAX_PROBLEMS} differences; the rest is not listed")

    @property
    def full(self) -> bool:
        return len(self._found) > MAX_PROBLEMS

    def __bool__(self) -> bool:
        return bool(self._found)

    def texts(self) -> tuple[str, ...]:
        return tuple(self._found)


class _Check:
    """Reading a folder: what both verifications share."""

    def __init__(
        self, folder: Path, vkey: str | None, policy: WitnessPolicy | None = None, *, exported: bool = False,
        first: int = 0, beside: str = "",
    ) -> None:  # fmt: skip
        self.folder = folder
        self.first = first
        self.beside = beside
        self.vkey = vkey
        self.policy = policy
        self.exported = exported
        self.problems = _Problems()
        self.checked = 0
        self.opened: note.Opened | None = None
        self.keys: rotation.LogKeys | None = None
        self.statements = rotation.stored(folder)

    def checkpoint(self) -> note.Checkpoint | None:
        """The signed checkpoint, or None with the problem named."""
        try:
            lying = (self.read(VKEY, note.MAX_NOTE) or b"").decode("utf-8", "replace")
            if self.vkey is None and not lying:
                return None
            trusted = self.vkey if self.vkey is not None else lying.removesuffix("\n")
            if self.vkey is None and not lying.endswith("\n"):
                self.problems.add(f"{VKEY}: it does not end in a newline")
            verifier = note.parse_vkey(trusted)
        except FalajError as e:
            self.problems.add(f"{VKEY}: {e.message}")
            return None
        keys = self._followed(verifier)
        if keys is None:
            return None
        if self.vkey is not None and lying and lying != keys.newest.vkey + "\n":
            self.problems.add(f"{VKEY}: it is not the trusted key" + (", nor the newest" if self.statements else ""))
        signed = self.read(CHECKPOINT, note.MAX_NOTE)
        if signed is None:
            return None
        try:
            witnesses = self.policy.verifiers if self.policy else ()
            checkpoint, self.opened = keys.open(signed, witnesses)
        except FalajError as e:
            self.problems.add(f"{CHECKPOINT}: {e.message}")
            return None
        if self.policy and self.opened.unknown:
            self.problems.add(f"{CHECKPOINT}: a line by {self.opened.unknown[0]} is by no key that the policy names")
        return checkpoint

    def _followed(self, trusted: note.Verifier) -> rotation.LogKeys | None:
        """The log's keys, from the trusted one by the statements in the folder; None with the wrong one named."""
        for number, statement in enumerate(self.statements, 1):
            self.checked += len(statement)
            try:
                rotation.parse(statement)
            except FalajError as e:
                self.problems.add(f"{rotation.path(number)}: {e.message}")
                return None
        try:
            self.keys = rotation.follow(trusted, self.statements)
        except FalajError as e:
            self.problems.add(f"{rotation.FOLDER}: {e.message}")
        return self.keys

    def read(self, name: str, limit: int) -> bytes | None:
        """A file's bytes, or None with the problem named."""
        path = self.folder / name
        try:
            if path.is_symlink() or not path.is_file():
                self.problems.add(f"{name}: it is missing")
            elif path.stat().st_size > limit:
                self.problems.add(f"{name}: it is larger than {limit} bytes")
            else:
                data = path.read_bytes()
                self.checked += len(data)
                return data
        except OSError as e:
            self.problems.add(f"{name}: it cannot be read ({e.strerror})")
        return None

    def hashes(self, level: int, n: int, width: int) -> list[bytes] | None:
        """The hashes of a tile, or None with the problem named."""
        name = tiles.hash_path(level, n, width)
        size = width * merkle.HASH_SIZE
        data = self.read(name, size)
        if data is not None and len(data) != size:
            self.problems.add(f"{name}: it has {len(data)} bytes instead of {size}")
            return None
        return None if data is None else tiles.split_hashes(data)

    def report(self, checkpoint: note.Checkpoint | None) -> Report:
        return Report(
            ok=checkpoint is not None and not self.problems,
            size=checkpoint.size if checkpoint else 0,
            root=checkpoint.text.split("\n")[2] if checkpoint else "",
            problems=self.problems.texts(),
            checked_bytes=self.checked,
            witnesses=self._cosigned(),
            quorum=self._quorum(checkpoint),
            unchecked=len(self.opened.unknown) if self.opened and not self.policy else 0,
            rotations=len(self.statements),
        )

    def _cosigned(self) -> dict[str, str]:
        """The witnesses of the policy that cosigned, and when, in the policy's order."""
        times = self.opened.times if self.opened else {}
        found = self.policy.witnesses if self.policy else ()
        return {w.name: _moment(times[w.verifier.vkey]) for w in found if w.verifier.vkey in times}

    def _quorum(self, checkpoint: note.Checkpoint | None) -> bool | None:
        if self.policy is None or self.policy.quorum == NONE:
            return None
        return checkpoint is not None and self.opened is not None and self.policy.met(self.opened.times)


class _FolderCheck(_Check):
    """`told` are the statements of rotations that the entries hold, with the entries' positions; `ends` the roots of the
    trees at which keys ended, as the entries give them."""

    def run(self) -> Report:
        self.told: list[tuple[int, bytes]] = []
        self.ends: dict[int, bytes] = {}
        checkpoint = self.checkpoint()
        if checkpoint is not None:
            self._tree(checkpoint)
            self._files(checkpoint, self._head(checkpoint))
        return self.report(checkpoint)

    def _head(self, checkpoint: note.Checkpoint) -> int:
        """The size that is being published, which is the signed one at rest; an exported log has no such file."""
        if self.exported and not (self.folder / HEAD).exists():
            return checkpoint.size
        data = self.read(HEAD, note.MAX_NOTE)
        if data is None:
            return checkpoint.size
        try:
            head = note.parse_head(data)
        except FalajError as e:
            self.problems.add(f"{HEAD}: {e.message}")
            return checkpoint.size
        if head.origin != checkpoint.origin or head.size < checkpoint.size:
            self.problems.add(f"{HEAD}: it stands at {head.origin} {head.size}, before the checkpoint")
        elif head.size == checkpoint.size and head.root != checkpoint.root:
            self.problems.add(f"{HEAD}: its root is not the checkpoint's")
        return head.size

    def _tree(self, checkpoint: note.Checkpoint) -> None:
        from_entries: merkle.Frontier | None = merkle.Frontier()
        from_tiles = from_entries
        parents: list[bytes | None] = []
        for n, width in tiles.spans(checkpoint.size):
            leaves, hashes = self._leaves(n, width), self.hashes(0, n, width)
            self._compare(n, leaves, hashes)
            self._note_ends(from_entries, leaves)
            # Both trees are only worth their hashing while they differ; equal leaves give one tree.
            same = leaves == hashes and from_entries is from_tiles
            from_entries = _extended(from_entries, leaves)
            from_tiles = from_entries if same else _extended(from_tiles, hashes)
            if width == tiles.WIDTH:
                parents.append(None if hashes is None else merkle.root_from_leaves(hashes))
            if self.problems.full:
                return
        self._parents(1, parents)
        self._root(checkpoint, from_entries, from_tiles)
        self._rotations(checkpoint)

    def _note_ends(self, before: merkle.Frontier | None, leaves: list[bytes] | None) -> None:
        """Keep the root at each end of a key that lies within these leaves."""
        for end in self.keys.rotations if self.keys else ():
            if before is not None and leaves is not None and before.size <= end.size <= before.size + len(leaves):
                self.ends[end.size] = before.extend(leaves[: end.size - before.size]).root()

    def _rotations(self, checkpoint: note.Checkpoint) -> None:
        """Each statement in the folder is an entry, in order, after the tree that it names; and no entry lacks its file.

        A key may have been replaced a moment ago: the entry of the last one may not be under the checkpoint yet.
        """
        rotations = self.keys.rotations if self.keys else ()
        for number, statement in enumerate(self.statements, 1):
            name, end = rotation.path(number), rotations[number - 1]
            if number > len(self.told):
                if number < len(self.statements) or checkpoint.size > end.size:
                    self.problems.add(f"{name}: no entry of the log holds this statement")
            elif self.told[number - 1][1] != statement or self.told[number - 1][0] < end.size:
                self.problems.add(f"{name}: entry {self.told[number - 1][0]} holds another statement")
            if end.size > checkpoint.size or self.ends.get(end.size, merkle.EMPTY_ROOT) != end.root:
                self.problems.add(f"{name}: the entries do not give the root that it names at {end.size}")
        for at, _ in self.told[len(self.statements) :]:
            self.problems.add(f"entry {at}: the log's key was replaced, and {rotation.FOLDER} has no statement of it")

    def _leaves(self, n: int, width: int) -> list[bytes] | None:
        """The leaf hashes that the entries of a bundle give; None if they cannot be told apart."""
        name = tiles.entries_path(n, width)
        data = self.read(name, _MAX_BUNDLE)
        if data is None:
            return None
        entries, whole = tiles.decode_entries(data)
        if not whole or len(entries) != width:
            rest = "" if whole else " and a rest"
            self.problems.add(f"{name}: it holds {len(entries)} whole entries{rest} instead of {width}")
        first = n * tiles.WIDTH
        self.told += [(first + i, told) for i, e in enumerate(entries) if (told := rotation.told_in(e))]
        for at in (self.first + first + i for i, e in enumerate(entries) if first + i and shards.told_in(e)):
            self.problems.add(f"entry {at}: it begins a shard of the log, and lies within one")
        return [merkle.leaf_hash(entry) for entry in entries]

    def _compare(self, n: int, leaves: list[bytes] | None, hashes: list[bytes] | None) -> None:
        if leaves is None or hashes is None or leaves == hashes:
            return
        for i, (leaf, signed) in enumerate(zip(leaves, hashes, strict=False)):
            if leaf != signed:
                tile, bundle = tiles.hash_path(0, n, len(hashes)), tiles.entries_path(n, len(hashes))
                at = f"entry {self.first + n * tiles.WIDTH + i}"
                self.problems.add(f"{at}: its bytes in {bundle} do not give the leaf hash in {tile}")
                return

    def _parents(self, level: int, parents: list[bytes | None]) -> None:
        """Compare the tiles of `level` with the roots of the full tiles below, up to the top."""
        above: list[bytes | None] = []
        for n, width in tiles.spans(len(parents)):
            hashes = self.hashes(level, n, width)
            below = parents[n * tiles.WIDTH : n * tiles.WIDTH + width]
            for i, (expected, found) in enumerate(zip(below, hashes or [], strict=False)):
                if expected is not None and expected != found:
                    child = tiles.hash_path(level - 1, n * tiles.WIDTH + i)
                    self.problems.add(f"{tiles.hash_path(level, n, width)}: hash {i} is not the root of {child}")
            if width == tiles.WIDTH:
                above.append(None if hashes is None else merkle.root_from_leaves(hashes))
        if parents:
            self._parents(level + 1, above)

    def _root(
        self, checkpoint: note.Checkpoint, from_entries: merkle.Frontier | None, from_tiles: merkle.Frontier | None
    ) -> None:
        good_entries = from_entries is not None and from_entries.root() == checkpoint.root
        good_tiles = from_tiles is not None and from_tiles.root() == checkpoint.root
        if good_entries and good_tiles:
            return
        if good_entries:
            self.problems.add("the entries give the signed root: the tiles were changed, not the entries")
        elif good_tiles:
            self.problems.add("the tiles give the signed root: the entries were changed, not the tiles")
        else:
            self.problems.add(f"neither the entries nor the tiles give the root that {CHECKPOINT} signs")

    def _files(self, checkpoint: note.Checkpoint, head: int) -> None:
        """Name surplus files, unless too much else is wrong.

        Smaller partial tiles may stay if they are the beginning of what replaced them.
        """
        if self.problems.full:
            return
        expected = {CHECKPOINT, VKEY, HEAD, *tiles.paths(checkpoint.size)}
        expected.update(rotation.path(n) for n in range(1, len(self.statements) + 1))
        if head > checkpoint.size and head - checkpoint.size <= 1 << 20:
            expected.update(tiles.paths(head))
        for name in sorted(_walk(self.folder)):
            if self.beside and name.startswith(f"{self.beside}/"):
                continue
            if name not in expected and not self._beginning(name, expected):
                left = name.endswith(tiles.TEMPORARY) and name.removesuffix(tiles.TEMPORARY) in expected
                why = " (left by an interrupted publication; the publisher removes it when it starts)" if left else ""
                self.problems.add(f"{name}: it does not belong to this log{why}")

    def _beginning(self, name: str, expected: set[str]) -> bool:
        partial = tiles.partial_of(name)
        if partial is None or (self.folder / name).is_symlink():
            return False
        full, width = partial
        grown = [f"{full}.p/{w}" for w in range(width + 1, tiles.WIDTH)] + [full]
        whole = next((self.read(p, _MAX_BUNDLE) for p in grown if p in expected), None)
        part = self.read(name, _MAX_BUNDLE)
        if whole is None or part is None or not whole.startswith(part):
            return False
        if full.startswith("tile/entries/"):
            entries, ends = tiles.decode_entries(part)
            return ends and len(entries) == width
        return len(part) == width * merkle.HASH_SIZE


class _DatabaseCheck(_Check):
    def run(self, entries: Iterable[Stored]) -> Report:
        checkpoint = self.checkpoint()
        if checkpoint is None:
            return self.report(None)
        signed = self._signed(checkpoint)
        position, end = self.first, self.first + checkpoint.size
        for stored in entries:
            if stored.index < position:
                self.problems.add(f"entry {stored.index}: the database holds it twice or out of order")
                continue
            if stored.index > position:
                self._missing(position, stored.index)
                for _ in range(position, min(stored.index, end)):
                    next(signed, None)
            self._one(stored, next(signed, None) if stored.index < end else None)
            position = stored.index + 1
            if self.problems.full:
                return self.report(checkpoint)
        if position < end:
            self._missing(position, end)
        for _ in signed:  # to its end, where the tiles are held against the signed root
            pass
        return self.report(checkpoint)

    def _one(self, stored: Stored, signed: tuple[bytes, str] | None) -> None:
        at = f"entry {stored.index}"
        self.checked += len(stored.data)
        leaf = merkle.leaf_hash(stored.data)
        if signed is not None and leaf != signed[0]:
            self.problems.add(f"{at}: its bytes in the database do not give the leaf hash in {signed[1]}")
        elif leaf != stored.leaf:
            self.problems.add(f"{at}: the leaf hash in the database is not that of its bytes")
        try:
            real = columns_of(decode(stored.data))
        except FalajError:
            self.problems.add(f"{at}: its bytes in the database are not an audit entry")
            return
        for name, column, value in zip(COLUMNS, stored.columns, real, strict=True):
            if column != value:
                self.problems.add(f"{at}: the column {name} in the database is not what its bytes say")

    def _missing(self, first: int, end: int) -> None:
        which = f"entry {first}: it is" if end == first + 1 else f"entries {first} to {end - 1}: they are"
        self.problems.add(f"{which} missing in the database")

    def _signed(self, checkpoint: note.Checkpoint) -> Iterator[tuple[bytes, str] | None]:
        """(leaf hash, tile) for each signed entry; at the end the tiles are held against the signed root."""
        tree: merkle.Frontier | None = merkle.Frontier()
        for n, width in tiles.spans(checkpoint.size):
            hashes = self.hashes(0, n, width)
            tree = _extended(tree, hashes)
            name = tiles.hash_path(0, n, width)
            yield from ([None] * width if hashes is None else ((leaf, name) for leaf in hashes))
        if tree is None or tree.root() != checkpoint.root:
            self.problems.add(f"the leaf hashes in tile/0 do not give the root that {CHECKPOINT} signs")


def _extended(tree: merkle.Frontier | None, leaves: list[bytes] | None) -> merkle.Frontier | None:
    """The tree with these leaves; None once anything is unknown."""
    return None if tree is None or leaves is None else tree.extend(leaves)


def _moment(seconds: int) -> str:
    """RFC 3339; the number itself where it is beyond every calendar."""
    try:
        return iso(datetime.fromtimestamp(seconds, UTC))
    except (ValueError, OverflowError, OSError):
        return str(seconds)


def _walk(folder: Path) -> Iterator[str]:
    """Every file and link below `folder`, as a POSIX path relative to it."""
    for base, folders, files in os.walk(folder):
        here = Path(base)
        for name in [*files, *(f for f in folders if (here / f).is_symlink())]:
            yield (here / name).relative_to(folder).as_posix()


def heads(folder: Path) -> tuple[bytes, ...]:
    """The bytes of the two files that tell whether the log moved while it was read; none for one that is not there."""
    found = []
    for name in (HEAD, CHECKPOINT):
        path = folder / name
        found.append(path.read_bytes() if path.is_file() else b"")
    return tuple(found)
