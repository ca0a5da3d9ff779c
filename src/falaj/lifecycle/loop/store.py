"""Applied definitions in SQL; the newest row holds."""

from __future__ import annotations

import msgspec
from sqlalchemy import Column, Integer, String, Table, func, insert, select

from falaj.lifecycle.loop.model import Applied, ProjectDefinition
from falaj.storage.sql.database import Tx
from falaj.storage.sql.schema import metadata

definitions = Table(
    "definitions",
    metadata,
    Column("number", Integer, primary_key=True),
    Column("digest", String, nullable=False),
    Column("definition", String, nullable=False),
    Column("author", String, nullable=False),
    Column("at", String, nullable=False),
)
_COLUMNS = (
    definitions.c.number,
    definitions.c.digest,
    definitions.c.definition,
    definitions.c.author,
    definitions.c.at,
)


class SqlDefinitionStore:
    def newest(self, tx: Tx) -> Applied | None:
        found = self.log(tx)[:1]
        return found[0] if found else None

    def number(self, tx: Tx) -> int:
        return tx.execute(select(func.max(definitions.c.number))).scalar() or 0

    def log(self, tx: Tx) -> list[Applied]:
        rows = tx.execute(select(*_COLUMNS).order_by(definitions.c.number.desc()))
        return [
            Applied(r.number, r.digest, msgspec.json.decode(r.definition, type=ProjectDefinition), r.author, r.at)
            for r in rows
        ]

    def add(self, tx: Tx, applied: Applied) -> None:
        body = msgspec.json.encode(applied.definition).decode()
        values = {"number": applied.number, "digest": applied.digest, "author": applied.author, "at": applied.at}
        tx.execute(insert(definitions).values(**values, definition=body))
