"""Signs checkpoints over what is committed and writes the tiles that prove them.

The order of one publication, so that a crash anywhere is finished and never forked:

    committed rows → leaf hashes → head (persisted) → tiles → signature → checkpoint → outgrown partial tiles removed
    → witnesses asked → checkpoint with their lines

A signed tree is always the last signed one with leaves added: its edge is rebuilt from the bytes of all rows when the
publisher first works, and the rows of the last tile are hashed again at every publication.

Which shard is signed is read from the committed rows, each time: an entry that begins a shard ends the one before it, whose
final checkpoint is signed first. A crash anywhere in between is the same as a publication that has not come yet.
"""

from __future__ import annotations

import base64
import errno
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import msgspec

from falaj.governance.audit import merkle, note, rotation, shards, tiles
from falaj.governance.audit.model import Published, Stored, decode
from falaj.governance.audit.ports import AuditStore, Cosigners
from falaj.governance.audit.quorum import NONE
from falaj.governance.audit.shards import End, Shard
from falaj.governance.audit.verify import CHECKPOINT, HEAD, VKEY, verify_database_entries
from falaj.kernel.clock import Clock, iso
from falaj.kernel.disk import refusal
from falaj.kernel.errors import FalajError, Integrity, Unavailable
from falaj.kernel.log import logger
from falaj.storage.sql.database import Database, Tx

ROUND = 64 * tiles.WIDTH
"""Entries that one checkpoint adds at the most, which bounds memory (64 MiB at the largest entries)."""
FALLBACK = 0.5
"""Seconds after which the thread looks for new entries without being poked."""
AFTER_POKE = (0.2, 0.25)
"""Seconds to wait after a poke, so that the commit is there and several share one checkpoint; twice if it is late."""
_log = logger(__name__)


class _Signed(msgspec.Struct, frozen=True):
    """The last signed tree: its right edge, the checkpoint file's bytes, and when this process signed or read it."""

    edge: tiles.Edge
    checkpoint: bytes
    published: Published


class Tree(msgspec.Struct, frozen=True):
    """A published shard: its folder, its key now, its checkpoint as it lies there, and how many entries that signs."""

    shard: Shard
    folder: Path
    vkey: str
    checkpoint: bytes
    size: int


