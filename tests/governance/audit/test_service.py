from __future__ import annotations

import pytest

from falaj.governance.audit.model import Conditions
from falaj.governance.door import Done, Door, Intent
from falaj.kernel.access import Action, Decision, Principal, Question, Resource
from falaj.kernel.errors import Conflict, Denied, FalajError, Invalid
from falaj.storage.sql.database import Tx
from tests.governance.audit.support import Log

APPROVE = Action("version.approve", "risk", "ModelVersion", "approve a version")


class OnlyAda:
    """Ada may do anything, others nothing."""

    def decide(self, question: Question) -> Decision:
        return Decision(question.principal.name == "ada", reason="only ada may")


@pytest.fixture
def door(log: Log) -> Door:
    return Door(log.database, OnlyAda(), log.service, log.clock)


def intent(name: str = "ada", **changes: str) -> Intent:
    return Intent(
        Principal(name),
        APPROVE,
        Resource("ModelVersion", "m@1"),
        operation_id=changes.get("operation_id", ""),
        detail={"digest": "sha256:ab"},
    )


def outcomes(log: Log) -> list[tuple[str, str, dict[str, object]]]:
    return [(f.entry.principal, f.entry.outcome, f.entry.detail) for f in log.service.search(Conditions())][::-1]


def test_a_change_a_denial_and_a_refusal_are_recorded(log: Log, door: Door) -> None:
    def refuse(tx: Tx) -> Done[str]:
        raise Conflict("already approved", hint="nothing to do", code="approved")

    assert door.change(intent(), lambda _: Done("yes", {"by": "ada"})) == "yes"
    with pytest.raises(Denied):
        door.change(intent("bob"), lambda _: Done("never"))
    with pytest.raises(Conflict):
        door.change(intent(), refuse)
    recorded = outcomes(log)
    assert [(name, outcome) for name, outcome, _ in recorded] == [
        ("ada", "done"),
        ("bob", "denied"),
        ("ada", "refused"),
    ]
    assert recorded[0][2] == {"digest": "sha256:ab", "by": "ada"}
    assert recorded[1][2]["reason"] == "only ada may"
    assert recorded[2][2]["code"] == "approved"
    assert log.service.verify().ok


def test_a_repeated_operation_is_recorded_once(log: Log, door: Door) -> None:
    for _ in range(2):
        assert door.change(intent(operation_id="op_x"), lambda _: Done(1)) == 1
    assert len(outcomes(log)) == 1


def test_a_change_that_cannot_be_recorded_is_not_done(log: Log, door: Door) -> None:
    def other_change(tx: Tx) -> Done[int]:
        log.service.record(tx, log.event(99))
        return Done(1, {"x": object()})

    with pytest.raises(Invalid):
        door.change(intent(), other_change)
    assert [(name, outcome) for name, outcome, _ in outcomes(log)] == [("ada", "refused")]


def test_a_sensitive_read_is_recorded(log: Log, door: Door) -> None:
    door.read(intent())
    assert [outcome for _, outcome, _ in outcomes(log)] == ["done"]


def test_verification_publishes_first_and_counts(log: Log) -> None:
    log.append(7)
    report = log.service.verify()
    assert (report.ok, report.size, report.unsigned, report.problems) == (True, 7, 0, ())
    assert report.root == report.folder.root == report.database.root
    assert report.folder.checked_bytes > 0
    assert report.database.checked_bytes > 0


def test_an_edited_row_is_named_by_verification(log: Log) -> None:
    log.append(300)
    assert log.service.verify().ok
    log.sql(
        "UPDATE audit_entries SET data = CAST(replace(CAST(data AS TEXT), 'owner', 'other') AS BLOB) WHERE idx = 17"
    )
    for fresh in (False, True):
        if fresh:
            log.restart()
        report = log.service.verify()
        assert not report.ok
        assert "entry 17: its bytes in the database do not give the leaf hash in tile/0/000" in report.problems
        assert report.folder.ok


def test_entries_that_cannot_be_signed_are_counted(log: Log) -> None:
    log.append(3)
    log.publisher.publish()
    log.append(2)
    log.sql("UPDATE audit_entries SET data = x'7b7d' WHERE idx = 2")
    report = log.service.verify()
    assert (report.ok, report.size, report.unsigned) == (False, 3, 2)


def test_a_home_that_was_just_opened_says_what_is_signed(log: Log) -> None:
    log.append(3)
    log.publisher.publish()
    log.restart()
    assert (log.service.standing().size, log.service.standing().signed) == (3, 3)


def test_a_damaged_folder_is_reported_not_raised(log: Log) -> None:
    log.append(3)
    log.publisher.publish()
    (log.folder / "tile/entries/000.p/3").write_bytes(b"")
    (log.folder / "vkey").write_text("junk")
    log.restart()
    try:
        report = log.service.verify()
    except FalajError:
        pytest.fail("verification raised")
    assert not report.ok
    assert any(text.startswith("tile/entries/000.p/3") for text in report.problems)
