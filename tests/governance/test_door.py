from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import msgspec
import pytest
from sqlalchemy import Column, MetaData, String, Table, insert, select

from falaj.bootstrap.control_plane import actions
from falaj.governance.door import Done, Event, Intent
from falaj.governance.policy.decide import CedarAuthoriser, policy_text
from falaj.kernel.access import Action, Principal, Resource
from falaj.kernel.digests import canonical_json
from falaj.kernel.errors import Conflict, Denied, FalajError, Invalid, NotFound, Unavailable
from falaj.storage.sql.database import Tx
from tests.governance.support import ADMIN, VIEWER, Desk

GRANT = Action("identity.grant", "administration", "Account", "give a principal roles and a token")
REVOKE = Action("identity.revoke", "administration", "Account", "revoke a token")
notes = Table("notes", MetaData(), Column("text", String, nullable=False))


@pytest.fixture
def desk(desk: Desk) -> Desk:
    desk.database.change(notes.metadata.create_all)
    return desk


def written(desk: Desk) -> list[str]:
    return [str(x) for x in desk.database.read(lambda tx: tx.execute(select(notes.c.text)).scalars().all())]


def write(text: str, result: Any = "ok") -> Callable[[Tx], Done[Any]]:
    def do(tx: Tx) -> Done[Any]:
        tx.execute(insert(notes).values(text=text))
        return Done(result, {"wrote": text})

    return do


def intent(actor: Principal = ADMIN, action: Action = GRANT, operation: str = "op_1", **more: Any) -> Intent:
    return Intent(actor, action, Resource("Account", "bob"), operation, **more)


def test_a_change_is_done_audited_and_committed_as_one(desk: Desk) -> None:
    assert desk.door.change(intent(detail={"why": "test"}), write("a", {"n": 1})) == {"n": 1}
    assert written(desk) == ["a"]
    assert desk.stored_operations() == {"op_1": {"n": 1}}
    (entry,) = desk.entries()
    assert (entry.principal, entry.action, entry.resource_type, entry.resource_id) == (
        "ada", "identity.grant", "Account", "bob",
    )  # fmt: skip
    assert (entry.outcome, entry.operation_id, entry.detail) == ("done", "op_1", {"why": "test", "wrote": "a"})


def test_who_acts_for_somebody_names_them(desk: Desk) -> None:
    desk.door.change(intent(context={"on_behalf_of": "eve", "other": "x"}), write("a"))
    assert desk.entries()[0].detail == {"on_behalf_of": "eve", "wrote": "a"}


def test_a_denial_is_audited_and_nothing_is_done(desk: Desk) -> None:
    with pytest.raises(Denied) as denied:
        desk.door.change(intent(VIEWER, detail={"why": "test"}), write("a"))
    assert denied.value.code == "denied_by_policy"
    assert written(desk) == [] and desk.stored_operations() == {}
    (entry,) = desk.entries()
    assert (entry.principal, entry.outcome, entry.operation_id) == ("vic", "denied", "op_1")
    assert entry.detail["why"] == "test" and entry.detail["reason"]


@pytest.mark.parametrize("error", [Conflict, Invalid, NotFound, Denied, Unavailable])
def test_a_refusal_undoes_what_was_done_and_is_audited(desk: Desk, error: type[FalajError]) -> None:
    def do(tx: Tx) -> Done[None]:
        write("half")(tx)
        raise error("not like this", hint="do it otherwise", code="not_so")

    with pytest.raises(error, match="not like this"):
        desk.door.change(intent(), do)
    assert written(desk) == [] and desk.stored_operations() == {}
    (entry,) = desk.entries()
    assert entry.outcome == "refused"
    assert entry.detail == {"code": "not_so", "reason": "not like this", "hint": "do it otherwise"}


def test_after_a_refusal_the_operation_can_be_done(desk: Desk) -> None:
    def never(_tx: Tx) -> Done[None]:
        raise Invalid("no", hint="h", code="no")

    with pytest.raises(Invalid):
        desk.door.change(intent(), never)
    assert desk.door.change(intent(), write("a")) == "ok"
    assert desk.outcomes() == [("identity.grant", "refused"), ("identity.grant", "done")]


def test_an_accident_undoes_what_was_done(desk: Desk) -> None:
    def do(tx: Tx) -> Done[None]:
        write("half")(tx)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        desk.door.change(intent(), do)
    assert written(desk) == [] and desk.stored_operations() == {} and desk.entries() == []


@pytest.mark.parametrize(
    "result",
    [
        None,
        "text",
        3,
        2.5,
        True,
        [],
        {"a": [1, {"b": None}]},
        (1, (2, "x")),
        Resource("A", "b", {"c": (1,)}),
    ],
    ids=repr,
)
def test_the_same_operation_gives_the_same_answer_and_does_nothing(desk: Desk, result: Any) -> None:
    first = desk.door.change(intent(), write("a", result))
    again = desk.door.change(intent(), write("b", "another"))
    assert again == first
    assert type(again) is type(first)
    assert canonical_json(first) == canonical_json(result)
    assert written(desk) == ["a"]
    assert desk.outcomes() == [("identity.grant", "done")]


def test_one_of_many_that_come_at_once_does_it(desk: Desk) -> None:
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda n: desk.door.change(intent(), write(str(n), n)), range(8)))
    assert len(set(answers)) == 1
    assert written(desk) == [str(answers[0])]
    assert len(desk.entries()) == 1


