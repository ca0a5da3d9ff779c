"""Keys that sign no more, public halves only, and the wrapped keys of the stores, in SQL."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from sqlalchemy import Column, Integer, String, Table, delete, insert, select

from falaj.governance.signing.ports import WrappedKey
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

store_keys = Table(
    "store_keys",
    metadata,
    Column("store", String, primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("wrapped", String, nullable=False),
    Column("kek", String, nullable=False),
)


class SqlKeyStore:
    def retired(self, tx: Tx) -> list[KeyRecord]:
        rows = tx.execute(select(retired_keys).order_by(_c.until.desc(), _c.fingerprint))
        return [KeyRecord(**row._mapping) for row in rows]

    def retire(self, tx: Tx, record: KeyRecord) -> None:
        tx.execute(delete(retired_keys).where(_c.fingerprint == record.fingerprint))
        tx.execute(insert(retired_keys).values(msgspec.structs.asdict(record)))


class SqlStoreKeyRows:
    def all(self, tx: Tx) -> list[WrappedKey]:
        rows = tx.execute(select(store_keys).order_by(store_keys.c.store, store_keys.c.number))
        return [WrappedKey(**row._mapping) for row in rows]

    def replace(self, tx: Tx, rows: Sequence[WrappedKey]) -> None:
        tx.execute(delete(store_keys))
        tx.execute(insert(store_keys), [msgspec.structs.asdict(r) for r in rows])
