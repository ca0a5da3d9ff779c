from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection, text

from falaj.bootstrap.control_plane import ControlPlane  # it imports every stage's tables
from falaj.kernel.errors import Conflict
from falaj.storage.sql.migrate import migrate, revisions
from falaj.storage.sql.schema import metadata
from falaj.storage.sql.sqlite import SqliteDatabase


@pytest.fixture
def database(tmp_path: Path) -> Iterator[SqliteDatabase]:
    made = SqliteDatabase(tmp_path / "falaj.db")
    yield made
    made.close()


def differences(tx: Connection) -> list[Any]:
    return list(compare_metadata(MigrationContext.configure(tx, opts={"compare_type": True}), metadata))


def schema(tx: Connection) -> list[Any]:
    return list(tx.execute(text("SELECT name, sql FROM sqlite_master ORDER BY name")))


def test_a_fresh_home_has_the_tables_of_every_stage(database: SqliteDatabase) -> None:
    assert ControlPlane.__module__ == "falaj.bootstrap.control_plane"
    migrate(database)
    assert database.read(differences) == []
    assert len(metadata.tables) > 10
    assert {t for t, _ in database.read(schema)} >= set(metadata.tables) | {"alembic_version"}


def test_a_missing_table_would_be_seen(database: SqliteDatabase) -> None:
    migrate(database)
    database.change(lambda tx: tx.execute(text("DROP TABLE approvals")))
    database.change(lambda tx: tx.execute(text("ALTER TABLE tokens ADD COLUMN more TEXT")))
    assert len(database.read(differences)) >= 2


def test_migrating_again_changes_nothing(database: SqliteDatabase) -> None:
    migrate(database)
    before = database.read(schema)
    database.change(lambda tx: tx.execute(text("INSERT INTO principals VALUES ('ann', 'person', 'viewer', 'now')")))
    migrate(database)
    assert database.read(schema) == before
    assert database.read(lambda tx: tx.execute(text("SELECT count(*) FROM principals")).scalar()) == 1


def test_the_newest_revision_is_written_down(database: SqliteDatabase) -> None:
    migrate(database)
    written = database.read(lambda tx: tx.execute(text("SELECT version_num FROM alembic_version")).scalars().all())
    assert written == [revisions()[-1]]
    assert revisions() == [f"{n + 1:04}" for n in range(len(revisions()))]


def test_a_home_of_a_newer_release_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "falaj.db"
    made = SqliteDatabase(path)
    migrate(made)
    made.change(lambda tx: tx.execute(text("UPDATE alembic_version SET version_num = '9999'")))
    made.change(lambda tx: tx.execute(text("CREATE TABLE tomorrow (x TEXT)")))
    made.close()
    before = hashlib.sha256(path.read_bytes()).digest()
    again = SqliteDatabase(path)
    with pytest.raises(Conflict) as refused:
        migrate(again)
    again.close()
    assert refused.value.code == "home_is_newer"
    assert "9999" in refused.value.message
    assert hashlib.sha256(path.read_bytes()).digest() == before


def test_a_migration_that_fails_leaves_nothing_half_done(tmp_path: Path) -> None:
    path = tmp_path / "falaj.db"
    with sqlite3.connect(path) as stranger:
        stranger.execute("CREATE TABLE statements (something TEXT)")  # in the way of ours
    stranger.close()
    database = SqliteDatabase(path)
    with pytest.raises(Exception, match="statements"):
        migrate(database)
    assert [name for name, _ in database.read(schema)] == ["statements"]
    database.close()
