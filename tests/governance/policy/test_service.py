"""The policy that holds, and the one way to another."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import insert, update

from falaj.bootstrap.control_plane import actions
from falaj.governance.identity.service import Terms
from falaj.governance.policy.decide import default_policy
from falaj.governance.policy.service import PolicyInForce
from falaj.governance.policy.statements import check_policy
from falaj.governance.policy.store import policies
from falaj.kernel.access import SYSTEM, Action, Principal, Question, Resource
from falaj.kernel.digests import sha256
from falaj.kernel.errors import Conflict, Denied, Integrity, Invalid, NotFound
from tests.governance.policy import oracle as table
from tests.governance.support import ADMIN, ENGINEER, RISK, VIEWER, Desk

ACTIONS = actions()
MORE = '\n@id("viewers-read-the-log") permit (principal in Role::"viewer", action == Action::"audit.read", resource);\n'
EVERYTHING = '@id("everything") permit (principal, action, resource);'
WHY = "the auditors asked for it"


@pytest.fixture
def kept(desk: Desk) -> Desk:
    """A desk where somebody has an administrator's token."""
    desk.identity.grant(SYSTEM, ADMIN, 30)
    return desk


def allowed(desk: Desk, who: Principal, action: str, **facts: Any) -> bool:
    kind = next(a.resource for a in ACTIONS if a.name == action)
    return desk.in_force.decide(Question(who, action, Resource(kind, "it", facts))).allowed


def test_a_new_home_holds_the_releases_default(desk: Desk) -> None:
    current = desk.policy.current()
    assert (current.number, current.text, current.digest) == (0, default_policy(), sha256(default_policy().encode()))
    assert desk.policy.versions() == [current] and desk.policy.trouble == ""
    assert (
        list(table.differing(table.cells(table.Oracle(table.TABLE.read_text("utf-8")), ACTIONS), desk.in_force)) == []
    )


def test_another_policy_holds_at_once_and_stands_in_the_log(kept: Desk) -> None:
    told: list[str] = []
    kept.policy.on_change(lambda: told.append(kept.policy.layers().home))
    assert not allowed(kept, VIEWER, "audit.read")
    text = default_policy() + MORE
    version = kept.policy.apply(ADMIN, text, f" {WHY} ")
    assert allowed(kept, VIEWER, "audit.read")
    assert told == [text]
    assert (version.number, version.text, version.reason, version.author) == (1, text, WHY, "ada")
    entry = kept.entries()[-1]
    assert (entry.action, entry.outcome, entry.principal) == ("policy.apply", "done", "ada")
    assert entry.detail == {
        "digest": sha256(text.encode()), "before": sha256(default_policy().encode()), "reason": WHY, "version": 1,
    }  # fmt: skip
    kept.policy.apply(ADMIN, default_policy(), "and back")
    assert not allowed(kept, VIEWER, "audit.read")
    assert [v.number for v in kept.policy.versions()] == [2, 1, 0]
    assert kept.policy.version(1) == version
    with pytest.raises(NotFound):
        kept.policy.version(3)


@pytest.mark.parametrize(
    "who", [VIEWER, ENGINEER, RISK, Principal("bot", "service", ("service",))], ids=lambda p: p.name
)
def test_only_administrators_change_it(kept: Desk, who: Principal) -> None:
    with pytest.raises(Denied):
        kept.policy.apply(who, EVERYTHING, WHY)
    assert kept.policy.current().number == 0 and not allowed(kept, VIEWER, "audit.read")
    entry = kept.entries()[-1]
    assert (entry.action, entry.outcome) == ("policy.apply", "denied")
    assert entry.detail["digest"] == sha256(EVERYTHING.encode())


