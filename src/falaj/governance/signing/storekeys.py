"""The keys of the stores: what wraps the data keys of blobs, the lake, the online store, journals, parcels and backups.

    key-encryption key  →  a store's keys, one more with each rotation  →  a data key of each object  →  its bytes

A store's keys lie in SQL, wrapped by the key-encryption key for their place (store and number). A rotation makes a new
key-encryption key, wraps every store's keys anew and gives each store one more, under which new objects get their data
keys; no object is written again. The commit says which key-encryption key holds: what a crash leaves beside it goes, or
takes its place, at the next start.
"""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from falaj.governance.door import Done, Door, Intent
from falaj.governance.signing.kek import ALGORITHM, KeyEncryptionKey, KeyEncryptionKeys
from falaj.governance.signing.kek import NAME as KEK
from falaj.governance.signing.model import KEY_ROTATE
from falaj.governance.signing.ports import StoreKeyRows, WrappedKey
from falaj.kernel.access import Principal, Resource
from falaj.kernel.errors import Invalid
from falaj.storage.keychain import Keys
from falaj.storage.sql.database import Database, Tx

BLOBS, LAKE, ONLINE, JOURNAL, PARCELS, BACKUPS = "blobs", "lake", "online", "journal", "parcels", "backups"
FLOWS = "flows"
STORES = (BLOBS, LAKE, ONLINE, JOURNAL, PARCELS, BACKUPS, FLOWS)
_BYTES = 32
_REASON = 1000  # characters


class Rotated(msgspec.Struct, frozen=True):
    """What a rotation did: the public ids of both key-encryption keys, how many keys of stores were wrapped anew, how
    many each store has now, and where the new key lies (empty: in the home)."""

    old: str
    new: str
    wrapped: int
    generations: int
    at: str


