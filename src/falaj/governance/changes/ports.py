"""Where approvals are kept."""

from __future__ import annotations

from typing import Protocol

from falaj.governance.changes.model import Approval
from falaj.storage.sql.database import Tx


class ApprovalStore(Protocol):
    """Approvals and rejections as they were given."""

    def add(self, tx: Tx, approval: Approval) -> None:
        """Write one down."""
        ...

    def of(self, tx: Tx, digest: str) -> list[Approval]:
        """Those about a version, oldest first."""
        ...
