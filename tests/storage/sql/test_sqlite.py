from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, text
from sqlalchemy.exc import IntegrityError, OperationalError

from falaj.kernel.errors import Conflict, Integrity, Invalid, Unavailable
from falaj.storage.sql.sqlite import SqliteDatabase

INSERT = text("INSERT INTO t VALUES (:x)")


class Broken(Exception):
    """What a change raises."""


@pytest.fixture
def database(tmp_path: Path) -> Iterator[SqliteDatabase]:
    made = SqliteDatabase(tmp_path / "falaj.db")
    made.change(lambda tx: tx.execute(text("CREATE TABLE t (x TEXT UNIQUE)")))
    yield made
    made.close()


def put(value: str) -> Callable[[Connection], str]:
    def work(tx: Connection) -> str:
        tx.execute(INSERT, {"x": value})
        return value

    return work


def rows(database: SqliteDatabase) -> list[str]:
    return [str(x) for x in database.read(lambda tx: tx.execute(text("SELECT x FROM t ORDER BY rowid")).scalars())]


class Held:
    """Keeps the writer busy, so that what is submitted meanwhile shares one commit."""

    def __init__(self, database: SqliteDatabase) -> None:
        self._gate, started = threading.Event(), threading.Event()

        def hold(_tx: Connection) -> None:
            started.set()
            assert self._gate.wait(20)

        self._held = database.submit(hold)
        assert started.wait(20)

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        self._gate.set()
        self._held.result(20)


def test_a_change_returns_after_its_commit(database: SqliteDatabase, tmp_path: Path) -> None:
    assert database.change(put("a")) == "a"
    with sqlite3.connect(tmp_path / "falaj.db") as stranger:
        assert stranger.execute("SELECT x FROM t").fetchall() == [("a",)]
    stranger.close()


def test_a_failing_change_undoes_itself_and_nobody_else(database: SqliteDatabase) -> None:
    def half(tx: Connection) -> None:
        tx.execute(INSERT, {"x": "half"})
        raise Broken("in the middle")

    with Held(database):
        first, bad, doubled, last = (database.submit(w) for w in (put("a"), half, put("a"), put("b")))
    assert (first.result(20), last.result(20)) == ("a", "b")
    with pytest.raises(Broken, match="in the middle"):
        bad.result(20)
    with pytest.raises(IntegrityError):
        doubled.result(20)
    assert rows(database) == ["a", "b"]


def test_waiting_changes_share_one_commit(database: SqliteDatabase, tmp_path: Path) -> None:
    seen: list[int] = []

    def look(_tx: Connection) -> None:
        with sqlite3.connect(tmp_path / "falaj.db") as stranger:
            seen.append(stranger.execute("SELECT count(*) FROM t").fetchone()[0])
        stranger.close()

    with Held(database):
        waiting = [database.submit(w) for w in (put("a"), look, put("b"), look)]
    for future in waiting:
        future.result(20)
    assert seen == [0, 0]  # neither was committed before the group's end
    assert rows(database) == ["a", "b"]


def test_many_threads_lose_nothing(database: SqliteDatabase) -> None:
    def client(n: int) -> list[str]:
        return [database.change(put(f"{n}-{i}")) for i in range(25)]

    with ThreadPoolExecutor(16) as pool:
        answered = [x for found in pool.map(client, range(16)) for x in found]
    assert sorted(answered) == sorted(rows(database))
    assert len(set(answered)) == 400


def test_more_changes_than_one_group_holds(database: SqliteDatabase) -> None:
    with Held(database):
        waiting = [database.submit(put(str(i))) for i in range(300)]
    assert [f.result(20) for f in waiting] == rows(database) == [str(i) for i in range(300)]


def test_a_reader_sees_what_is_committed_and_nothing_else(database: SqliteDatabase) -> None:
    written, checked = threading.Event(), threading.Event()

    def slow(tx: Connection) -> None:
        tx.execute(INSERT, {"x": "new"})
        written.set()
        assert checked.wait(20)

    future = database.submit(slow)
    assert written.wait(20)
    assert rows(database) == []
    checked.set()
    future.result(20)
    assert rows(database) == ["new"]


