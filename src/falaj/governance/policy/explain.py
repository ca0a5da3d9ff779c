"""Which rule decided, and what would change it. Pure rules.

What would change a decision is not read out of the rules: the question is asked again with one thing different (a role
more or less, a fact known, absent or another, the token's scope left out), and if no one thing does it, with two. What
values are tried comes from the rules' own text.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import combinations
from typing import Any

import msgspec

from falaj.governance.identity.model import ROLES
from falaj.governance.policy.decide import Decider, platform_policy
from falaj.governance.policy.schema import BOOL, FACTS, PRINCIPAL, STRINGS, principal_fact
from falaj.governance.policy.statements import Statement, statements
from falaj.kernel.access import Action, Decision, Question
from falaj.kernel.environments import ENVIRONMENTS

_MOST = 12
_SOMEBODY = "somebody else"


class Rule(msgspec.Struct, frozen=True):
    """A statement that decided, and whose it is: `platform` or `home`."""

    id: str
    effect: str
    layer: str
    hint: str
    text: str


class Change(msgspec.Struct, frozen=True):
    """What would make the answer the other one: in words, and the answer that it gets."""

    what: tuple[str, ...]
    allowed: bool
    reason: str


class Explanation(msgspec.Struct, frozen=True):
    """A decision with the rules that made it. `facts` are those that were given, in words.

    `changes` are the smallest that were found to turn the answer round: of one thing, or of two where one is not
    enough; empty when neither is.
    """

    principal: str
    roles: tuple[str, ...]
    action: str
    resource: str
    facts: dict[str, Any]
    allowed: bool
    reason: str
    hint: str
    rules: tuple[Rule, ...]
    changes: tuple[Change, ...]


class _Step(msgspec.Struct, frozen=True):
    """One thing that could be different: of which kind (no two of a kind are joined), in words, and how."""

    of: str
    what: str
    value: Any


def explain(decider: Decider, question: Question, home: str, actions: Iterable[Action]) -> Explanation:
    """Explain the answer to a question about a declared action."""
    action = {a.name: a for a in actions}[question.action]
    decision = decider.decide(question)
    environment = question.resource.attributes.get("environment", "")
    own = statements(home)
    platform = statements(platform_policy(environment if environment in ENVIRONMENTS else ""))
    steps = list(_steps(question, action, [*own, *platform]))
    changes = _turning(decider, question, decision, ([s] for s in steps))
    if not changes:
        pairs = ([a, b] for a, b in combinations(steps, 2) if a.of != b.of)
        changes = _turning(decider, question, decision, pairs)
    rules = [_rule(s, layer) for layer, found in (("platform", platform), ("home", own)) for s in found]
    return Explanation(
        principal=question.principal.name,
        roles=question.principal.roles,
        action=question.action,
        resource=f"{question.resource.type} {question.resource.id}",
        facts={name: in_words(value) for name, value in question.resource.attributes.items()},
        allowed=decision.allowed,
        reason=decision.reason,
        hint=decision.hint,
        rules=tuple(r for r in rules if r.id in decision.rules),
        changes=tuple(changes[:_MOST]),
    )


def in_words(value: Any) -> Any:
    """A fact as it is told: a principal by its name."""
    return value["__entity"]["id"] if isinstance(value, dict) and "__entity" in value else value


def _rule(statement: Statement, layer: str) -> Rule:
    return Rule(statement.id, statement.effect, layer, statement.hint, statement.text)


def _turning(decider: Decider, question: Question, decision: Decision, tries: Iterable[list[_Step]]) -> list[Change]:
    """The tries that get the other answer, in their order."""
    found = []
    for steps in tries:
        answer = decider.decide(_with(question, steps))
        if answer.allowed != decision.allowed:
            found.append(Change(tuple(s.what for s in steps), answer.allowed, answer.reason))
    return found


def _with(question: Question, steps: list[_Step]) -> Question:
    principal, resource = question.principal, question.resource
    for step in steps:
        if step.of == "roles":
            principal = msgspec.structs.replace(principal, roles=step.value)
        elif step.of == "scope":
            principal = msgspec.structs.replace(principal, scope=None)
        elif step.of == "binding":
            principal = msgspec.structs.replace(principal, project="")
        else:
            facts = {k: v for k, v in resource.attributes.items() if k != step.of}
            facts |= {} if step.value is None else {step.of: step.value}
            resource = msgspec.structs.replace(resource, attributes=facts)
    return msgspec.structs.replace(question, principal=principal, resource=resource)


def _steps(question: Question, action: Action, rules: list[Statement]) -> Iterator[_Step]:
    """Everything that could be different by one step: roles first, then the scope, then facts."""
    roles = question.principal.roles
    for role in ROLES:
        if role in roles:
            yield _Step("roles", f"without the role {role}", tuple(r for r in roles if r != role))
        else:
            yield _Step("roles", f"with the role {role}", (*roles, role))
    if question.principal.scope is not None:
        yield _Step("scope", "with a token of all that the roles give", None)
    if question.principal.project:
        yield _Step("binding", "with a token that is bound to no project", None)
    facts = question.resource.attributes
    words = list(dict.fromkeys(w for s in rules for w in s.literals))
    known = [v for v in facts.values() if isinstance(v, str)]
    for name, kind in FACTS.get(action.resource, {}).items():
        present = facts.get(name)
        for value in _values(name, kind, question, [*words, *known]):
            if value != present:
                yield _Step(name, f"if {name} were {_told(value)}", value)
        if name in facts:
            yield _Step(name, f"if {name} were not known", None)


def _values(name: str, kind: str, question: Question, words: list[str]) -> Iterator[Any]:
    facts = question.resource.attributes
    if name == "environment":
        yield from ENVIRONMENTS
    elif kind == PRINCIPAL:
        yield principal_fact(question.principal.name)
        yield principal_fact(_SOMEBODY)
    elif name == "region":
        yield from dict.fromkeys([*facts.get("regions", ()), "p"])
    elif kind == BOOL:
        yield from (True, False)
    elif kind == STRINGS:
        purpose = facts.get("region" if name == "regions" else "purpose")
        yield from ([v] for v in dict.fromkeys([*([purpose] if isinstance(purpose, str) else []), "p"]))
        yield []
    else:
        allowed = facts.get("purposes")
        more = allowed if isinstance(allowed, list) else []
        yield from dict.fromkeys([*more, *(w for w in words if w not in ENVIRONMENTS), "p"])


def _told(value: Any) -> str:
    value = in_words(value)
    if isinstance(value, bool):
        return str(value).lower()
    return value if isinstance(value, str) else f"[{', '.join(value)}]"
