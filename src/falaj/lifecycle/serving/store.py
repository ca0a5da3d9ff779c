"""Which bundles were published and which journal segments were sealed, in SQL."""

from __future__ import annotations

import msgspec
from sqlalchemy import BigInteger, Column, Integer, String, Table, func, insert, select

from falaj.lifecycle.serving.model import JournalSegment, Shipped
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
segments = Table(
    "journal_segments",
    metadata,
    Column("segment", String, primary_key=True),
    Column("records", BigInteger, nullable=False),
    Column("rows", BigInteger, nullable=False),
    Column("bytes", BigInteger, nullable=False),
    Column("digest", String, nullable=False),
    Column("root", String, nullable=False),
    Column("tables", String, nullable=False),
    Column("first_at", String, nullable=False),
    Column("last_at", String, nullable=False),
    Column("sealed_at", String, nullable=False),
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


class SqlSegmentStore:
    """The Delta version that a row names holds that segment's rows; a model's newest row names the newest version."""

    def add(self, tx: Tx, segment: JournalSegment) -> None:
        values = msgspec.structs.asdict(segment)
        tx.execute(insert(segments).values({**values, "tables": msgspec.json.encode(segment.tables).decode()}))

    def all(self, tx: Tx) -> list[JournalSegment]:
        rows = tx.execute(select(segments).order_by(segments.c.segment.desc()))
        return [
            JournalSegment(
                **{**r._mapping, "tables": msgspec.json.decode(r._mapping["tables"], type=tuple[Shipped, ...])}
            )
            for r in rows
        ]

    def names(self, tx: Tx) -> list[str]:
        return list(tx.execute(select(segments.c.segment)).scalars())
