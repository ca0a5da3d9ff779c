"""What the policy's service needs."""

from __future__ import annotations

from typing import Protocol

from falaj.governance.policy.model import PolicyVersion
from falaj.storage.sql.database import Tx


class PolicyStore(Protocol):
    """The versions of the home's policy. None is ever changed or removed."""

    def newest(self, tx: Tx) -> PolicyVersion | None:
        """The one that was applied last; None in a home that never applied any."""
        ...

    def one(self, tx: Tx, number: int) -> PolicyVersion | None:
        """A version by its number."""
        ...

    def all(self, tx: Tx) -> list[PolicyVersion]:
        """All versions, newest first."""
        ...

    def add(self, tx: Tx, version: PolicyVersion) -> None:
        """Add a version."""
        ...
