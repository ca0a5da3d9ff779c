"""Statements compiled once: the same rows as by SQLAlchemy, one or many, and the text of another dialect."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Column, Integer, LargeBinary, MetaData, String, Table, bindparam, insert, select, update
from sqlalchemy.dialects import postgresql

from falaj.storage.sql.prepared import Prepared
from falaj.storage.sql.sqlite import SqliteDatabase

things = Table(
    "things", MetaData(), Column("n", Integer, primary_key=True), Column("of", String), Column("b", LargeBinary)
)
add = Prepared(insert(things))
name = Prepared(
    update(things).where(things.c.n == bindparam("which")).values(of=bindparam("now")).returning(things.c.n)
)
ROWS = [{"n": n, "of": f"o'{n}%s?", "b": bytes([0, n, 255])} for n in range(3)]


@pytest.fixture
def database(tmp_path: Path) -> Iterator[SqliteDatabase]:
    opened = SqliteDatabase(tmp_path / "x.db")
    opened.change(things.create)
    yield opened
    opened.close()


@pytest.mark.parametrize("count", [1, 3], ids=["one", "many"])
def test_rows_are_written_as_by_sqlalchemy(database: SqliteDatabase, count: int) -> None:
    database.change(lambda tx: add.execute(tx, [dict(reversed(row.items())) for row in ROWS[:count]]))
    found = database.read(lambda tx: tx.execute(select(things).order_by(things.c.n)).mappings().all())
    assert [dict(row) for row in found] == ROWS[:count]


def test_a_named_parameter_and_what_it_returns(database: SqliteDatabase) -> None:
    database.change(lambda tx: add.execute(tx, ROWS))

    def renamed(which: int) -> Any:
        return database.change(lambda tx: name.execute(tx, [{"now": "new", "which": which}]).scalar())

    assert (renamed(1), renamed(7)) == (1, None)
    assert database.read(lambda tx: tx.execute(select(things.c.of).where(things.c.n == 1)).scalar()) == "new"


def test_a_missing_parameter_is_an_error_not_a_null(database: SqliteDatabase) -> None:
    with pytest.raises(KeyError):
        database.change(lambda tx: add.execute(tx, [{"n": 1, "of": "x"}]))


def test_another_dialect_has_its_own_text() -> None:
    text, places = add._compile(postgresql.psycopg.dialect())  # type: ignore[no-untyped-call]
    assert "%(of)s" in text and not places
