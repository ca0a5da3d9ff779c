"""Statements that are compiled once for a dialect and then go to the driver as they are.

For the few that every change runs. SQLAlchemy keeps compiled statements too, and still takes most of the time of a
small one to find them and to prepare its parameters: an insert of ten columns took 28 µs so, 15 µs this way and 7 µs with
nothing but the driver (SQLite 3.40, SQLAlchemy 2.1, one core, the least of seven rounds). Values go to the driver unconverted: for
columns whose Python type the driver knows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import CursorResult, Dialect, Insert, Select, Update

from falaj.storage.sql.database import Tx


class Prepared:
    """A statement whose every parameter is a column of an insert or a named `bindparam`."""

    def __init__(self, statement: Insert | Select[Any] | Update) -> None:
        self._statement = statement
        self._compiled: dict[str, tuple[str, tuple[str, ...]]] = {}  # by dialect: the text, and the order of its `?`

    def execute(self, tx: Tx, rows: Sequence[Mapping[str, Any]]) -> CursorResult[Any]:
        """Run it with each of `rows`, at least one; the parameters by their names."""
        text, places = self._compiled.get(tx.dialect.name) or self._compile(tx.dialect)
        given: list[Any] = [tuple(row[place] for place in places) for row in rows] if places else [*rows]
        return tx.exec_driver_sql(text, given if len(given) > 1 else given[0])

    def _compile(self, dialect: Dialect) -> tuple[str, tuple[str, ...]]:
        compiled = self._statement.compile(dialect=dialect)
        found = str(compiled), tuple(getattr(compiled, "positiontup", None) or ())
        self._compiled[dialect.name] = found
        return found