@pytest.mark.parametrize(
    ("more", "code", "match"),
    [
        ("permit", "bad_policy", "cannot be parsed"),
        ("permit (principal, action, resource);", "bad_policy", "needs an @id"),
        ('@id("A b") permit (principal, action, resource);', "bad_policy", "needs an @id"),
        ('@id("admins-administer") permit (principal, action, resource);', "bad_policy", "two statements"),
        ('@id("no") forbid (principal, action == Action::"data.read", resource);', "bad_policy", "needs a @hint"),
        ('@id("x") permit (principal, action == Action::"data.reed", resource);', "bad_policy", "data.reed"),
        ('@id("x") permit (principal in Role::"vewer", action, resource);', "bad_policy", "vewer"),
        ('@id("x") permit (principal in Team::"a", action, resource);', "bad_policy", "Team"),
        ('@id("x") permit (principal, action, resource is Modell);', "bad_policy", "Modell"),
        ('@id("x") permit (principal, action == Action::"data.read", resource is Model);', "bad_policy", "action"),
        (
            '@id("x") permit (principal, action == Action::"changes.approve", resource) when { resource.author == principal };',
            "bad_policy",
            "optional attribute",
        ),
        (
            '@id("x") permit (principal, action == Action::"changes.approve", resource) when { resource.autor == 1 };',
            "bad_policy",
            "autor",
        ),
        (
            '@id("x") permit (principal, action, resource) when { principal.kind == 1 };',
            "bad_policy",
            "types",
        ),
        ('@id("x") permit (principal, action, resource) when { context.admin };', "bad_policy", "admin"),
        ('@id("x") permit (principal == ?principal, action, resource);', "bad_policy", "template"),
        ("// " + "x" * 70_000, "bad_policy", "larger"),
        ("// \ud800", "bad_policy", "no text"),
        ('@id("four-eyes") permit (principal, action, resource);', "platform_rule", "four-eyes"),
        ('@id("services-ask-production") permit (principal, action, resource);', "platform_rule", "platform's own"),
    ],
    ids=range(19),
)
def test_what_cannot_hold_is_refused_before_it_does(kept: Desk, more: str, code: str, match: str) -> None:
    text = f"{default_policy()}\n{more}"
    for refuse in (lambda: kept.policy.plan(text), lambda: kept.policy.apply(ADMIN, text, WHY)):
        with pytest.raises(Invalid, match=match) as refusal:
            refuse()
        assert refusal.value.code == code and refusal.value.hint
    assert kept.policy.versions()[0].number == 0
    if "\ud800" not in text:  # of which nothing can be written down
        entry = kept.entries()[-1]
        assert (entry.action, entry.outcome, entry.detail["code"]) == ("policy.apply", "refused", code)


