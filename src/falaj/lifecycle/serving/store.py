"""Which bundles were published, in SQL."""

from __future__ import annotations

from sqlalchemy import Column, Integer, String, Table, func, insert, select

from falaj.storage.sql.database import Tx
from falaj.storage.sql.schema import metadata

bundles = Table(
    "bundles",
    metadata,
    Column("environment", String, primary_key=True),
    Column("generation", Integer, primary_key=True),
    Column("digest", String, nullable=False),
    Column("at", String, nullable=False),
)


class SqlBundleStore:
    def newest(self, tx: Tx, environment: str) -> int:
        query = select(func.coalesce(func.max(bundles.c.generation), 0)).where(bundles.c.environment == environment)
        return int(tx.execute(query).scalar_one())

    def envelope(self, tx: Tx, environment: str) -> str:
        here = (bundles.c.environment == environment) & (bundles.c.generation == self.newest(tx, environment))
        return str(tx.execute(select(bundles.c.digest).where(here)).scalar() or "")

    def add(self, tx: Tx, environment: str, generation: int, digest: str, at: str) -> None:
        tx.execute(insert(bundles).values(environment=environment, generation=generation, digest=digest, at=at))