class Publisher:
    """The one signer of a log. `origin` names the log and its key; `folder` is what foreign tools read.

    `shard` is the one that grows, in `folder`; the log as a whole lies in `base`.
    """

    def __init__(
        self, database: Database, store: AuditStore, folder: Path, key: note.Signs, origin: str, clock: Clock,
        cosigners: Cosigners | None = None,
    ) -> None:  # fmt: skip
        self._database = database
        self._store = store
        self.base = folder
        self.shard = Shard(1, origin)
        self._key = key
        self._verifier = note.verifier_of(origin, key.public_key())
        self._keys = rotation.LogKeys((self._verifier,))
        self._signed: _Signed | None = None
        self._clock = clock
        self.cosigners = cosigners
        self._sealed_by: dict[int, Cosigners] = {}  # the witnesses of sealed shards, where they had to be asked again
        self._shards = read_shards(database, store, origin)
        self._looked = 0  # below which entry none is looked at again for shards
        self._go_to(self._unsealed())
        self._failure: FalajError | None = None
        self._broken: FalajError | None = None
        self._lock = threading.RLock()
        self._poked = threading.Event()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def vkey(self) -> str:
        """The verification key to hand to whoever checks the log."""
        return self._verifier.vkey

    @property
    def signed_size(self) -> int:
        """Entries of the whole log under the last checkpoint that this process signed or read; none of the shard that
        grows before the first `publish`."""
        signed = self._signed
        return signed.published.entries if signed else self.shard.first

    @property
    def newest(self) -> Published | None:
        """The last checkpoint that this process signed or read; None before the first `publish`."""
        signed = self._signed
        return signed.published if signed else None

    @property
    def origin(self) -> str:
        """The name of the shard that grows."""
        return self._verifier.name

    @property
    def folder(self) -> Path:
        """Where the shard that grows lies."""
        return self.base / self.shard.place

    @property
    def edge(self) -> tiles.Edge:
        """The right edge of the signed tree. Call it while nothing is published, after `publish`."""
        return self._recovered().edge

    def verifier_for(self, origin: str) -> note.Verifier:
        """The key of the log under the name of another shard."""
        return note.verifier_of(origin, self._key.public_key())

    def shards(self) -> tuple[Shard, ...]:
        """Every shard of the log up to the one that grows, the oldest first."""
        return self._shards[: self.shard.number]

    def trees(self) -> tuple[Tree, ...]:
        """Every published shard, the oldest first. Call it while nothing is published, after `publish`.

        Raises `Integrity` for a sealed one whose checkpoint is gone or broken.
        """
        found = []
        for shard, after in pairwise(self.shards()):
            folder = self.base / shard.place
            raw = _read(folder / CHECKPOINT)
            vkey = after.previous.vkey if after.previous else ""
            size = note.unsigned(raw).size
            if size != after.first - shard.first:
                raise _forked(f"the checkpoint of {shard.origin} is not the one that ended it")
            found.append(Tree(shard, folder, vkey, raw, size))
        signed = self._recovered()
        return (*found, Tree(self.shard, self.folder, self.vkey, signed.checkpoint, signed.edge.size))

    @property
    def quorum(self) -> bool | None:
        """Whether enough witnesses have cosigned the newest checkpoint; None when none are asked for, or before it."""
        signed = self._signed
        if self.cosigners is None:
            return None
        policy = self.cosigners.policy
        if policy.quorum == NONE or signed is None:
            return None
        return policy.met(self._keys.open(signed.checkpoint, self._witnesses)[1].times)

    @property
    def checkpoint(self) -> bytes:
        """The newest checkpoint as it lies in the folder; empty before the first `publish`."""
        signed = self._signed
        return signed.checkpoint if signed else b""

    @property
    def failure(self) -> FalajError | None:
        """Why the last publication failed, for the health page; None while all is well."""
        return self._failure

    def publish(self) -> Published:
        """Sign and write a checkpoint over everything committed; without new entries the last one is returned.

        Raises `Integrity` (nothing is signed) if the rows or the folder are not an extension of what was signed, and
        `Unavailable` if the folder cannot be written; after that this process signs no more, unless only room was
        lacking: then it is tried again.
        """
        with self._lock:
            with self._whole_or_not():
                published = self._publish()
            self._failure = None
            return published

    def witnessed(self, *, patient: bool = False) -> bool | None:
        """Ask the witnesses that have not cosigned the newest checkpoint yet, and write what they add; returns `quorum`.

        Nothing is published meanwhile: a checkpoint gets its cosignatures before the next one takes its place. Raises
        `Unavailable` as `publish` does; what a witness does is never raised.
        """
        with self._lock:
            if self.cosigners is None or self._signed is None:
                return self.quorum
            self._witness_newest(self.cosigners, patient=patient)
            strangers = any(w.state == "stranger" for w in self.cosigners.standing())
            if strangers and sum(self._witness_sealed(self.cosigners, *pair) for pair in pairwise(self.shards())):
                self._witness_newest(self.cosigners, patient=False)  # they know this shard now, from the one before it
            return self.quorum

    def _witness_newest(self, cosigners: Cosigners, *, patient: bool) -> None:
        signed = self._signed
        if signed is None:
            return
        nodes = tiles.stored_nodes(self.folder, signed.edge.size)
        raw = cosigners.cosigned(
            signed.checkpoint,
            self._verifier,
            lambda old, new: merkle.consistency_proof(nodes, old, new),
            patient=patient,
        )
        if raw != signed.checkpoint:
            with self._whole_or_not():
                tiles.write_files(self.folder, {CHECKPOINT: raw})
            self._signed = msgspec.structs.replace(signed, checkpoint=raw)

    def _witness_sealed(self, cosigners: Cosigners, shard: Shard, after: Shard) -> bool:
        """Ask the witnesses about a shard's final checkpoint; whether one of them has added a line."""
        folder, end = self.base / shard.place, after.previous
        raw = _read(folder / CHECKPOINT)
        if end is None or not raw:
            return False
        asked = self._sealed_by.setdefault(shard.number, cosigners.apart())
        nodes = tiles.stored_nodes(folder, end.size)
        more = asked.cosigned(
            raw, note.parse_vkey(end.vkey), lambda old, new: merkle.consistency_proof(nodes, old, new), patient=True
        )
        if more != raw:
            with self._whole_or_not():
                tiles.write_files(folder, {CHECKPOINT: more})
        return more != raw

    def take_over(self, key: note.Signs, statement: bytes) -> None:
        """Sign with another key from now on; the statement says so and leads to it. Call it while nothing is published.

        The change of keys is committed by now: when this raises, `Unavailable`, this process signs nothing more, for it
        would sign with the key that ended. The next start goes on from the entry.
        """
        with self._lock:
            try:
                with self._whole_or_not():
                    self._recovered()
                    number = len(self._keys.rotations) + 1
                    keys = rotation.follow(self._verifier, [*rotation.stored(self.folder), statement])
                    tiles.write_files(self.folder, {rotation.path(number): statement})
                    tiles.write_files(self.folder, {VKEY: f"{keys.newest.vkey}\n".encode()})
                    self._key, self._verifier, self._keys = key, keys.newest, keys
            except Exception as e:  # whatever it is, the old key must not go on
                why = e.message if isinstance(e, FalajError) else str(e)
                self._broken = self._failure = Unavailable(
                    f"the log's key was replaced, and this process went no further: {why}",
                    hint="mend what is said there, then restart: the start takes up the new key",
                    code="audit_not_written",
                )
                raise self._broken from e

    @property
    def statements(self) -> list[bytes]:
        """What led from each key of the log to the next."""
        return rotation.stored(self.folder)

    @contextmanager
    def _whole_or_not(self) -> Iterator[None]:
        """What is written within is whole, or this process begins from the bytes again, or never writes again."""
        if self._broken is not None:
            raise self._broken
        try:
            yield
        except OSError as e:
            full = refusal(e, self.folder) if e.errno in (errno.ENOSPC, errno.EDQUOT) else None
            if full is not None:  # each file is whole or absent: the next attempt begins from the bytes again
                self._signed = None
                self._failure = full
                raise full from e
            # After a failed write or fsync nobody knows what is on the disk: only a fresh start looks again.
            self._signed = None
            self._broken = self._failure = Unavailable(
                f"the audit folder cannot be written: {e.strerror or e}",
                hint="check the disk and the rights of the audit folder, then restart",
                code="audit_not_written",
            )
            raise self._broken from e
        except FalajError as e:
            self._signed = None  # the next attempt begins from the bytes again
            self._failure = e
            raise

    @contextmanager
    def held(self) -> Iterator[None]:
        """Nothing is published while this is held, so that the folder can be read as one state."""
        with self._lock:
            yield

    def start(self) -> None:
        """Publish in the background from now on: within a second of a commit."""
        if self._thread is not None:
            return
        self._stopping.clear()
        self._thread = threading.Thread(target=self._run, name="audit-publisher", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop the thread after publishing what is committed. Call it before the database is closed."""
        if self._thread is None:
            return
        self._stopping.set()
        self._poked.set()
        self._thread.join()
        self._thread = None
        if self._failure is None:
            self._attempt()

    def poke(self) -> None:
        """Say that something was or is about to be committed."""
        self._poked.set()

    def _run(self) -> None:
        poked = True  # what was committed before the start
        while not self._stopping.is_set():
            for pause in AFTER_POKE if poked else (0.0,):
                if (pause and self._stopping.wait(pause)) or self._attempt():
                    break
            if isinstance(self._failure, Integrity) or self._broken is not None:
                return  # a person must look; `failure` says at what
            self._ask()
            poked = self._poked.wait(FALLBACK)
            self._poked.clear()

    def _attempt(self) -> bool:
        """Publish; true if the log grew. A failure is logged and kept in `failure`."""
        before = self._signed.published.size if self._signed else -1
        try:
            return self.publish().size > before
        except FalajError as e:
            _log.error("audit_not_published", error=e.message, code=e.code)
        except Exception as e:  # the thread must outlive whatever a busy database raises
            _log.error("audit_not_published", error=str(e), code="audit_not_read")
            self._failure = Unavailable(
                f"the audit log cannot be read: {e}",
                hint="check the database; it is tried again",
                code="audit_not_read",
            )
        return False

    def _ask(self) -> None:
        """Ask the witnesses; what comes of it stands in `quorum` and in their own standing."""
        try:
            self.witnessed(patient=True)
        except Exception as e:  # no witness may end the thread that publishes
            _log.error("audit_not_witnessed", error=str(e))

    @property
    def _witnesses(self) -> tuple[note.Verifier, ...]:
        return self.cosigners.policy.verifiers if self.cosigners else ()

    def _publish(self) -> Published:
        size = self._look()
        while self.shard.number < len(self._shards):
            after = self._shards[self.shard.number]
            self._seal(self._grown(after.first), after)
        self._signed = self._grown(size)
        if shards.next_of(note.unsigned(self._signed.checkpoint)):
            raise _forked(f"{self.origin} is sealed, and the database knows no shard after it")
        return self._signed.published

    def _look(self) -> int:
        """How many entries are committed, and with them which shards there are."""
        size, new = self._database.read(
            lambda tx: (self._store.size(tx), self._store.of_actions(tx, shards.ACTIONS, self._looked))
        )
        self._looked = size
        if any(shards.told_in(row.data) for row in new):
            found = read_shards(self._database, self._store, self._shards[0].origin)
            if found[: len(self._shards)] != self._shards:
                raise _forked("the entries that began the log's shards are not those that they were")
            self._shards = found
        return size

    def _unsealed(self) -> Shard:
        """The first shard without a final checkpoint of its own."""
        for shard, after in pairwise(self._shards):
            if not self._is_sealed(shard, after):
                return shard
        return self._shards[-1]

    def _is_sealed(self, shard: Shard, after: Shard) -> bool:
        folder, end = self.base / shard.place, after.previous
        raw = _read(folder / CHECKPOINT)
        if end is None or not raw:
            return False
        try:
            last, _ = rotation.keys_in(folder, end.vkey).open(raw)
        except FalajError:
            return False  # it is read again where the shard is entered, and nothing is signed
        ended = End(end.vkey, last.size, base64.b64encode(last.root).decode())
        return ended == end and shards.next_of(last) == after.vkey

    def _go_to(self, shard: Shard) -> None:
        """Sign this shard from now on."""
        self.shard = shard
        self._verifier = self.verifier_for(shard.origin)
        self._keys = rotation.LogKeys((self._verifier,))
        self._signed = None

    def _grown(self, until: int) -> _Signed:
        """The tree of the shard, signed over its entries below `until`."""
        signed, size = self._recovered(), until - self.shard.first
        if _read(self.folder / CHECKPOINT) != signed.checkpoint:
            raise _forked("the checkpoint in the folder is not the one that was signed last")
        if size < signed.edge.size:
            raise _forked(f"the database holds {size} entries, but {signed.edge.size} were signed")
        if size > signed.edge.size and shards.next_of(note.unsigned(signed.checkpoint)):
            raise _forked(f"{self.origin} is sealed at {signed.edge.size}, and the database goes on in it")
        while signed.edge.size < size:
            signed = self._extend(signed, min(size, signed.edge.size + ROUND))
        return signed

    def _seal(self, signed: _Signed, after: Shard) -> None:
        """Sign the final checkpoint of the shard and go over to the next one."""
        last = self._at(signed.edge)
        ended = End(self.vkey, last.size, base64.b64encode(last.root).decode())
        if ended != after.previous:
            raise _forked(f"entry {after.first} names another end of {self.origin} than its entries have")
        final = shards.sealed(last, after.vkey)
        if note.unsigned(signed.checkpoint) != final:
            raw = note.sign(final.text, [(self._verifier.name, self._key)])
            tiles.write_files(self.folder, {CHECKPOINT: raw})
        self._go_to(after)
        if self.cosigners is not None:
            self.cosigners.begin_anew()

    def _recovered(self) -> _Signed:
        if self._signed is None:
            self._signed = self._recover()
        return self._signed

    def _recover(self) -> _Signed:
        """The last signed tree from the folder, proven by the bytes of the rows; a crashed publication is finished."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self._own_folder()
        for shard in self.shards()[:-1]:  # a crash may have cut off the writing of witnesses' lines
            (self.base / shard.place / f"{CHECKPOINT}{tiles.TEMPORARY}").unlink(missing_ok=True)
        raw, head_raw = _read(self.folder / CHECKPOINT), _read(self.folder / HEAD)
        last, raw = self._last(raw)
        head = note.parse_head(head_raw) if head_raw else last
        size = last.size if last else 0
        if last and head and (head.size < size or (head.size == size and head.root != last.root)):
            raise _forked("the head file and the checkpoint do not belong together")
        edge = self._replay(size)
        if last is not None and edge.root() != last.root:
            raise _forked(f"the rows do not give the root that was signed at {size}: {self._difference()}")
        signed = _Signed(edge, raw, self._published(self._at(edge)))
        if last is None or head is None or head.size > size:
            # Nothing was signed yet, or a head was persisted whose signature may exist: sign exactly that one first.
            least = 0 if self.shard.number == 1 else 1  # a later shard is shown with the entry that links it
            signed = self._extend(signed, head.size if head else least, head.root if head else None)
        tiles.prune(self.folder, signed.edge.size)
        return signed

    def _last(self, raw: bytes) -> tuple[note.Checkpoint | None, bytes]:
        """The checkpoint that lies in the folder, rid of lines by witnesses that are not asked any more."""
        if not raw:
            return None, raw
        last, opened = self._keys.open(raw, self._witnesses)
        if opened.unknown:
            raw = note.sign(last.text, [(self._verifier.name, self._key)])
            tiles.write_files(self.folder, {CHECKPOINT: raw})
        return last, raw

    def _own_folder(self) -> None:
        lying, own = _read(self.folder / VKEY), (self.vkey + "\n").encode()
        self._keys = rotation.follow(self._verifier, rotation.stored(self.folder))
        if self._keys.newest != self._verifier:
            raise _forked("this key of the log was replaced by another one")
        if lying and lying not in [f"{v.vkey}\n".encode() for v in self._keys.verifiers]:
            raise _forked("the folder belongs to another key or origin")
        if lying and lying != own:  # the key was replaced, and a crash came before this file
            tiles.write_files(self.folder, {VKEY: own})
        if not lying:
            if _read(self.folder / CHECKPOINT):
                raise _forked("the folder has a checkpoint but no verification key")
            tiles.write_files(self.folder, {VKEY: own})

    def _replay(self, size: int) -> tiles.Edge:
        """The edge of the tree over the bytes of the first `size` rows of the shard."""
        edge = tiles.Edge()
        while edge.size < size:
            rows = self._rows(edge.size, min(size, edge.size + ROUND))
            edge, _ = tiles.grow(edge, [merkle.leaf_hash(row.data) for row in rows])
        return edge

    def _extend(self, signed: _Signed, target: int, promised: bytes | None = None) -> _Signed:
        """Sign and write the tree of `target` entries, which begins with the signed one and has the `promised` root."""
        old = signed.edge
        first = old.size // tiles.WIDTH  # the tile that is written anew, from its beginning
        data = [row.data for row in self._rows(first * tiles.WIDTH, target)]
        leaves = [merkle.leaf_hash(entry) for entry in data]
        tail = old.tails[0] if old.tails else ()
        for i, (leaf, known) in enumerate(zip(leaves, tail, strict=False)):
            if leaf != known:
                number = self.shard.first + first * tiles.WIDTH + i
                raise _forked(f"entry {number} was changed in the database after it was signed")
        edge, files = tiles.grow(old, leaves[len(tail) :])
        checkpoint = self._at(edge)
        if promised is not None and checkpoint.root != promised:
            raise _forked(f"the rows do not give the root of the head that was persisted at {target}")
        tiles.write_files(self.folder, {HEAD: note.encode_head(checkpoint)})
        tiles.write_files(self.folder, files | (tiles.bundles(first, data) if edge.size > old.size else {}))
        raw = note.sign(checkpoint.text, [(self._verifier.name, self._key)])
        tiles.write_files(self.folder, {CHECKPOINT: raw})
        tiles.prune(self.folder, edge.size, old.size)
        self._signed = _Signed(edge, raw, self._published(checkpoint))
        return self._signed

    def _rows(self, start: int, end: int) -> list[Stored]:
        """The rows from `start` to below `end` of the shard."""
        start, end = self.shard.first + start, self.shard.first + end
        rows = self._database.read(lambda tx: self._store.entries(tx, start, end - start))
        if [row.index for row in rows] != list(range(start, end)):
            raise _forked(f"the database does not hold every entry from {start} to {end - 1}")
        return rows

    def _at(self, edge: tiles.Edge) -> note.Checkpoint:
        return note.Checkpoint(self._verifier.name, edge.size, edge.root())

    def _published(self, checkpoint: note.Checkpoint) -> Published:
        root, at = base64.b64encode(checkpoint.root).decode(), iso(self._clock.now())
        return Published(checkpoint.size, root, at, self.shard.first)

    def _difference(self) -> str:
        """The first row that differs from the signed tiles, named."""
        first = self.shard.first
        end = next((s.first for s in self._shards[self.shard.number :]), None)
        report = self._database.read(
            lambda tx: verify_database_entries(all_rows(self._store, tx, first, end), self.folder, self.vkey, first)
        )
        return next(iter(report.problems), "the tiles do not name a row")


def all_rows(store: AuditStore, tx: Tx, first: int = 0, end: int | None = None) -> Iterator[Stored]:
    """The rows from `first` to below `end` (every one, if None), in pages, within one transaction."""
    end = store.size(tx) if end is None else end
    for start in range(first, end, ROUND):
        yield from store.entries(tx, start, min(ROUND, end - start))


def read_shards(database: Database, store: AuditStore, base: str) -> tuple[Shard, ...]:
    """The shards of the log that is named `base`, from its committed entries. Raises `Integrity`."""

    rows = database.read(lambda tx: store.of_actions(tx, shards.ACTIONS, 0))
    return shards.in_order([(row.index, decode(row.data)) for row in rows], base)


def _read(path: Path) -> bytes:
    """A file's bytes; none if it is not there."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""


def _forked(message: str) -> Integrity:
    return Integrity(
        f"nothing was signed: {message}",
        hint="run `falaj audit verify` to see what differs, and restore the database or the audit folder from a backup",
        code="audit_fork",
    )