def test_a_reader_keeps_its_snapshot(database: SqliteDatabase) -> None:
    count = text("SELECT count(*) FROM t")

    def twice(tx: Connection) -> list[Any]:
        before = tx.execute(count).scalar()
        database.change(put("meanwhile"))
        return [before, tx.execute(count).scalar()]

    assert database.read(twice) == [0, 0]
    assert rows(database) == ["meanwhile"]


@pytest.mark.parametrize("statement", ["INSERT INTO t VALUES ('x')", "DROP TABLE t", "CREATE TABLE u (y TEXT)"])
def test_a_reader_cannot_write(database: SqliteDatabase, statement: str) -> None:
    with pytest.raises(OperationalError, match="readonly"):
        database.read(lambda tx: tx.execute(text(statement)))
    assert rows(database) == []


def test_a_number_beyond_any_column_is_somebodys_input_and_no_fault(database: SqliteDatabase) -> None:
    ask = text("SELECT x FROM t WHERE rowid = :n")
    for go in (database.read, database.change):
        with pytest.raises(Invalid) as refused:
            go(lambda tx: tx.execute(ask, {"n": 10**40}).all())
        assert refused.value.code == "number_too_large"
    assert database.change(put("after it")) == "after it"


def test_values_reach_no_message(database: SqliteDatabase) -> None:
    database.change(put("a-secret"))
    with pytest.raises(IntegrityError) as refused:
        database.change(put("a-secret"))
    assert "a-secret" not in str(refused.value)


def test_closing_waits_for_what_was_accepted_and_refuses_what_comes_later(tmp_path: Path) -> None:
    database = SqliteDatabase(tmp_path / "x.db")
    database.change(lambda tx: tx.execute(text("CREATE TABLE t (x TEXT)")))
    with Held(database):
        accepted = [database.submit(put(str(i))) for i in range(200)]
        closing = threading.Thread(target=database.close)
        closing.start()
    closing.join(20)
    assert [f.result(0) for f in accepted] == [str(i) for i in range(200)]
    for late in (database.change, database.submit):
        with pytest.raises(Unavailable, match="closed"):
            late(put("late"))
    database.close()
    with sqlite3.connect(tmp_path / "x.db") as stranger:
        assert stranger.execute("SELECT count(*) FROM t").fetchone() == (200,)
    stranger.close()


def test_two_databases_do_not_wait_for_each_other(tmp_path: Path, database: SqliteDatabase) -> None:
    other = SqliteDatabase(tmp_path / "metrics.db", durable=False)
    with Held(other):
        assert database.change(put("a")) == "a"

    def both(tx: Connection) -> None:
        other.change(lambda inner: inner.execute(text("CREATE TABLE u (y TEXT)")))
        tx.execute(INSERT, {"x": "b"})

    database.change(both)
    assert rows(database) == ["a", "b"]
    other.close()


@pytest.mark.parametrize(("durable", "level"), [(True, 2), (False, 1)])
def test_durability_is_what_it_says(tmp_path: Path, durable: bool, level: int) -> None:
    database = SqliteDatabase(tmp_path / "x.db", durable=durable)
    assert database.change(lambda tx: tx.execute(text("PRAGMA synchronous")).scalar()) == level
    assert database.change(lambda tx: tx.execute(text("PRAGMA foreign_keys")).scalar()) == 1
    assert database.change(lambda tx: tx.execute(text("PRAGMA journal_mode")).scalar()) == "wal"
    database.close()


def test_a_change_cannot_wait_for_another_one_of_its_database(database: SqliteDatabase) -> None:
    with pytest.raises(Conflict) as refused:
        database.change(lambda _tx: database.change(put("inner")))
    assert refused.value.code == "nested_change"
    assert database.change(put("after")) == "after"


