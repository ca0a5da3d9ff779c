"""What identity needs and offers."""

from __future__ import annotations

from typing import Protocol

import msgspec

from falaj.governance.identity.verify import KnownToken
from falaj.kernel.access import Principal
from falaj.storage.sql.database import Tx


class External(msgspec.Struct, frozen=True):
    """A principal whom an identity provider knows; `display` is what people call them."""

    name: str
    issuer: str
    display: str


class Principals(Protocol):
    """Who there is."""

    def principal(self, name: str) -> Principal:
        """Who is called that now, with the roles that hold now. Raises `NotFound`."""
        ...


class IdentityStore(Protocol):
    """Principals with their roles, and their tokens as keyed hashes."""

    def principal(self, tx: Tx, name: str) -> Principal | None:
        """One principal; None when there is none of this name."""
        ...

    def principals(self, tx: Tx) -> list[Principal]:
        """All principals, by name."""
        ...

    def put_principal(self, tx: Tx, principal: Principal, at: str) -> None:
        """Add a principal, or replace its roles."""
        ...

    def put_token(self, tx: Tx, token: KnownToken, at: str) -> None:
        """Add a token."""
        ...

    def revoke(self, tx: Tx, token_id: str, at: str) -> bool:
        """Whether there was such a token that was not revoked yet."""
        ...

    def live_tokens(self, tx: Tx) -> list[KnownToken]:
        """Tokens that are not revoked, with their principals' present roles."""
        ...

    def external(self, tx: Tx, name: str) -> External | None:
        """Whom a provider knows by this name; None for one of the home's own."""
        ...

    def put_external(self, tx: Tx, person: External, at: str) -> None:
        """Add somebody whom a provider knows, or replace what is known of them; `at` is when they signed in."""
        ...

    def revoke_all(self, tx: Tx, name: str, at: str, *, expired: bool) -> int:
        """Revoke a principal's tokens, all or those that have expired at `at`; returns how many."""
        ...
