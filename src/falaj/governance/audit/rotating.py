"""Replace the key that signs the log: the old one signs who follows it, the log holds that, and the new one goes on.

The order, so that a crash anywhere leaves one key or the other and never a fork:

    everything committed is signed by the old key → the successor lies beside it → statement by both → its entry, committed
    → rotation/N and vkey → the successor takes the key's place → the next checkpoint, by the new key

Nothing is published in between, so the old key signs nothing beyond the tree that the statement names.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import msgspec

from falaj.governance.audit import note, rotation, tiles
from falaj.governance.audit.model import MAX_ENTRY, Conditions, Entry, decode
from falaj.governance.audit.note import Signs
from falaj.governance.audit.ports import AuditStore
from falaj.governance.audit.publisher import Publisher, read_shards
from falaj.governance.audit.rotation import ACTION, KEY, Rotation
from falaj.governance.door import Done, Door, Intent
from falaj.governance.signing.model import KEY_ROTATE
from falaj.governance.signing.trust import ROTATED, KeyRecord
from falaj.kernel.access import Principal, Resource
from falaj.kernel.clock import iso
from falaj.kernel.digests import canonical_json
from falaj.kernel.errors import Invalid
from falaj.storage.sql.database import Database, Tx

_ROOM = MAX_ENTRY - 1200  # bytes for the detail of an entry


class Ring(Protocol):
    """The keys of a home, as far as the log's is concerned."""

    @property
    def log(self) -> Signs:
        """The key that signs."""
        ...

    def prepare(self, name: str) -> str:
        """Lay a successor beside a key; returns its fingerprint."""
        ...

    def log_successor(self) -> Signs | None:
        """The successor that lies beside the log's key."""
        ...

    def take_over(self, name: str) -> None:
        """Let the successor take the key's place."""
        ...

    def discard(self, name: str) -> None:
        """Remove a successor that signs nothing."""
        ...

    def record(self, name: str) -> KeyRecord:
        """What may be told of the key that signs."""
        ...


class Replaced(msgspec.Struct, frozen=True):
    """That the log has a new key: fingerprints, since when, its vkey, and which statement leads to it."""

    name: str
    old: str
    new: str
    until: str
    why: str
    vkey: str
    statement: str


class LogKeyService:
    """The log's keys: the one that signs, and those that did."""

    def __init__(self, ring: Ring, publisher: Publisher, database: Database, store: AuditStore, door: Door) -> None:
        self._ring = ring
        self._publisher = publisher
        self._database = database
        self._store = store
        self._door = door
        self._changing = threading.Lock()
        self._followers: list[Callable[[], None]] = []

    def on_change(self, follow: Callable[[], None]) -> None:
        """Call this after each rotation."""
        self._followers.append(follow)

    def records(self) -> tuple[KeyRecord, ...]:
        """The public keys, the one that signs first, then the one that was replaced last."""
        ended = [_ended(entry) for entry in _rotations(self._database, self._store)]
        return (self._ring.record(KEY), *reversed(ended))

    def rotate(self, actor: Principal, reason: str) -> Replaced:
        """Let a new key sign the log from its next entry on. Raises `Invalid` without a reason, `Unavailable`, `Denied`."""
        self._door.check(Intent(actor, KEY_ROTATE, Resource("Key", KEY)))
        why = reason.strip()
        with self._changing, self._publisher.held():
            self._publisher.publish()
            last = note.unsigned(self._publisher.checkpoint)
            old, origin = self._ring.record(KEY), self._publisher.origin
            fingerprint = self._ring.prepare(KEY)
            new = self._ring.log_successor()
            if new is None:
                raise AssertionError  # it was laid there a line above
            told = Rotation(
                note.verifier_of(origin, self._ring.log.public_key()),
                note.verifier_of(origin, new.public_key()),
                last.size,
                last.root,
            )
            statement = rotation.state(told, self._ring.log, new)
            until = iso(self._door.clock.now())
            detail = {
                "key": KEY, "old": old.fingerprint, "pem": old.pem, "new": fingerprint, "until": until, "reason": why,
                "statement": statement.decode(),
            }  # fmt: skip
            if not why or len(canonical_json(detail)) > _ROOM:
                raise Invalid("a short reason is needed", hint="say why: --reason '…'", code="no_reason")
            replaced = Replaced(
                KEY, old.fingerprint, fingerprint, until, ROTATED, told.new.vkey,
                self._publisher.shard.place + rotation.path(len(self._publisher.statements) + 1),
            )  # fmt: skip

            def do(_tx: Tx) -> Done[dict[str, Any]]:
                return Done(msgspec.to_builtins(replaced))

            self._door.change(Intent(actor, KEY_ROTATE, Resource("Key", KEY), detail=detail), do)
            self._publisher.take_over(new, statement)
            self._ring.take_over(KEY)
            self._publisher.publish()
            self._publisher.witnessed()
        for follow in self._followers:
            follow()
        return replaced


def settle(ring: Ring, folder: Path, database: Database, store: AuditStore) -> None:
    """Finish a rotation that a crash cut short, before anything is signed; one that was not committed never was.

    A shard begins under the key that signs then, so only the rotations within the newest shard count.
    """
    successor = ring.log_successor()
    if successor is None:
        return
    grows = read_shards(database, store, "")[-1]
    folder = folder / grows.place
    statements = [_statement(entry) for entry in _rotations(database, store, grows.first)]
    newest = rotation.parse(statements[-1]).new if statements else None
    if newest is None or note.verifier_of(newest.name, successor.public_key()) != newest:
        ring.discard(KEY)  # it was never committed
        return
    number = len(statements)
    if len(rotation.stored(folder)) == number - 1:
        tiles.write_files(folder, {rotation.path(number): statements[-1]})
    ring.take_over(KEY)


def _rotations(database: Database, store: AuditStore, first: int = 0) -> list[Entry]:
    """The entries of the log's rotations from a number on, the first one first."""
    conditions = Conditions(action=ACTION, resource_id=KEY, outcome="done", limit=rotation.MAX_ROTATIONS)
    rows = database.read(lambda tx: store.search(tx, conditions))
    return [decode(row.data) for row in reversed(rows) if row.index >= first]


def _statement(entry: Entry) -> bytes:
    return str(entry.detail.get("statement", "")).encode()


def _ended(entry: Entry) -> KeyRecord:
    told = entry.detail
    return KeyRecord(KEY, told["pem"], told["old"], "Ed25519", told["until"], ROTATED, told["reason"])
