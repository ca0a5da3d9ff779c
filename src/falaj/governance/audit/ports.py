"""What the audit log asks of a store and of whoever knows its witnesses."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from falaj.governance.audit.model import Conditions, Entry, Stored, WitnessStanding
from falaj.governance.audit.note import Verifier
from falaj.governance.audit.quorum import WitnessPolicy
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

    def of_actions(self, tx: Tx, actions: Sequence[str], since: int) -> list[Stored]:
        """The rows of these actions from index `since` on, whatever came of them, by index."""
        ...

    def size(self, tx: Tx) -> int:
        """How many entries were ever appended."""
        ...


Prove = Callable[[int, int], Sequence[bytes]]
"""`prove(old, new)`: the consistency proof between two sizes of the log. Raises `FalajError`."""


class Cosigners(Protocol):
    """The witnesses of a log, as its publisher asks them."""

    @property
    def policy(self) -> WitnessPolicy:
        """Whom to ask, and which of them suffice."""
        ...

    def cosigned(self, checkpoint: bytes, log: Verifier, prove: Prove, *, patient: bool) -> bytes:
        """The checkpoint with the lines that witnesses added. Never raises for what a witness does.

        Whoever did not answer lately is asked again after a pause only, unless `patient` is false.
        """
        ...

    def apart(self) -> Cosigners:
        """The same witnesses, for a shard of the log that is sealed."""
        ...

    def begin_anew(self) -> None:
        """Forget how they stand: a new shard has begun, of which they have seen nothing."""
        ...

    def standing(self) -> tuple[WitnessStanding, ...]:
        """How each witness stands to this log, by what is known without asking."""
        ...
