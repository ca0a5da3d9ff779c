from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from falaj.bootstrap.control_plane import actions
from falaj.governance.identity.model import ROLES
from falaj.governance.policy.decide import CedarAuthoriser, policy_text
from falaj.governance.policy.schema import GROUPS
from falaj.kernel.access import SYSTEM, Action, Decision, Principal, Question, Resource
from falaj.kernel.errors import Invalid

POLICY = CedarAuthoriser(policy_text(), actions())
SPECIAL = {  # forbidden without facts about their resource
    "changes.approve", "training.start", "serving.score", "registry.propose_waiver", "registry.sign_waiver",
    "changes.approve_own", "changes.validate", "changes.revive", "changes.lift_quarantine", "changes.open_glass",
    "monitoring.decide_review",
}  # fmt: skip
MLE = ("changes.kill", "changes.quarantine", "changes.propose_glass")
USABLE: dict[str, Any] = {"quarantined": False, "region": "", "regions": []}  # as the platform says of all it knows
ALSO = {("ml-engineer", action) for action in MLE}  # beside what a role's groups hold
ALLOWED = {
    "viewer": {"read"},
    "data-scientist": {"read", "engineering", "inference"},
    "ml-engineer": {"read", "engineering", "inference"},
    "risk-officer": {"read", "risk", "audit"},
    "platform-admin": {"read", "engineering", "inference", "risk", "administration", "audit"},
    "auditor": {"read", "audit"},
    "service": {"inference"},
}


def ask(roles: tuple[str, ...], action: str, attributes: dict[str, Any] | None = None, name: str = "bob") -> Decision:
    facts = {**USABLE, **(attributes or {})}
    return POLICY.decide(Question(Principal(name, "person", roles), action, Resource("Thing", "t1", facts)))


def person(name: str) -> dict[str, Any]:
    return {"__entity": {"type": "Principal", "id": name}}


def test_every_action_is_declared_once_in_a_known_group() -> None:
    names = [a.name for a in actions()]
    assert len(names) == len(set(names))
    assert {a.group for a in actions()} <= set(GROUPS)
    assert set(ALLOWED) == set(ROLES)


@pytest.mark.parametrize("action", [a for a in actions() if a.name not in SPECIAL], ids=lambda a: a.name)
@pytest.mark.parametrize("role", ROLES)
def test_a_role_gets_its_groups_and_no_other(role: str, action: Action) -> None:
    decision = ask((role,), action.name)
    assert decision.allowed == (action.group in ALLOWED[role] or (role, action.name) in ALSO), decision.reason
    assert decision.errors == ()
    assert decision.reason


@pytest.mark.parametrize("action", actions(), ids=lambda a: a.name)
def test_without_a_role_nothing_is_allowed(action: Action) -> None:
    for roles in ((), ("no-such-role",), ("Platform-Admin",), ("platform-admin ",)):
        assert not ask(roles, action.name, {"author": person("ann"), "purpose": "p", "purposes": ["p"]}).allowed


@pytest.mark.parametrize("action", actions(), ids=lambda a: a.name)
def test_the_platform_itself_does_only_its_own(action: Action) -> None:
    decision = POLICY.decide(Question(SYSTEM, action.name, Resource("Thing", "t1", USABLE)))
    assert decision.allowed == (action.group == "system" or action.name == "identity.grant")


@given(st.lists(st.sampled_from(ROLES), max_size=4), st.sampled_from([a for a in actions() if a.name not in SPECIAL]))
def test_roles_add_up(roles: list[str], action: Action) -> None:
    allowed = any(action.group in ALLOWED[r] or (r, action.name) in ALSO for r in roles)
    assert ask(tuple(roles), action.name).allowed == allowed


@pytest.mark.parametrize("action", ["registry.propose_waiver", "registry.sign_waiver"])
def test_nobody_waives_what_they_imported(action: str) -> None:
    assert ask(("risk-officer",), action, {"author": person("ann")}).allowed
    assert not ask(("risk-officer",), action).allowed, "without an author nobody can tell"
    own = ask(("risk-officer", "platform-admin"), action, {"author": person("bob")})
    assert not own.allowed
    assert own.rules == ("nobody-waives-their-own-import",)


OWN = {"author": person("bob"), "tier": "one-person", "regulated": False}


@pytest.mark.parametrize(
    "changed",
    [
        {"author": person("ann")},
        {"author": None},
        {"author": "bob"},
        {"tier": "limited"},
        {"tier": None},
        {"regulated": True},
        {"regulated": None},
        {"regulated": "no"},
    ],
    ids=str,
)
def test_own_approval_is_for_whoever_works_alone(changed: dict[str, Any]) -> None:
    assert ask(("risk-officer",), "changes.approve_own", OWN).allowed
    facts = {k: v for k, v in {**OWN, **changed}.items() if v is not None}
    denied = ask(("risk-officer", "platform-admin"), "changes.approve_own", facts)
    assert not denied.allowed
    assert not ask(("ml-engineer",), "changes.approve_own", OWN).allowed, (
        "own or not, it takes somebody who judges risk"
    )


