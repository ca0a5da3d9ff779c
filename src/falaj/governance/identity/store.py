"""Principals and tokens in SQL. A token's secret is never here, only its keyed hash."""

from __future__ import annotations

from sqlalchemy import Column, ForeignKey, String, Table, delete, insert, select, update

from falaj.governance.identity.ports import External
from falaj.governance.identity.verify import KnownToken
from falaj.kernel.access import Principal
from falaj.storage.sql.database import Tx
from falaj.storage.sql.schema import metadata

principals = Table(
    "principals",
    metadata,
    Column("name", String, primary_key=True),
    Column("kind", String, nullable=False),
    Column("roles", String, nullable=False),
    Column("created_at", String, nullable=False),
)
tokens = Table(
    "tokens",
    metadata,
    Column("id", String, primary_key=True),
    Column("principal", String, ForeignKey("principals.name"), nullable=False),
    Column("hash", String, nullable=False),
    Column("created_at", String, nullable=False),
    Column("expires_at", String, nullable=False),
    Column("revoked_at", String),
    Column("scope", String),  # actions and groups; null: all that the roles give
    Column("project", String),  # null: bound to none
)
external_principals = Table(
    "external_principals",
    metadata,
    Column("name", String, ForeignKey("principals.name"), primary_key=True),
    Column("issuer", String, nullable=False),
    Column("display", String, nullable=False),
    Column("signed_in_at", String, nullable=False),
)


class SqlIdentityStore:
    """An `IdentityStore` over the tables above. `at` is RFC 3339."""

    def principal(self, tx: Tx, name: str) -> Principal | None:
        """One principal; None when there is none of this name."""
        row = tx.execute(select(principals).where(principals.c.name == name)).first()
        return Principal(row.name, row.kind, tuple(row.roles.split())) if row else None

    def principals(self, tx: Tx) -> list[Principal]:
        """All principals, by name."""
        rows = tx.execute(select(principals).order_by(principals.c.name))
        return [Principal(r.name, r.kind, tuple(r.roles.split())) for r in rows]

    def put_principal(self, tx: Tx, principal: Principal, at: str) -> None:
        """Add a principal, or replace its kind and roles; when it was first added stays."""
        earlier = tx.execute(select(principals.c.created_at).where(principals.c.name == principal.name)).scalar()
        values = {"kind": principal.kind, "roles": " ".join(principal.roles)}
        if earlier is None:
            tx.execute(insert(principals).values(name=principal.name, created_at=at, **values))
        else:
            tx.execute(update(principals).where(principals.c.name == principal.name).values(**values))

    def put_token(self, tx: Tx, token: KnownToken, at: str) -> None:
        """Add a token, in the place of one of the same id."""
        tx.execute(delete(tokens).where(tokens.c.id == token.id))
        tx.execute(
            insert(tokens).values(
                id=token.id,
                principal=token.principal,
                hash=token.hash,
                created_at=at,
                expires_at=token.expires_at,
                scope=None if token.scope is None else " ".join(token.scope),
                project=token.project or None,
            )
        )

    def revoke(self, tx: Tx, token_id: str, at: str) -> bool:
        """Whether there was such a token that was not revoked yet."""
        live = (tokens.c.id == token_id) & tokens.c.revoked_at.is_(None)
        return tx.execute(update(tokens).where(live).values(revoked_at=at)).rowcount == 1

    def external(self, tx: Tx, name: str) -> External | None:
        row = tx.execute(select(external_principals).where(external_principals.c.name == name)).first()
        return External(row.name, row.issuer, row.display) if row else None

    def put_external(self, tx: Tx, person: External, at: str) -> None:
        tx.execute(delete(external_principals).where(external_principals.c.name == person.name))
        values = {"name": person.name, "issuer": person.issuer, "display": person.display}
        tx.execute(insert(external_principals).values(signed_in_at=at, **values))

    def revoke_all(self, tx: Tx, name: str, at: str, *, expired: bool) -> int:
        live = (tokens.c.principal == name) & tokens.c.revoked_at.is_(None)
        if expired:
            live &= tokens.c.expires_at <= at
        return tx.execute(update(tokens).where(live).values(revoked_at=at)).rowcount

    def live_tokens(self, tx: Tx) -> list[KnownToken]:
        """Tokens that are not revoked, also those that have expired, with their principals' present roles; by id."""
        query = (
            select(tokens, principals.c.kind, principals.c.roles)
            .join(principals, principals.c.name == tokens.c.principal)
            .where(tokens.c.revoked_at.is_(None))
            .order_by(tokens.c.id)
        )
        return [
            KnownToken(
                r.id,
                r.hash,
                r.principal,
                r.kind,
                tuple(r.roles.split()),
                r.expires_at,
                _scope(r.scope),
                r.project or "",
            )
            for r in tx.execute(query)
        ]


def _scope(text: str | None) -> tuple[str, ...] | None:
    return None if text is None else tuple(text.split())