_TOKENS = [
    "(", ")", "[", "]", "{", "}", ";", "\"", "\\", "//", "\n", "\r", "@id(\"x\")", "permit", "forbid", "principal", "action",
    "resource", "when", "unless", "!", "-", "+", "*", ".", "a", "has", "like", "in", "is", "if", "then", "else", "&&", "||", "==",
    "<", ",", ":", "::", "1", "true", "Role::\"viewer\"", "(principal, action, resource)", "when { ", "?principal", "\u2028",
]  # fmt: skip
_DEEP = {
    "brackets": lambda n: "(" * n + "true" + ")" * n,
    "brackets, in pieces": lambda n: ("(" * 25 + ";") * (n // 25),
    "brackets, behind closed ones": lambda n: ")" * n + "(" * n,
    "brackets, behind a carriage return": lambda n: "// \r" + "(" * n + "true" + ")" * n,
    "brackets, behind a quote": lambda n: 'principal.kind == "\\"" && ' + "(" * n + "true" + ")" * n,
    "lists": lambda n: "[" * n + "]" * n,
    "records": lambda n: "{a:" * (n // 2) + "1" + "}" * (n // 2),
    "attributes": lambda n: "principal" + ".a" * n,
    "has": lambda n: "principal has a" + ".a" * n,
    "sums": lambda n: "1" + "+1" * n + " == 1",
    "ands": lambda n: "true" + " && true" * (n // 4),
    "ifs": lambda n: "if true then " * (n // 8) + "true" + " else true" * (n // 8),
    "nots": lambda n: "!" * n + "true",
    "calls": lambda n: "principal" + ".contains(principal" * (n // 8) + ")" * (n // 8),
}


@pytest.mark.parametrize("size", [1_200, 4_000, 20_000])
@pytest.mark.parametrize("kind", _DEEP)
def test_a_text_that_would_end_the_process_never_reaches_the_parser(kind: str, size: int) -> None:
    """Cedar's parser recurses: without a limit some thousand brackets are a SIGSEGV, and anyone may ask for a plan."""
    text = f'@id("x") permit (principal, action, resource) when {{ {_DEEP[kind](size)} }};'
    with pytest.raises(Invalid) as refusal:
        check_policy(text, ACTIONS)
    assert refusal.value.code == "bad_policy"


@given(st.lists(st.sampled_from(_TOKENS), max_size=400))
@settings(max_examples=150, deadline=None)
def test_no_soup_of_tokens_ends_the_process(tokens: list[str]) -> None:
    with contextlib.suppress(Invalid):
        check_policy("".join(tokens), ACTIONS)


@pytest.mark.parametrize("reason", ["", "  ", "x" * 1001])
def test_a_change_has_a_reason(kept: Desk, reason: str) -> None:
    with pytest.raises(Invalid, match="needs a reason"):
        kept.policy.apply(ADMIN, default_policy() + MORE, reason)
    assert kept.policy.current().number == 0


def test_what_holds_already_is_not_applied_again(kept: Desk) -> None:
    with pytest.raises(Conflict) as refusal:
        kept.policy.apply(ADMIN, default_policy(), WHY)
    assert refusal.value.code == "same_policy"


def test_a_repeated_operation_is_done_once(kept: Desk) -> None:
    first = kept.policy.apply(ADMIN, default_policy() + MORE, WHY, "op_1")
    assert kept.policy.apply(ADMIN, default_policy() + MORE, WHY, "op_1") == first
    assert kept.policy.current().number == 1


# the platform's own rules


def test_no_home_can_permit_what_the_platform_forbids(kept: Desk) -> None:
    kept.policy.apply(ADMIN, EVERYTHING, "let us see")
    cells = list(table.cells(table.Oracle(table.TABLE.read_text("utf-8")), ACTIONS))
    for cell in cells:
        if cell.role != table.PLATFORM:
            decision = kept.in_force.decide(cell.question())
            assert decision.allowed == (not cell.answer.forbids), cell
            assert cell.answer.forbids <= set(decision.rules)
    forbidden = set().union(*(c.answer.forbids for c in cells))
    assert {"four-eyes", "purpose-must-be-allowed", "nobody-waives-their-own-import", "only-the-platform"} <= forbidden


def test_no_home_stops_the_platform_itself(kept: Desk) -> None:
    before = [c for c in table.cells(table.Oracle(table.TABLE.read_text("utf-8")), ACTIONS) if c.role == table.PLATFORM]
    only = '@id("only-admins") @hint("be one") forbid (principal, action, resource) unless { principal in Role::"platform-admin" };'
    kept.policy.apply(ADMIN, f"{EVERYTHING}\n{only}", "nobody else for now")
    assert not allowed(kept, VIEWER, "data.read") and allowed(kept, ADMIN, "data.read")
    assert list(table.differing(before, kept.in_force)) == []


def test_a_rule_that_fails_to_evaluate_denies(kept: Desk) -> None:
    """It agrees with the schema, and Cedar would skip it."""
    failing = '@id("fails") @hint("-") forbid (principal, action == Action::"audit.read", resource) when { 9223372036854775807 + 1 > 0 };'
    assert allowed(kept, RISK, "audit.read")
    kept.policy.apply(ADMIN, f"{default_policy()}\n{failing}", "it looks right")
    decision = kept.in_force.decide(Question(RISK, "audit.read", Resource("AuditLog", "*")))
    assert not decision.allowed and decision.errors and "could not be evaluated" in decision.reason
    assert allowed(kept, RISK, "audit.verify")


def test_the_platforms_own_rules_must_agree_with_its_actions() -> None:
    without = tuple(a for a in ACTIONS if a.name != "changes.approve")
    with pytest.raises(Integrity, match=r"changes\.approve") as refusal:
        PolicyInForce(without)
    assert refusal.value.code == "platform_policy_broken"


# somebody must be able to change it again

ADMINS = '@id("admins-administer")\npermit (principal, action in Action::"administration", resource)\nwhen { principal in Role::"platform-admin" };\n'


@pytest.mark.parametrize(
    "text",
    [
        "",
        default_policy().replace(ADMINS, ""),
        default_policy().replace(ADMINS, ADMINS.replace("platform-admin", "auditor")),
        default_policy() + '@id("x") @hint("-") forbid (principal, action == Action::"policy.apply", resource);',
        default_policy() + '@id("x") @hint("-") forbid (principal, action == Action::"identity.grant", resource);',
        default_policy() + '@id("x") @hint("-") forbid (principal == Principal::"ada", action, resource);',
        default_policy()
        + '@id("x") @hint("-") forbid (principal, action, resource) when { 9223372036854775807 + 1 > 0 };',
    ],
    ids=range(7),
)
def test_a_policy_that_locks_every_administrator_out_is_refused(kept: Desk, text: str) -> None:
    assert text == "" or text != default_policy()
    with pytest.raises(Conflict) as refusal:
        kept.policy.apply(ADMIN, text, "oops")
    assert refusal.value.code == "would_lock_out"
    assert kept.policy.current().number == 0 and allowed(kept, ADMIN, "policy.apply")
    assert kept.entries()[-1].detail["code"] == "would_lock_out"


def test_only_tokens_that_are_good_count(desk: Desk) -> None:
    locking = default_policy() + '@id("x") @hint("-") forbid (principal == Principal::"ada", action, resource);'
    desk.identity.grant(SYSTEM, ADMIN, 30)
    desk.identity.grant(SYSTEM, Principal("amal", "person", ("platform-admin",)), 1)
    scoped = Principal("adel", "person", ("platform-admin",))
    desk.identity.grant(SYSTEM, scoped, Terms(30, ("read", "policy.apply")))
    desk.clock.forward(days=2)
    with pytest.raises(Conflict) as refusal:
        desk.policy.apply(ADMIN, locking, "amal's token has expired, adel's gives no roles")
    assert refusal.value.code == "would_lock_out"
    desk.identity.grant(SYSTEM, Principal("amal", "person", ("platform-admin",)), 1)
    assert desk.policy.apply(ADMIN, locking, "ada leaves").number == 1
    assert not allowed(desk, ADMIN, "data.read")


# a home whose policy cannot hold


@pytest.mark.parametrize("how", ["changed", "foreign"])
def test_a_policy_that_cannot_hold_leaves_administrators_only(kept: Desk, how: str) -> None:
    kept.policy.apply(ADMIN, default_policy() + MORE, WHY)
    if how == "changed":
        kept.database.change(lambda tx: tx.execute(update(policies).values(text=EVERYTHING)))
    else:
        text = '@id("of-another-release") permit (principal, action == Action::"teleport.start", resource);'
        row = {"number": 2, "digest": sha256(text.encode()), "text": text, "reason": "", "author": "ada", "at": ""}
        kept.database.change(lambda tx: tx.execute(insert(policies).values(row)))
    kept.policy.refresh()
    assert "does not hold here" in kept.policy.trouble
    for action in ("data.read", "policy.apply", "audit.read", "identity.grant"):
        assert allowed(kept, ADMIN, action)
        assert (
            not allowed(kept, VIEWER, action)
            and not allowed(kept, ENGINEER, action)
            and not allowed(kept, RISK, action)
        )
    assert not allowed(kept, ADMIN, "loop.apply")
    assert allowed(kept, SYSTEM, "serving.publish")
    kept.policy.apply(ADMIN, default_policy(), "mended")
    assert kept.policy.trouble == "" and allowed(kept, VIEWER, "data.read")


# looking before


def test_a_plan_says_which_decisions_would_be_others(kept: Desk) -> None:
    staging = (
        '@id("auditors-admit-to-staging") permit (principal in Role::"auditor", action == Action::"registry.admit", resource)'
        ' when { resource has environment && resource.environment == "staging" };'
    )
    text = default_policy().replace(ADMINS, ADMINS.replace("resource)\nwhen", "resource) when")) + MORE + staging
    plan = kept.policy.plan(text)
    assert plan.added == ("auditors-admit-to-staging", "viewers-read-the-log")
    assert (plan.removed, plan.changed, plan.after) == ((), (), 0), "white space is no change"
    told = {(s.role, s.action, s.environment, s.before, s.after) for s in plan.shifts}
    assert told == {
        ("viewer", "audit.read", "", False, True),
        ("auditor", "registry.admit", "staging", False, True),
    }
    gone = kept.policy.plan(default_policy().replace(ADMINS, ADMINS.replace("platform-admin", "auditor")))
    assert gone.changed == ("admins-administer",)
    assert ("platform-admin", "identity.grant", "", True, False) in {
        (s.role, s.action, s.environment, s.before, s.after) for s in gone.shifts
    }
    assert kept.policy.current().number == 0 and kept.outcomes()[-1] == ("identity.grant", "done"), "nothing is done"


def test_an_action_of_tomorrow_is_part_of_the_schema() -> None:
    more = Action("teleport.start", "engineering", "Teleporter", "teleport")
    text = '@id("x") permit (principal, action == Action::"teleport.start", resource is Teleporter);'
    assert [s.id for s in check_policy(text, (*ACTIONS, more))] == ["x"]
    with pytest.raises(Invalid, match="Teleporter"):
        check_policy(text, ACTIONS)
