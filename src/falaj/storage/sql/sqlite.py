"""SQLite with one writing thread.

Several writers on one SQLite file starve each other, so every change of a file goes through one
thread. It takes what is waiting, opens one `IMMEDIATE` transaction, runs each change in a savepoint
of its own and commits once: a failing change undoes itself, a hundred waiting ones share one fsync.
When SQLite itself takes the transaction back (a full disk), every change of the group fails.

Survives: with `durable=True` (synchronous=FULL) a power cut after `change` returned; with
`durable=False` (synchronous=NORMAL) a process crash.
"""

from __future__ import annotations

import contextlib
import queue
import sqlite3
import threading
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import URL, Connection, Engine, create_engine, event
from sqlalchemy.exc import DatabaseError, OperationalError
from sqlalchemy.pool import QueuePool, StaticPool

from falaj.kernel.disk import refusal
from falaj.kernel.errors import Conflict, Integrity, Invalid, Unavailable
from falaj.kernel.log import logger

T = TypeVar("T")
_Job = tuple[Callable[[Connection], Any], "Future[Any]"]
_DAMAGED = ("malformed", "not a database", "disk image")
_BEGIN, _UNDO, _END = "SAVEPOINT change", "ROLLBACK TO change", "RELEASE change"
_GROUP = 128  # changes that share one commit at the most
_log = logger(__name__)


class SqliteDatabase:
    """A `Database` over one file. Closing waits for the changes that were accepted."""

    def __init__(self, path: Path, *, durable: bool = True, readers: int = 4) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = self.path = path
        self._writer_engine = _engine(path, durable=durable, pool=StaticPool)
        self._reader_engine = _engine(path, durable=durable, pool=QueuePool, size=readers)
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._closed = False
        self._guard = threading.Lock()
        # Opening for writing here, not in the thread, lets a broken file fail where it can be explained.
        try:
            self._connection = self._writer_engine.connect()
        except DatabaseError as e:
            if any(words in str(e.orig) for words in _DAMAGED):
                raise damaged(path, e.orig) from e
            raise refusal(e, path) or Unavailable(
                f"cannot open {path.name}: {e.orig}",
                hint="check the disk and the rights of the home folder",
                code="database_not_opened",
            ) from e
        self._thread = threading.Thread(target=self._write, name=f"sql-writer-{path.stem}", daemon=True)
        self._thread.start()

    def read(self, query: Callable[[Connection], T]) -> T:
        """See `Database.read`."""
        try:
            with self._reader_engine.connect() as connection:
                return query(connection)
        except (DatabaseError, OverflowError) as e:
            told = self._explained(e)
            if told is e or "readonly" in str(
                getattr(e, "orig", "")
            ):  # a query that writes is a fault of ours, not the disk's
                raise
            raise told from e

    def change(self, work: Callable[[Connection], T]) -> T:
        """See `Database.change`. Raises `Conflict` within another change."""
        if threading.current_thread() is self._thread:
            raise Conflict(
                "a change may not wait for another change of the same database",
                hint="do both on the transaction that the change was given",
                code="nested_change",
            )
        return self.submit(work).result()

    def submit(self, work: Callable[[Connection], T]) -> Future[T]:
        """Queue a change; the future resolves after its commit."""
        future: Future[T] = Future()
        with self._guard:
            if self._closed:
                raise Unavailable(
                    "the database is closed",
                    hint="the process is stopping; try again when it runs",
                    code="database_closed",
                )
            self._jobs.put((work, future))
        return future

    def close(self) -> None:
        """See `Database.close`."""
        with self._guard:
            if self._closed:
                return
            self._closed = True
            self._jobs.put(None)
        self._thread.join()
        self._connection.close()
        self._writer_engine.dispose()
        self._reader_engine.dispose()

    def _write(self) -> None:
        while True:
            group, last = self._next_group()
            if group:
                self._commit(group)
            if last:
                return

    def _next_group(self) -> tuple[list[_Job], bool]:
        group: list[_Job] = []
        job = self._jobs.get()
        while job is not None:
            group.append(job)
            if len(group) == _GROUP:
                return group, False
            try:
                job = self._jobs.get_nowait()
            except queue.Empty:
                return group, False
        return group, True

    def _commit(self, group: list[_Job]) -> None:
        group = [job for job in group if job[1].set_running_or_notify_cancel()]
        done: dict[Future[Any], Any] = {}
        failed: dict[Future[Any], BaseException] = {}
        try:
            with self._connection.begin():
                raw = self._raw()
                for work, future in group:
                    raw.execute(_BEGIN)  # `begin_nested` would compile it anew each time
                    try:
                        result = work(self._connection)
                    except BaseException as e:  # any failure of a change is that change's own answer
                        if not self._in_transaction():
                            raise  # SQLite took back the others of the group too
                        self._connection.exec_driver_sql(_UNDO)
                        raw.execute(_END)
                        failed[future] = self._explained(e)
                    else:
                        raw.execute(_END)
                        done[future] = result
                if not self._in_transaction():
                    raise Unavailable(
                        "the database took a transaction back", hint="check free disk space", code="database_refused"
                    )
        except BaseException as e:  # nothing was committed: nobody may believe that theirs was done
            with contextlib.suppress(sqlite3.Error):  # a failed commit leaves its transaction open
                self._raw().rollback()
            _log.error("commit_failed", error=str(e), changes=len(group))
            failed |= {future: self._explained(e) for _, future in group if future not in failed}
            done.clear()
        for future, result in done.items():
            future.set_result(result)
        for future, error in failed.items():
            future.set_exception(error)

    def _in_transaction(self) -> bool:
        return self._raw().in_transaction

    def _raw(self) -> sqlite3.Connection:
        raw: Any = self._connection.connection.dbapi_connection
        return raw  # type: ignore[no-any-return]

    def _explained(self, error: BaseException) -> BaseException:
        return explained(error, self._path)


