from __future__ import annotations

import threading
from datetime import timedelta

import pytest

from falaj.governance.audit import merkle
from falaj.governance.audit.model import Conditions, decode
from falaj.governance.door import Event
from falaj.kernel.errors import Conflict, Integrity
from falaj.storage.sql.database import Tx
from tests.governance.audit.support import Log


def recorded(log: Log, event: Event) -> int:
    return log.database.change(lambda tx: log.service.record(tx, event))


def found(log: Log, **conditions: object) -> list[int]:
    return [one.index for one in log.service.search(Conditions(**conditions))]  # type: ignore[arg-type]


def test_index_is_position(log: Log) -> None:
    assert log.service.size() == 0
    first = log.database.change(lambda tx: log.service.record(tx, log.event(0)))
    more = log.database.change(lambda tx: log.service.record_many(tx, [log.event(1), log.event(2)]))
    assert (first, more, log.service.size()) == (0, range(1, 3), 3)
    rows = log.database.read(lambda tx: log.store.entries(tx, 1, 10))
    assert [row.index for row in rows] == [1, 2]
    assert [decode(row.data).resource_id for row in rows] == ["m@1", "m@2"]
    assert all(row.leaf == merkle.leaf_hash(row.data) for row in rows)


def test_appending_nothing(log: Log) -> None:
    log.append(2)
    assert log.database.change(lambda tx: log.service.record_many(tx, [])) == range(2, 2)


def test_an_undone_change_leaves_no_gap(log: Log) -> None:
    log.append(2)

    def undone(tx: Tx) -> None:
        assert log.service.record(tx, log.event(99)) == 2
        raise Conflict("no", hint="none", code="no")

    with pytest.raises(Conflict):
        log.database.change(undone)
    assert log.database.change(lambda tx: log.service.record(tx, log.event(2))) == 2
    assert log.publisher.publish().size == 3


def test_threads_get_contiguous_indices(log: Log) -> None:
    given: list[int] = []

    def work(worker: int) -> None:
        events = [log.event(worker * 1000 + n) for n in range(40)]
        given.extend(recorded(log, event) for event in events)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(given) == list(range(320))
    report = log.service.verify()
    assert (report.ok, report.size, report.problems) == (True, 320, ())


def test_search(log: Log) -> None:
    start = log.clock.shows
    for n in range(6):
        log.clock.shows = start + timedelta(minutes=n)
        event = log.event(n, principal="ada" if n % 2 else "bob", outcome="denied" if n == 4 else "done")
        recorded(log, event)
    assert found(log) == [5, 4, 3, 2, 1, 0]
    assert found(log, principal="ada") == [5, 3, 1]
    assert found(log, principal="bob", outcome="done") == [2, 0]
    assert found(log, resource_type="ModelVersion", resource_id="m@3") == [3]
    assert found(log, action="model.delete") == []
    assert found(log, operation_id="op_2") == [2]
    assert found(log, since=start + timedelta(minutes=2), until=start + timedelta(minutes=4)) == [3, 2]
    assert found(log, limit=2) == [5, 4]
    assert found(log, limit=2, before_index=4) == [3, 2]
    assert found(log, limit=2, before_index=10**30) == [5, 4]
    assert found(log, before_index=-(10**30)) == found(log, before_index=0) == []


def test_search_finds_what_was_shortened(log: Log) -> None:
    long = "x" * 3000
    log.database.change(lambda tx: log.service.record(tx, log.event(0, resource_id=long)))
    assert found(log, resource_id=long) == [0]


def test_search_says_what_is_signed(log: Log) -> None:
    log.append(1)
    log.publisher.publish()
    log.append(1)
    assert [(one.index, one.signed) for one in log.service.search(Conditions())] == [(1, False), (0, True)]


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE audit_entries SET principal = 'ada' WHERE idx = 1",
        "UPDATE audit_entries SET data = CAST(replace(CAST(data AS TEXT), 'owner', 'other') AS BLOB) WHERE idx = 1",
        "UPDATE audit_entries SET data = x'00' WHERE idx = 1",
    ],
)
def test_search_does_not_show_a_changed_row(log: Log, statement: str) -> None:
    log.append(3)
    log.sql(statement)
    with pytest.raises(Integrity):
        log.service.search(Conditions())


def test_rows_beyond_the_head_are_not_in_the_log(log: Log) -> None:
    log.append(2)
    log.sql(
        "INSERT INTO audit_entries SELECT 7, data, leaf, at, principal, action, resource_type, resource_id, outcome,"
        " operation_id FROM audit_entries WHERE idx = 1"
    )
    assert found(log) == [1, 0]
    assert log.publisher.publish().size == 2
