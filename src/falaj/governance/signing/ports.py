"""Where the public halves of keys that sign no more are kept, and the wrapped keys of the stores."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import msgspec

from falaj.governance.signing.trust import KeyRecord
from falaj.storage.sql.database import Tx


class KeyStore(Protocol):
    """Keys that were replaced or revoked; none is ever removed."""

    def retired(self, tx: Tx) -> list[KeyRecord]:
        """All of them, the one that ended last first."""
        ...

    def retire(self, tx: Tx, record: KeyRecord) -> None:
        """Write one down, or that one which is there came to an earlier end."""
        ...


class WrappedKey(msgspec.Struct, frozen=True):
    """A store's key, the `number`th from 0, wrapped by the key-encryption key of the id `kek` (base64)."""

    store: str
    number: int
    wrapped: str
    kek: str


class StoreKeyRows(Protocol):
    """The wrapped keys of the stores; none is ever left out."""

    def all(self, tx: Tx) -> list[WrappedKey]:
        """All of them."""
        ...

    def replace(self, tx: Tx, rows: Sequence[WrappedKey]) -> None:
        """Write these instead."""
        ...
