from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Connection

from falaj.storage.sql.sqlite import SqliteDatabase
from falaj.workflow.events import EventLog
from tests.governance.support import StillClock


@pytest.fixture
def database(tmp_path: Path) -> Iterator[SqliteDatabase]:
    made = SqliteDatabase(tmp_path / "metrics.db", durable=False)
    yield made
    made.close()


@pytest.fixture
def log(database: SqliteDatabase) -> EventLog:
    return EventLog(database, StillClock())


def texts(log: EventLog, flow: str, after: int = 0) -> list[str]:
    return [e["text"] for e in log.wait(flow, after, 0.0)]


def test_events_are_numbered_by_flow(log: EventLog) -> None:
    for flow, text in (("a", "1"), ("b", "x"), ("a", "2")):
        log.append(flow, {"type": "progress", "text": text})
    assert [(e["number"], e["text"]) for e in log.wait("a", 0, 0.0)] == [(1, "1"), (2, "2")]
    assert texts(log, "b") == ["x"]
    assert texts(log, "a", after=1) == ["2"]
    assert texts(log, "a", after=2) == texts(log, "c") == []
    assert log.wait("a", 0, 0.0)[0]["at"] == "2026-03-01T12:00:00.000Z"


def test_another_process_reads_them_later(log: EventLog, database: SqliteDatabase) -> None:
    for n in range(5):
        log.append("a", {"type": "progress", "text": str(n)})
    assert texts(EventLog(database, StillClock()), "a") == ["0", "1", "2", "3", "4"]


def test_who_waits_is_woken_by_its_own_flow(log: EventLog) -> None:
    heard: list[list[str]] = []
    listener = threading.Thread(target=lambda: heard.append([e["text"] for e in log.wait("a", 0, 20)]))
    listener.start()
    log.append("b", {"type": "progress", "text": "other"})
    log.append("a", {"type": "progress", "text": "mine"})
    listener.join(20)
    assert heard == [["mine"]]


def test_a_flow_that_left_the_memory_goes_on_where_it_was(log: EventLog, database: SqliteDatabase) -> None:
    """Even while its last events still wait to be written."""
    held, gate = threading.Event(), threading.Event()

    def hold(_tx: Connection) -> None:
        held.set()
        assert gate.wait(20)

    for n in range(70):
        log.wait(f"other_{n}", 0, 0.0)
    log.append("a", {"type": "progress", "text": "1"})
    busy = database.submit(hold)
    assert held.wait(20)
    log.append("a", {"type": "progress", "text": "2"})  # behind what holds the writer
    log._flows.clear()  # as 64 younger flows would
    append = threading.Thread(target=lambda: log.append("a", {"type": "progress", "text": "3"}))
    append.start()
    gate.set()
    append.join(20)
    busy.result(20)
    assert texts(log, "a") == texts(EventLog(database, StillClock()), "a") == ["1", "2", "3"]


def test_while_the_process_stops_news_is_dropped_and_nothing_fails(log: EventLog, database: SqliteDatabase) -> None:
    log.append("a", {"type": "progress", "text": "1"})
    database.close()
    log.append("a", {"type": "progress", "text": "2"})
    log.append("new", {"type": "progress", "text": "1"})
    log.append("a", {"type": "metric", "run": "r", "key": "loss", "step": 1, "value": 0.5})


def test_learning_curves(log: EventLog, database: SqliteDatabase) -> None:
    log.points("r1", [("loss", 2, 0.5), ("loss", 1, 0.9), ("auc", 1, 0.6)])
    log.points("r1", [("loss", 2, 0.4)])
    log.append("flow", {"type": "metric", "run": "r2", "key": "loss", "step": 1, "value": 0.1})
    log.append("flow", {"type": "metric", "run": "r2", "key": "loss", "step": 2, "value": None})
    database.change(lambda _tx: None)
    assert log.curves("r1") == {"auc": [(1, 0.6)], "loss": [(1, 0.9), (2, 0.4)]}
    assert log.curves("r2") == {"loss": [(1, 0.1)]}
    assert log.curves("r3") == {}