@pytest.mark.parametrize(
    "other",
    [intent(action=REVOKE), intent(Principal("abe", "person", ("platform-admin",)))],
    ids=["another action", "another person"],
)
def test_an_operation_belongs_to_one_action_of_one_principal(desk: Desk, other: Intent) -> None:
    desk.door.change(intent(), write("a", {"secret": 1}))
    with pytest.raises(Conflict) as refused:
        desk.door.change(other, write("b"))
    assert refused.value.code == "operation_reused"
    assert written(desk) == ["a"]
    assert [e.outcome for e in desk.entries()] == ["done", "refused"]


def test_who_may_not_do_it_gets_no_stored_answer_either(desk: Desk) -> None:
    desk.door.change(intent(), write("a", {"secret": 1}))
    with pytest.raises(Denied):
        desk.door.change(intent(msgspec.structs.replace(ADMIN, roles=("viewer",))), write("b"))


def test_without_a_name_every_change_is_its_own(desk: Desk) -> None:
    for text in "ab":
        desk.door.change(intent(operation=""), write(text))
    assert written(desk) == ["a", "b"]
    assert len(desk.stored_operations()) == 2
    assert {e.operation_id for e in desk.entries()} == set(desk.stored_operations())


@pytest.mark.parametrize("result", [object(), {1: "one"}], ids=["object", "number as key"])
def test_a_result_that_json_does_not_know_stops_the_change(desk: Desk, result: Any) -> None:
    with pytest.raises(TypeError):
        desk.door.change(intent(), write("a", result))
    assert written(desk) == [] and desk.entries() == []


class FailingAuditor:
    """The real one until the outcome that it cannot write."""

    def __init__(self, desk: Desk, outcome: str, error: Exception) -> None:
        self._desk, self._outcome, self._error = desk, outcome, error

    def record(self, tx: Tx, event: Event) -> int:
        if event.outcome == self._outcome:
            raise self._error
        return self._desk.audit.record(tx, event)


@pytest.mark.parametrize(
    "error", [RuntimeError("disk"), Unavailable("disk", hint="h", code="disk")], ids=["accident", "refusal"]
)
def test_an_audit_entry_that_cannot_be_written_stops_the_change(desk: Desk, error: Exception) -> None:
    door = desk.make_door(auditor=FailingAuditor(desk, "done", error))
    with pytest.raises(type(error), match="disk"):
        door.change(intent(), write("a"))
    assert written(desk) == [] and desk.stored_operations() == {}
    with pytest.raises(type(error), match="disk"):
        door.read(intent())


def test_detail_that_is_not_json_stops_the_change(desk: Desk) -> None:
    with pytest.raises(Invalid) as refused:
        desk.door.change(intent(), lambda tx: Done(write("a")(tx).result, {"x": object()}))
    assert refused.value.code == "audit_detail_not_json"
    assert written(desk) == []
    assert [e.outcome for e in desk.entries()] == ["refused"]


@pytest.mark.parametrize("outcome", ["denied", "refused"])
def test_a_refusal_that_cannot_be_audited_is_not_swallowed(desk: Desk, outcome: str) -> None:
    def never(_tx: Tx) -> Done[None]:
        raise Invalid("no", hint="h", code="no")

    door = desk.make_door(auditor=FailingAuditor(desk, outcome, RuntimeError("disk")))
    with pytest.raises(RuntimeError, match="disk"):
        door.change(intent(VIEWER if outcome == "denied" else ADMIN), never)
    assert desk.entries() == []


BROKEN_RULES = [
    'forbid (principal, action, resource) when { resource.nothing == "x" };',
    "forbid (principal, action, resource) when { context.nothing > 3 };",
    "permit (principal, action, resource) when { principal.kind > 3 };",
    "forbid (principal, action, resource) when { 9223372036854775807 + 1 == 0 };",
]


@pytest.mark.parametrize("rule", BROKEN_RULES)
def test_a_rule_that_cannot_be_evaluated_denies(desk: Desk, rule: str) -> None:
    assert desk.door.allows(intent())
    door = desk.make_door(CedarAuthoriser(policy_text() + '\n@id("broken")\n' + rule, actions()))
    with pytest.raises(Denied) as denied:
        door.change(intent(), write("a"))
    assert denied.value.details["errors"]
    assert written(desk) == []
    assert [e.outcome for e in desk.entries()] == ["denied"]


def test_reading_is_audited_before_it_is_allowed(desk: Desk) -> None:
    desk.door.read(intent())
    with pytest.raises(Denied):
        desk.door.read(intent(VIEWER))
    assert [(e.principal, e.outcome) for e in desk.entries()] == [("ada", "done"), ("vic", "denied")]


def test_asking_whether_leaves_no_trace(desk: Desk) -> None:
    assert desk.door.allows(intent())
    assert not desk.door.allows(intent(VIEWER))
    assert desk.entries() == []


def test_checking_records_denials_only(desk: Desk) -> None:
    assert desk.door.check(intent()).rules == ("admins-administer",)
    with pytest.raises(Denied):
        desk.door.check(intent(VIEWER))
    assert [e.outcome for e in desk.entries()] == ["denied"]


def test_a_refusal_from_before_the_change_is_cut_to_size(desk: Desk) -> None:
    desk.door.refuse(intent(), Invalid("x" * 5000, hint="y" * 5000, code="long"))
    (entry,) = desk.entries()
    assert (len(entry.detail["reason"]), len(entry.detail["hint"])) == (1000, 500)


def test_what_is_committed_is_in_the_log_that_verifies(desk: Desk) -> None:
    for n in range(5):
        desk.door.change(intent(operation=f"op_{n}"), write(str(n)))
    found = desk.audit.verify()
    assert (found.ok, found.size, found.problems) == (True, 5, ())