def test_a_full_disk_fails_the_whole_group_and_nobody_believes_it(database: SqliteDatabase) -> None:
    """A full disk makes SQLite take back the whole transaction, also what others of the group did in it."""
    pages = database.change(lambda tx: tx.execute(text("PRAGMA page_count")).scalar_one())
    database.change(lambda tx: tx.execute(text(f"PRAGMA max_page_count={pages + 2}")))
    with Held(database):
        group = [database.submit(put(x)) for x in ("before", "large" * 10_000, "after")]
    for future in group:
        with pytest.raises(Unavailable, match="full"):
            future.result(20)
    assert rows(database) == []
    assert database.change(put("small")) == "small"  # and the writer goes on
    assert rows(database) == ["small"]


def test_a_failing_commit_fails_the_whole_group(database: SqliteDatabase) -> None:
    def orphan(tx: Connection) -> str:
        tx.execute(text("INSERT INTO child VALUES ('nobody')"))  # looked at only at the commit
        return "orphan"

    database.change(lambda tx: tx.execute(text("CREATE TABLE parent (x TEXT PRIMARY KEY)")))
    deferred = "CREATE TABLE child (x TEXT REFERENCES parent (x) DEFERRABLE INITIALLY DEFERRED)"
    database.change(lambda tx: tx.execute(text(deferred)))
    with Held(database):
        group: list[Future[str]] = [database.submit(w) for w in (put("a"), orphan, put("b"))]
    for future in group:
        with pytest.raises(IntegrityError):
            future.result(20)
    assert rows(database) == []
    assert database.read(lambda tx: tx.execute(text("SELECT count(*) FROM child")).scalar()) == 0
    assert database.change(put("next")) == "next"


def test_a_locked_file_answers_everyone_who_waits(tmp_path: Path) -> None:
    database = SqliteDatabase(tmp_path / "x.db")
    database.change(lambda tx: tx.execute(text("CREATE TABLE t (x TEXT)")))
    database.change(lambda tx: tx.execute(text("PRAGMA busy_timeout=1")))
    stranger = sqlite3.connect(tmp_path / "x.db", isolation_level=None)
    stranger.execute("BEGIN IMMEDIATE")
    waiting = [database.submit(put(str(i))) for i in range(3)]
    for future in waiting:
        with pytest.raises(Unavailable, match="locked"):
            future.result(20)
    stranger.execute("ROLLBACK")
    stranger.close()
    assert database.change(put("now")) == "now"
    assert rows(database) == ["now"]
    database.close()


def test_who_gave_up_waiting_stops_nobody(database: SqliteDatabase) -> None:
    with Held(database):
        given_up, other = database.submit(put("a")), database.submit(put("b"))
        assert given_up.cancel()
    assert other.result(20) == "b"
    assert rows(database) == ["b"]


@pytest.mark.parametrize("raised", [SystemExit, KeyboardInterrupt, GeneratorExit])
def test_the_writer_outlives_whatever_a_change_raises(database: SqliteDatabase, raised: type[BaseException]) -> None:
    def leave(_tx: Connection) -> None:
        raise raised

    with pytest.raises(raised):
        database.submit(leave).result(20)
    assert database.change(put("after")) == "after"


def test_a_file_that_is_no_database_is_refused_with_advice(tmp_path: Path) -> None:
    (tmp_path / "falaj.db").write_bytes(b"something else entirely" * 100)
    with pytest.raises(Integrity, match="not a database") as refused:
        SqliteDatabase(tmp_path / "falaj.db")
    assert refused.value.hint


@pytest.mark.parametrize("name", ["a b", "what?", "50%25", "a#b", "x?mode=memory", "ü"])
def test_any_folder_name_is_a_place(tmp_path: Path, name: str) -> None:
    database = SqliteDatabase(tmp_path / name / "falaj.db")
    database.change(lambda tx: tx.execute(text("CREATE TABLE t (x TEXT)")))
    database.close()
    assert [p.name for p in tmp_path.iterdir()] == [name]
    assert (tmp_path / name / "falaj.db").stat().st_size > 0
