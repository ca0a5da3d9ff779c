"""Which rule decided, and what would change it: each change is asked again here."""

from __future__ import annotations

from typing import Any

import pytest

from falaj.bootstrap.control_plane import actions
from falaj.governance.identity.model import ROLES
from falaj.governance.policy.cases import Case, question_of
from falaj.governance.policy.decide import EnvironmentAuthoriser, default_policy
from falaj.governance.policy.explain import Explanation, explain
from tests.governance.policy import oracle as table

ACTIONS = actions()
KNOWN = {a.name: a for a in ACTIONS}
POLICY = EnvironmentAuthoriser(ACTIONS)


def told(action: str, roles: tuple[str, ...], facts: dict[str, Any] | None = None, **more: Any) -> Explanation:
    case = Case(action, "deny", "bob", roles, attributes=facts or {}, **more)
    return explain(POLICY, question_of(case, KNOWN), default_policy(), ACTIONS)


def whats(found: Explanation) -> set[tuple[str, ...]]:
    return {c.what for c in found.changes}


def test_a_role_that_is_missing() -> None:
    found = told("loop.apply", ("viewer",))
    assert not found.allowed and found.rules == ()
    assert found.reason == "no rule permits it for the roles viewer"
    assert whats(found) == {
        ("with the role data-scientist",),
        ("with the role ml-engineer",),
        ("with the role platform-admin",),
    }
    assert {c.reason for c in found.changes} == {"permitted by engineers-build"}


def test_a_forbid_of_the_platform() -> None:
    found = told("changes.approve", ("risk-officer",), {"author": "bob", "environment": "production"})
    (rule,) = found.rules
    assert (rule.id, rule.effect, rule.layer) == ("four-eyes", "forbid", "platform")
    assert "principal != " in rule.text and found.hint == rule.hint == "someone other than the author approves it"
    assert whats(found) == {("if author were somebody else",)}


def test_two_things_where_one_is_not_enough() -> None:
    found = told("changes.approve", ("viewer",), {"author": "bob", "environment": "production"})
    assert ("with the role risk-officer", "if author were somebody else") in whats(found)
    assert all(len(w) == 2 for w in whats(found))
    engineer = told("changes.approve", ("ml-engineer",), {"author": "ann", "environment": "production"})
    assert ("if environment were staging",) in whats(engineer)


def test_why_something_is_allowed_and_what_it_hangs_on() -> None:
    found = told("training.start", ("data-scientist",), {"purpose": "operations", "purposes": ["operations"]})
    assert found.allowed and [r.id for r in found.rules] == ["engineers-build"] and found.rules[0].layer == "home"
    assert ("without the role data-scientist",) in whats(found)
    assert ("if purposes were []",) in whats(found) and ("if purpose were not known",) in whats(found)
    assert not any(c.allowed for c in found.changes)


def test_a_tokens_scope() -> None:
    found = told("identity.grant", ("platform-admin",), scope=("read",))
    assert [r.id for r in found.rules] == ["within-the-tokens-scope"]
    assert whats(found) == {("with a token of all that the roles give",)}


def test_what_nothing_changes() -> None:
    found = told("registry.promote", ("platform-admin",), {"environment": "production"})
    assert ("if environment were staging",) in whats(found)
    assert told("registry.package", tuple(ROLES)).changes == ()


@pytest.mark.parametrize("role", ROLES)
def test_an_explanation_says_what_is_decided_and_its_changes_hold(role: str) -> None:
    for action in ACTIONS:
        for state in list(table.states(action))[::211]:
            case = Case(action.name, "deny", "bob", (role,), attributes=_words(state))
            question = question_of(case, KNOWN)
            found, decision = explain(POLICY, question, default_policy(), ACTIONS), POLICY.decide(question)
            assert (found.allowed, found.reason) == (decision.allowed, decision.reason)
            assert tuple(sorted(r.id for r in found.rules)) == decision.rules
            assert all(c.allowed != decision.allowed for c in found.changes)
            if not decision.allowed and not decision.rules and action.group != "system":
                assert found.changes, (action, state)


def _words(state: table.State) -> dict[str, Any]:
    facts = dict(table.PURPOSES[state.purpose])
    if state.author != "unknown":
        facts["author"] = "bob" if state.author == "self" else "ann"
    if state.environment not in ("none", "measurement"):
        facts["environment"] = state.environment
    return facts
