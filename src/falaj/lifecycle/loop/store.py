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
        found = self._read(tx, limit=1)
        return found[0] if found else None

    def number(self, tx: Tx) -> int:
        return tx.execute(select(func.max(definitions.c.number))).scalar() or 0

    def log(self, tx: Tx) -> list[Applied]:
        return self._read(tx)

    def body(self, tx: Tx, number: int) -> str:
        """A definition as it was written down, JSON; empty when there is none of this number."""
        found = tx.execute(select(definitions.c.definition).where(definitions.c.number == number)).scalar()
        return str(found or "")

    def get(self, tx: Tx, number: int) -> Applied | None:
        found = self._read(tx, of=number)
        return found[0] if found else None

    def _read(self, tx: Tx, limit: int | None = None, of: int | None = None) -> list[Applied]:
        query = select(*_COLUMNS).order_by(definitions.c.number.desc()).limit(limit)
        rows = tx.execute(query if of is None else query.where(definitions.c.number == of))
        return [
            Applied(r.number, r.digest, msgspec.json.decode(r.definition, type=ProjectDefinition), r.author, r.at)
            for r in rows
        ]

    def add(self, tx: Tx, applied: Applied) -> None:
        body = msgspec.json.encode(applied.definition).decode()
        values = {"number": applied.number, "digest": applied.digest, "author": applied.author, "at": applied.at}
        tx.execute(insert(definitions).values(**values, definition=body))