def explained(error: BaseException, path: Path) -> BaseException:
    """What a failure of a database means to whoever asked: the disk refuses, the file is damaged; else the error as it is."""
    if isinstance(error, OverflowError) and "SQLite" in str(error):
        return Invalid(
            "a number is larger than any that is kept here", hint="use one below 2^63", code="number_too_large"
        )
    if not isinstance(error, DatabaseError):
        return error
    if any(words in str(error.orig) for words in _DAMAGED):
        return damaged(path, error.orig)
    if not isinstance(error, OperationalError):
        return error
    return refusal(error, path) or Unavailable(
        f"the database refused: {error.orig}",
        hint="check free disk space and rights of the home folder",
        code="database_refused",
    )


def damaged(path: Path, why: object) -> Integrity:
    """What to say of a database file whose bytes make no sense."""
    return Integrity(
        f"{path.name} is damaged: {why}",
        hint=f"change nothing, copy the home as it is, and restore {path.name} from a backup",
        code="database_damaged",
    )


def _engine(path: Path, *, durable: bool, pool: type, size: int = 0) -> Engine:
    arguments: dict[str, Any] = {"pool_size": size, "max_overflow": size * 4} if size else {}
    engine = create_engine(
        URL.create("sqlite", database=str(path)),  # no text that a '?' in a folder's name could end
        poolclass=pool,
        hide_parameters=True,  # values never reach a message or a log
        connect_args={"check_same_thread": False, "timeout": 30},
        **arguments,
    )

    @event.listens_for(engine, "connect")
    def _connect(connection: Any, _record: Any) -> None:
        connection.isolation_level = None  # BEGIN is ours, below
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute(f"PRAGMA synchronous={'FULL' if durable else 'NORMAL'}")
        connection.execute("PRAGMA foreign_keys=ON")
        if size:
            connection.execute("PRAGMA query_only=ON")

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN" if size else "BEGIN IMMEDIATE")

    return engine
