"""Which process of a home is handed which keys of its stores."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Protocol

import msgspec

from falaj.governance.signing.kek import NAME as KEK
from falaj.governance.signing.kek import FileKeys
from falaj.governance.signing.keys import KeyRing
from falaj.governance.signing.ports import WrappedKey
from falaj.governance.signing.store import SqlStoreKeyRows
from falaj.governance.signing.storekeys import BLOBS, FLOWS, JOURNAL, LAKE, ONLINE, PARCELS, StoreKeys, open_keys
from falaj.lifecycle.monitoring.model import BACKTEST, EXTERNAL
from falaj.lifecycle.serving.model import REHEARSE, SCORE, SHIP
from falaj.lifecycle.training.foreign import IMPORT_FLOW
from falaj.storage import keychain
from falaj.storage.sql.database import Database
from falaj.storage.sql.snapshot import reading

_STORES: dict[str, tuple[str, ...]] = {
    "ingest": ("lake",),
    "materialize": ("lake", "online"),
    "train": ("lake",),
    IMPORT_FLOW: ("lake", "parcels"),
    SHIP: ("lake", "journal"),
    REHEARSE: ("journal",),
    SCORE: ("lake", "reader", "parcels"),
    BACKTEST: ("lake", "journal"),
    EXTERNAL: ("parcels",),
}
"""The stores that a kind of step reads or writes; one that is not named here is handed no key."""


class Open(Protocol):
    """Of an open home."""

    store_keys: StoreKeys

    @property
    def layout(self) -> Places:
        """Where things are."""
        ...


class Places(Protocol):
    """Of its layout."""

    home: Path
    scratch: Path


def opened(ring: KeyRing, database: Database, home: Path) -> StoreKeys:
    """The keys of a home's stores, held by this process from now on.

    The first key of the blobs is what wrapped them before there were any: so those of 0.1 open. A key-encryption key that lies
    elsewhere is asked now, and not again before it is replaced. Raises `Unavailable` when it is away, `Integrity`.
    """
    keks = FileKeys(ring.folder, ring.asked(KEK))
    keys = StoreKeys(database, SqlStoreKeyRows(), keks, {BLOBS: ring.kek} if ring.kek else {})
    keychain.hold(home, keys.chain())
    keys.on_change(lambda: keychain.hold(home, keys.chain()))
    return keys


def unlock(home: Path) -> None:
    """Let this process read the stores of a home that it does not open, with the rights of whoever owns its keys.

    Nothing is written, and nothing is audited: it is for looking into a home's own files. Raises `Integrity`, `Unavailable`.
    """
    ring = KeyRing(home / "keys") if (home / "keys").exists() else None
    if ring is None:
        raise keychain.not_held(f"the home {home}")
    with closing(reading(home / "falaj.db")) as database:
        found = database.execute("SELECT store, number, wrapped, kek FROM store_keys").fetchall()
    rows, kek = [WrappedKey(*row) for row in found], ring.wraps
    stores = (LAKE, ONLINE, JOURNAL, PARCELS, FLOWS)
    lake, online, journal, parcels, flows = (open_keys(rows, kek, store) for store in stores)
    keychain.hold(home, keychain.Keys(lake=lake, online=online, journal=journal, parcels=parcels, flows=flows))


def for_step(home: Open, kind: str) -> dict[str, str]:
    """What a step process of a kind is handed, on standard input: the keys of the stores that it works with."""
    whole = home.store_keys.chain()
    fields = {name: getattr(whole, name) for name in _STORES.get(kind, ())}
    if not fields:
        return {}
    keys = msgspec.structs.replace(keychain.Keys(), **fields)
    return {keychain.KEYCHAIN: keychain.dump(keys, home.layout.home, home.layout.scratch)}
