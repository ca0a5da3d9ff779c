"""Keys that sign no more, in SQL: public halves only."""

from __future__ import annotations

import msgspec
from sqlalchemy import Column, String, Table, delete, insert, select

from falaj.governance.signing.trust import KeyRecord
from falaj.storage.sql.database import Tx
from falaj.storage.sql.schema import metadata

retired_keys = Table(
    "retired_keys",
    metadata,
    Column("fingerprint", String, primary_key=True),
    Column("name", String, nullable=False),
    Column("pem", String, nullable=False),
    Column("algorithm", String, nullable=False),
    Column("until", String, nullable=False),
    Column("why", String, nullable=False),
    Column("reason", String, nullable=False),
)
_c = retired_keys.c


class SqlKeyStore:
    def retired(self, tx: Tx) -> list[KeyRecord]:
        rows = tx.execute(select(retired_keys).order_by(_c.until.desc(), _c.fingerprint))
        return [KeyRecord(**row._mapping) for row in rows]

    def retire(self, tx: Tx, record: KeyRecord) -> None:
        tx.execute(delete(retired_keys).where(_c.fingerprint == record.fingerprint))
        tx.execute(insert(retired_keys).values(msgspec.structs.asdict(record)))
