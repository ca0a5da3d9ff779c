"""Tokens that are bound to a project: no role leaves it, and a binding goes wherever the token goes."""

from __future__ import annotations

import msgspec
import pytest

from falaj.bootstrap.control_plane import actions
from falaj.governance.identity.model import ROLES
from falaj.governance.identity.service import SessionService, Terms
from falaj.governance.policy.cases import Case, question_of
from falaj.governance.policy.decide import EnvironmentAuthoriser, default_policy
from falaj.governance.policy.explain import explain
from falaj.kernel.access import SYSTEM, Action, Principal, Question, Resource
from falaj.kernel.clock import SystemClock
from falaj.kernel.errors import Conflict, Denied, Invalid
from tests.governance.support import Desk

ACTIONS = actions()
POLICY = EnvironmentAuthoriser(ACTIONS)
RULE = "within-the-project"


@pytest.mark.parametrize("action", ACTIONS, ids=lambda a: a.name)
def test_every_role_together_does_not_leave_the_project(action: Action) -> None:
    who = Principal("ann", roles=tuple(ROLES), project="north")
    for facts in ({}, {"project": "south"}, {"project": ""}, {"project": "North"}):
        decision = POLICY.decide(Question(who, action.name, Resource(action.resource, "it", facts)))
        assert not decision.allowed and RULE in decision.rules
    inside = POLICY.decide(Question(who, action.name, Resource(action.resource, "it", {"project": "north"})))
    assert RULE not in inside.rules and not inside.errors
    free = msgspec.structs.replace(who, project="")
    assert RULE not in POLICY.decide(Question(free, action.name, Resource(action.resource, "it"))).rules


def test_a_bound_token_stands_for_its_project_and_for_nothing_else(desk: Desk) -> None:
    admin = Principal("ann", roles=("platform-admin",))
    with pytest.raises(Invalid):
        desk.identity.grant(SYSTEM, admin, Terms(1, project="no such/name"))
    token = desk.identity.grant(SYSTEM, admin, Terms(1, project="north"))
    assert token.project == "north"
    who = desk.identity.authenticate(token.token)
    assert (who.project, who.roles) == ("north", ("platform-admin",))
    assert [t.project for t in desk.identity.known_tokens() if t.id == token.id] == ["north"]
    with pytest.raises(Denied):
        desk.identity.grant(who, Principal("bob", roles=("viewer",)), 1)
    sessions = SessionService(desk.identity, SystemClock())
    opened = sessions.principal(sessions.open(sessions.link(who, token.id)))
    assert opened is not None and opened.project == "north"
    with pytest.raises(Conflict):  # the only keeper of roles and policy is bound, so there would be none
        desk.policy.apply(Principal("root", roles=("platform-admin",)), default_policy() + "\n// 1\n", "x")


def test_explain_names_the_rule() -> None:
    case = Case("registry.read", "deny", "ann", ("viewer",), attributes={"project": "south"}, project="north")
    told = explain(POLICY, question_of(case, {a.name: a for a in ACTIONS}), default_policy(), ACTIONS)
    assert [r.id for r in told.rules] == [RULE] and told.hint
    assert ("with a token that is bound to no project",) in {c.what for c in told.changes}