class StoreKeys:
    """The stores' keys of an open home. A store that has none yet gets its first; `first` says what it shall be."""

    def __init__(
        self, database: Database, rows: StoreKeyRows, keks: KeyEncryptionKeys, first: Mapping[str, bytes]
    ) -> None:
        self._database = database
        self._rows = rows
        self._keks = keks
        self._changing = threading.Lock()
        self._followers: list[Callable[[], None]] = []
        found = database.read(rows.all)
        keks.settle(found[0].kek if found else "")
        kek = keks.current()
        self._keys = _unwrapped(kek, found)
        missing = {s: first.get(s) or secrets.token_bytes(_BYTES) for s in STORES if s not in self._keys}
        if missing:
            fresh = [_wrapped(kek, s, 0, key) for s, key in missing.items()]
            database.change(lambda tx: rows.replace(tx, [*found, *fresh]))
            self._keys |= {s: (key,) for s, key in missing.items()}
        self._writing = self._newest()

    def keys(self, store: str) -> tuple[bytes, ...]:
        """The keys of a store, the one that new objects are written under first."""
        own = self._keys[store]
        return (own[self._writing[store]], *(k for n, k in reversed(list(enumerate(own))) if n != self._writing[store]))

    def in_order(self, store: str) -> tuple[bytes, ...]:
        """The keys of a store, oldest first."""
        return self._keys[store]

    def wrapped(self, store: str) -> tuple[str, ...]:
        """The keys of a store as the key-encryption key that holds has wrapped them, oldest first (`unwrapped`)."""
        rows = self._database.read(self._rows.all)
        return tuple(r.wrapped for r in sorted(rows, key=lambda r: r.number) if r.store == store)

    def reader(self) -> bytes:
        """The public half (32 bytes) of the key that opens new journal segments."""
        return X25519PrivateKey.from_private_bytes(self.keys(JOURNAL)[0]).public_key().public_bytes_raw()

    def chain(self) -> Keys:
        """What a process holds that reads and writes every store."""
        return Keys(
            lake=self.keys(LAKE), online=self.keys(ONLINE), journal=self.keys(JOURNAL), reader=self.reader(),
            parcels=self.keys(PARCELS), flows=self.keys(FLOWS),
        )  # fmt: skip

    def told(self) -> dict[str, str]:
        """What may be told of the key-encryption key, in the form of a signing key's record: `at` is where it lies, `asked`
        where its successor would come from if that is somewhere else (empty: the home)."""
        held, asked = self._keks.current(), self._keks.asked
        same = held.at == asked or (asked and held.at.startswith(f"{asked}/"))
        nothing = dict.fromkeys(("pem", "until", "why", "reason"), "")
        place = {"at": held.at, "asked": "" if same else asked}
        return {"name": KEK, "fingerprint": held.id, "algorithm": ALGORITHM, **nothing, **place}

    def on_change(self, follow: Callable[[], None]) -> None:
        """Call this after a rotation, before anything is written under the new keys."""
        self._followers.append(follow)

    def rotate(self, door: Door, actor: Principal, reason: str) -> Rotated:
        """Let a new key-encryption key take the old one's place. Reading and writing go on meanwhile.

        The old one is not asked: it may be away, or lost. Raises `Invalid` without a reason, `Denied`, and what
        `KeyEncryptionKeys.prepare` raises.
        """
        intent = Intent(actor, KEY_ROTATE, Resource("Key", KEK), detail={"reason": reason.strip()})
        door.check(intent)
        if not 0 < len(reason.strip()) <= _REASON:
            raise Invalid(
                f"a reason of 1 to {_REASON} characters is needed", hint="say why: --reason '…'", code="no_reason"
            )
        with self._changing:
            self._keks.settle(self._database.read(self._rows.all)[0].kek)  # a successor that was committed goes first
            old, new = self._keks.current(), self._keks.prepare()
            keys = {s: (*own, secrets.token_bytes(_BYTES)) for s, own in self._keys.items()}
            rows = [_wrapped(new, s, n, key) for s, own in keys.items() for n, key in enumerate(own)]
            done = Rotated(old.id, new.id, len(rows) - len(keys), len(keys[BLOBS]), new.at)

            def do(tx: Tx) -> Done[dict[str, Any]]:
                self._rows.replace(tx, rows)
                told = msgspec.to_builtins(done)
                return Done(told, told)

            door.change(intent, do)
            self._keks.take_over()
            self._keys = (
                keys  # from here on everything is read that is there; written as before, until others can read it
            )
            for follow in self._followers:
                follow()
            self._writing = self._newest()
            for follow in self._followers:
                follow()
        return done

    def _newest(self) -> dict[str, int]:
        return {s: len(own) - 1 for s, own in self._keys.items()}


def open_keys(rows: list[WrappedKey], kek: KeyEncryptionKey, store: str) -> tuple[bytes, ...]:
    """The keys of one store, newest first, from what SQL has of them. Raises `Integrity`."""
    return tuple(reversed(_unwrapped(kek, [r for r in rows if r.store == store]).get(store, ())))


def unwrapped(kek: KeyEncryptionKey, store: str, wrapped: Sequence[str]) -> tuple[bytes, ...]:
    """The keys of a store, oldest first, from what `StoreKeys.wrapped` gave. Raises `Integrity`."""
    return tuple(kek.unwrap(key, _place(store, number)) for number, key in enumerate(wrapped))


def _wrapped(kek: KeyEncryptionKey, store: str, number: int, key: bytes) -> WrappedKey:
    return WrappedKey(store, number, kek.wrap(key, _place(store, number)), kek.id)


def _unwrapped(kek: KeyEncryptionKey, rows: list[WrappedKey]) -> dict[str, tuple[bytes, ...]]:
    found: dict[str, tuple[bytes, ...]] = {}
    for row in sorted(rows, key=lambda r: (r.store, r.number)):
        found[row.store] = (*found.get(row.store, ()), kek.unwrap(row.wrapped, _place(row.store, row.number)))
    return found


def _place(store: str, number: int) -> str:
    return f"{store}/{number}"