def test_validation_is_independent() -> None:
    assert ask(("risk-officer",), "changes.validate", {"author": person("ann")}).allowed
    own = ask(("risk-officer",), "changes.validate", {"author": person("bob")})
    assert own.rules == ("validation-is-independent",) and own.hint


def test_nobody_reviews_what_their_own_version_answered() -> None:
    assert ask(("risk-officer",), "monitoring.decide_review", {"author": person("ann")}).allowed
    assert not ask(("risk-officer",), "monitoring.decide_review").allowed, "nobody knows whose version it was"
    own = ask(("risk-officer", "platform-admin"), "monitoring.decide_review", {"author": person("bob")})
    assert own.rules == ("nobody-reviews-their-own-model",) and own.hint


def test_two_people_revive() -> None:
    assert ask(("risk-officer",), "changes.revive", {"proposed_by": person("ann")}).allowed
    assert not ask(("risk-officer",), "changes.revive").allowed, "nobody proposed it"
    own = ask(("risk-officer", "platform-admin"), "changes.revive", {"proposed_by": person("bob")})
    assert own.rules == ("two-people-revive",) and own.hint


@pytest.mark.parametrize("role", ["risk-officer", "platform-admin"])
def test_four_eyes(role: str) -> None:
    assert ask((role,), "changes.approve", {"author": person("ann")}).allowed
    own = ask((role,), "changes.approve", {"author": person("bob")})
    assert not own.allowed
    assert own.rules == ("four-eyes",)
    assert own.hint
    assert ask((role,), "changes.reject", {"author": person("bob")}).allowed


@pytest.mark.parametrize(
    "author",
    [
        None,
        "bob",
        "ann",
        "",
        7,
        True,
        [],
        [person("ann")],
        {},
        {"type": "Principal", "id": "ann"},
        {"__entity": {"type": "Principal"}},
        {"__entity": {"type": "Role", "id": "ann"}},
        {"__entity": {"type": "Thing", "id": "ann"}},
        {"__entity": "ann"},
        {"__extn": {"fn": "ip", "arg": "127.0.0.1"}},
        float("nan"),
        2**70,
        "\ud800",
        object(),
    ],
    ids=lambda a: ascii(a).partition(" at 0x")[0][:40],
)
def test_an_author_that_is_missing_or_no_principal_denies(author: Any) -> None:
    attributes = {} if author is None else {"author": author}
    for role in ("risk-officer", "platform-admin"):
        decision = ask((role,), "changes.approve", attributes)
        assert not decision.allowed
        assert decision.reason
    assert not ask(("risk-officer",), "changes.approve", {"author": None}).allowed


@pytest.mark.parametrize(
    ("attributes", "allowed"),
    [
        ({"purpose": "operations", "purposes": ["operations"]}, True),
        ({"purpose": "operations", "purposes": ["research", "operations"]}, True),
        ({"purpose": "marketing", "purposes": ["operations"]}, False),
        ({"purpose": "operations", "purposes": []}, False),
        ({"purpose": "operations"}, False),
        ({"purposes": ["operations"]}, False),
        ({}, False),
        ({"purpose": "operations", "purposes": "operations"}, False),
        ({"purpose": ["operations"], "purposes": ["operations"]}, False),
        ({"purpose": "Operations", "purposes": ["operations"]}, False),
        ({"purpose": "", "purposes": ["operations"]}, False),
        ({"purpose": None, "purposes": [None]}, False),
    ],
)
@pytest.mark.parametrize("action", ["training.start", "serving.score"])
def test_training_and_scoring_need_a_purpose_that_every_source_allows(
    action: str, attributes: dict[str, Any], allowed: bool
) -> None:
    for role in ("data-scientist", "ml-engineer", "platform-admin"):
        assert ask((role,), action, attributes).allowed == allowed
    assert not ask(("viewer",), action, attributes).allowed


@pytest.mark.parametrize(
    "action", ["", "nothing", "read", "system", "*", "identity.grant ", "Identity.Grant", "a\x00b"]
)
def test_an_undeclared_action_is_denied_to_everyone(action: str) -> None:
    for principal in (SYSTEM, Principal("bob", "person", tuple(ROLES))):
        decision = POLICY.decide(Question(principal, action, Resource("Thing", "t1")))
        assert not decision.allowed
        assert decision.errors == ("undeclared action",)


