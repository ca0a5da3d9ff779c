"""Where the public halves of keys that sign no more are kept."""

from __future__ import annotations

from typing import Protocol

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
