"""What the audit log asks of a store."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from falaj.governance.audit.model import Conditions, Entry, Stored
from falaj.storage.sql.database import Tx


class AuditStore(Protocol):
    """Rows in the order of their index: 0, 1, 2, … without gaps, each index used once."""

    def append_many(self, tx: Tx, batch: Sequence[tuple[bytes, Entry]]) -> range:
        """Append entries, each with the bytes that `encode(entry)` gave, at once; returns their indices."""
        ...

    def entries(self, tx: Tx, start: int, count: int) -> list[Stored]:
        """The rows from index `start` to below `start + count`, by index."""
        ...

    def search(self, tx: Tx, conditions: Conditions) -> list[Stored]:
        """The rows that meet all conditions, newest first."""
        ...

    def size(self, tx: Tx) -> int:
        """How many entries were ever appended."""
        ...