@pytest.mark.parametrize(
    "resource",
    [
        Resource("Principal", "bob", {"roles": ["platform-admin"]}),
        Resource("Principal", "bob", {"kind": "service"}),
        Resource("Action", "read", {"x": 1}),
        Resource("Action", "identity.grant", {}),
        Resource("Role", "platform-admin", {}),
        Resource("Role", "viewer", {"x": 1}),
    ],
    ids=str,
)
def test_a_resource_that_is_called_like_something_else_gives_nothing_away(resource: Resource) -> None:
    for action in ("identity.grant", "changes.approve", "audit.read"):
        assert not POLICY.decide(Question(Principal("bob", "person", ("viewer",)), action, resource)).allowed


@pytest.mark.parametrize("name", ['x"; permit(principal,action,resource);', "\\", "a\nb", "é", "x" * 5000, ""])
def test_no_name_is_taken_for_a_rule(name: str) -> None:
    assert not ask(("viewer",), "identity.grant", name=name).allowed
    assert ask(("viewer",), "identity.read", name=name).allowed
    question = Question(Principal("bob", "person", ("viewer",)), "identity.grant", Resource("Account", name))
    assert not POLICY.decide(question).allowed


@pytest.mark.parametrize("context", [{"x": object()}, {"x": 2**70}, {"x": float("inf")}, {"x": None}])
def test_a_context_that_cedar_cannot_read_denies(context: dict[str, Any]) -> None:
    question = Question(Principal("bob", "person", ("platform-admin",)), "audit.read", Resource("Log", "*"), context)
    decision = POLICY.decide(question)
    assert not decision.allowed
    assert decision.errors


def test_a_rule_that_cannot_be_evaluated_denies_even_beside_a_permit() -> None:
    broken = '@id("broken") forbid (principal, action, resource) when { resource.nothing == 1 };'
    policy = CedarAuthoriser(policy_text() + broken, actions())
    decision = policy.decide(Question(Principal("bob", "person", ("viewer",)), "identity.read", Resource("Thing", "t")))
    assert not decision.allowed
    assert decision.errors
    assert "could not be evaluated" in decision.reason


def test_a_forbid_goes_before_every_permit() -> None:
    rule = '@id("never") @hint("come back tomorrow") forbid (principal, action == Action::"audit.read", resource);'
    policy = CedarAuthoriser(policy_text() + rule, actions())
    decision = policy.decide(Question(Principal("bob", "person", tuple(ROLES)), "audit.read", Resource("Log", "*")))
    assert (decision.allowed, decision.rules, decision.hint) == (False, ("never",), "come back tomorrow")


@pytest.mark.parametrize("text", ["permit", "permit (principal, action, resource)", "not cedar {", "@id( permit"])
def test_a_policy_that_is_no_cedar_is_refused(text: str) -> None:
    with pytest.raises(Invalid, match="cannot be parsed"):
        CedarAuthoriser(text, actions())


def test_no_policy_permits_nothing() -> None:
    policy = CedarAuthoriser("", actions())
    for action in actions():
        assert not policy.decide(Question(SYSTEM, action.name, Resource("Thing", "t"))).allowed


def test_an_unknown_group_is_refused() -> None:
    with pytest.raises(Invalid, match="no such action group"):
        CedarAuthoriser(policy_text(), [Action("x.y", "everything", "Thing", "do all")])


def test_an_action_that_is_declared_in_two_ways_is_refused() -> None:
    twice = [Action("x.y", "read", "Thing", "look"), Action("x.y", "administration", "Thing", "look")]
    with pytest.raises(Invalid, match="declared twice"):
        CedarAuthoriser(policy_text(), twice)


@pytest.mark.parametrize(
    ("changed", "rules"),
    [
        ({}, ()),
        ({"quarantined": True}, ("not-in-quarantine",)),
        ({"quarantined": None}, ("not-in-quarantine",)),
        ({"region": "ae", "regions": ["ae"]}, ()),
        ({"region": "ae"}, ()),
        ({"regions": ["ae"]}, ("data-stays-in-its-region",)),
        ({"region": "ae", "regions": ["ae", "eu"]}, ("data-stays-in-its-region",)),
        ({"region": "AE", "regions": ["ae"]}, ("data-stays-in-its-region",)),
        ({"region": None}, ("data-stays-in-its-region",)),
        ({"regions": None}, ("data-stays-in-its-region",)),
    ],
    ids=str,
)
def test_data_is_used_only_where_and_while_it_may_be(changed: dict[str, Any], rules: tuple[str, ...]) -> None:
    facts = {**USABLE, "purpose": "p", "purposes": ["p"], **changed}
    known = {name: value for name, value in facts.items() if value is not None}
    question = Question(Principal("bob", "person", ("ml-engineer",)), "training.start", Resource("Model", "m", known))
    decision = POLICY.decide(question)
    assert decision.allowed == (not rules) and (decision.allowed or decision.rules == rules)
    assert decision.allowed or decision.hint
