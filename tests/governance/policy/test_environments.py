"""Who may do what in which environment: each cell."""

from __future__ import annotations

from typing import Any

import pytest

from falaj.bootstrap.control_plane import actions
from falaj.governance.identity.model import ROLES
from falaj.governance.policy.decide import (
    CedarAuthoriser,
    EnvironmentAuthoriser,
    default_policy,
    platform_policy,
    policy_text,
)
from falaj.kernel.access import SYSTEM, Decision, Principal, Question, Resource
from falaj.kernel.environments import ENVIRONMENTS, MEASUREMENT

POLICY = EnvironmentAuthoriser(actions())
DEFAULT = CedarAuthoriser(policy_text(), actions())
BUILDERS = {"data-scientist", "ml-engineer", "platform-admin"}
USABLE: dict[str, Any] = {"quarantined": False, "region": "", "regions": []}
JUDGES = {"risk-officer", "platform-admin"}
ENGINEERS = {"ml-engineer", *JUDGES}
MAY: dict[tuple[str, str], set[str]] = {
    ("serving.predict", "dev"): {*BUILDERS, "system"},
    ("serving.predict", "measurement"): {*BUILDERS, "system"},
    ("serving.predict", "staging"): {*BUILDERS, "system"},
    ("serving.predict", "production"): {*BUILDERS, "service"},
    ("registry.admit", "dev"): {*BUILDERS, *JUDGES},
    ("registry.admit", "staging"): ENGINEERS,
    ("registry.admit", "production"): JUDGES,
    ("registry.promote", "dev"): BUILDERS,
    ("registry.promote", "staging"): BUILDERS,
    ("registry.promote", "production"): set(),
    ("changes.approve", "dev"): JUDGES,
    ("changes.approve", "staging"): ENGINEERS,
    ("changes.approve", "production"): JUDGES,
    ("changes.reject", "staging"): JUDGES,
    ("registry.admit_approved", "staging"): {"system"},
    ("registry.admit_approved", "production"): {"system"},
}


def ask(role: str, action: str, environment: Any, name: str = "bob") -> Decision:
    author = {"__entity": {"type": "Principal", "id": "ann"}}
    who = SYSTEM if role == "system" else Principal(name, "person", (role,))
    return POLICY.decide(
        Question(who, action, Resource("Thing", "t", {**USABLE, "author": author, "environment": environment}))
    )


@pytest.mark.parametrize(("action", "environment"), MAY)
def test_every_cell(action: str, environment: str) -> None:
    allowed = {role for role in (*ROLES, "system") if ask(role, action, environment).allowed}
    assert allowed == MAY[action, environment]


def test_a_service_that_is_an_engineer_too_stays_out_of_staging() -> None:
    both = Principal("bot", "service", ("service", "ml-engineer"))
    decision = POLICY.decide(Question(both, "serving.predict", Resource("Model", "m", {"environment": "staging"})))
    assert (decision.allowed, decision.rules) == (False, ("services-ask-production",)) and decision.hint


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_four_eyes_hold_everywhere(environment: str) -> None:
    for role in ENGINEERS:
        own = ask(role, "changes.approve", environment, name="ann")
        assert not own.allowed and "four-eyes" in own.rules


@pytest.mark.parametrize("environment", ["", "Staging", "nowhere", None, 7, ["staging"], {"a": 1}])
def test_an_environment_that_nobody_knows_denies(environment: Any) -> None:
    for role in (*ROLES, "system"):
        for action in ("registry.admit", "registry.admit_approved", "serving.predict"):
            decision = ask(role, action, environment)
            assert not decision.allowed and decision.reason


def test_production_says_how_one_gets_in() -> None:
    decision = ask("platform-admin", "registry.promote", "production")
    assert decision.rules == ("production-is-entered-by-approval",) and "falaj approve" in decision.hint


def test_without_an_environment_the_default_holds() -> None:
    for role in ROLES:
        question = Question(Principal("bob", "person", (role,)), "registry.admit", Resource("Thing", "t"))
        assert POLICY.decide(question) == DEFAULT.decide(question)


def test_each_text_is_the_default_and_its_own() -> None:
    texts = {name: policy_text(name) for name in ENVIRONMENTS}
    assert len(set(texts.values())) == 3 and all(t.endswith(default_policy()) for t in texts.values())
    assert all(t.startswith(platform_policy(name)) for name, t in texts.items())
    assert policy_text(MEASUREMENT) == texts["dev"]
