"""Where decisions, the inventory, kills and reviews are kept, and what they ask of others."""

from __future__ import annotations

from typing import Protocol

from falaj.governance.changes.glass import Glass
from falaj.governance.changes.holds import Hold
from falaj.governance.changes.inventory import Declared, Fact, Kill, Validation
from falaj.governance.changes.model import Approval, Revoked
from falaj.governance.changes.records import Review
from falaj.storage.sql.database import Tx


class ApprovalStore(Protocol):
    """Approvals and rejections as they were given; a revocation is written down beside one, once."""

    def add(self, tx: Tx, approval: Approval) -> None:
        """Write one down."""
        ...

    def of(self, tx: Tx, digest: str) -> list[Approval]:
        """Those about a version, oldest first, with their revocations."""
        ...

    def revoke(self, tx: Tx, approval: str, revoked: Revoked) -> None:
        """Write down that one was taken back."""
        ...

    def revoked(self, tx: Tx) -> list[Approval]:
        """All that were taken back."""
        ...


class InventoryStore(Protocol):
    """What people said of models. Rows are added, never changed."""

    def add(self, tx: Tx, fact: Fact) -> None:
        """Write a fact down; the newest of a name counts."""
        ...

    def facts(self, tx: Tx, model: str) -> list[Fact]:
        """All of a model, oldest first."""
        ...

    def models(self, tx: Tx) -> list[str]:
        """The models of which somebody said something."""
        ...

    def add_validation(self, tx: Tx, validation: Validation) -> None:
        """Write a validation down."""
        ...

    def validations(self, tx: Tx, model: str) -> list[Validation]:
        """Those of a model, newest first."""
        ...


class KillStore(Protocol):
    """Kills and revivals."""

    def add(self, tx: Tx, kill: Kill) -> None:
        """Write a kill down."""
        ...

    def propose(self, tx: Tx, kill: Kill) -> None:
        """Write down who proposes to end it."""
        ...

    def revive(self, tx: Tx, kill: Kill) -> None:
        """Write down who ended it."""
        ...

    def of(self, tx: Tx, model: str) -> list[Kill]:
        """Those of a model, newest first."""
        ...

    def in_force(self, tx: Tx) -> list[Kill]:
        """Those that hold, of all models."""
        ...


class HoldStore(Protocol):
    """What is in quarantine, and was."""

    def add(self, tx: Tx, hold: Hold) -> None:
        """Write one down."""
        ...

    def lift(self, tx: Tx, hold: Hold) -> bool:
        """Write down who let it out, once; whether it was still held."""
        ...

    def all(self, tx: Tx) -> list[Hold]:
        """Newest first."""
        ...


class GlassStore(Protocol):
    """Every time that somebody was allowed more, or asked for it. None is ever removed."""

    def add(self, tx: Tx, glass: Glass) -> None:
        """Write one down."""
        ...

    def change(self, tx: Tx, glass: Glass, before: Glass) -> bool:
        """Write down how it stands now; whether it stood as `before`."""
        ...

    def all(self, tx: Tx) -> list[Glass]:
        """Newest first."""
        ...


class ReviewStore(Protocol):
    """Reviews of changes."""

    def add(self, tx: Tx, change: str, review: Review) -> None:
        """Write one down."""
        ...

    def of(self, tx: Tx, change: str) -> Review | None:
        """The newest of a change; None when nobody has written one."""
        ...


class Declarations(Protocol):
    """What projects declare of their models; implemented by the loop."""

    def oversight(self, model: str) -> Declared:
        """What the applied project says of a model; nothing when it does not define it."""
        ...

    def tiers(self, model: str, since: str) -> tuple[str, ...]:
        """The tiers that definitions named which held at the moment `since` or later (RFC 3339; empty: ever)."""
        ...
