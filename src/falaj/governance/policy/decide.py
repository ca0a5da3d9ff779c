"""Decisions by Cedar policies (https://docs.cedarpolicy.com/auth/authorization.html).

Default deny; any forbid wins; and stricter than Cedar: a rule that fails to evaluate denies,
because Cedar skips it, and a skipped forbid would be an open door.
"""

from __future__ import annotations

from collections.abc import Iterable
from importlib import resources
from typing import Any

import cedarpy
import msgspec

from falaj.kernel.access import Action, Decision, Question
from falaj.kernel.environments import ENVIRONMENTS, home_of
from falaj.kernel.errors import Invalid

GROUPS = ("read", "engineering", "risk", "administration", "audit", "inference", "system")


def default_policy() -> str:
    """The policy text that a new home starts with."""
    return (resources.files("falaj.governance.policy") / "default.cedar").read_text("utf-8")


def environment_policy(environment: str) -> str:
    """The policy text that holds in an environment: the default, and the environment's own rules below it."""
    own = resources.files("falaj.governance.policy") / "environments" / f"{home_of(environment)}.cedar"
    return f"{default_policy()}\n{own.read_text('utf-8')}"


class EnvironmentAuthoriser:
    """Decides a question about a thing in an environment by that environment's policy, any other by the default.

    The environment is the resource's attribute of that name; one that nobody knows denies.
    """

    def __init__(self, actions: Iterable[Action]) -> None:
        actions = tuple(actions)
        self._default = CedarAuthoriser(default_policy(), actions)
        self._own = {name: CedarAuthoriser(environment_policy(name), actions) for name in ENVIRONMENTS}

    def decide(self, question: Question) -> Decision:
        """Decide by the policy of the environment that the resource is in; an environment that is not known is a
        denial.
        """
        if "environment" not in question.resource.attributes:
            return self._default.decide(question)
        name = question.resource.attributes["environment"]
        authoriser = self._own.get(home_of(name)) if isinstance(name, str) else None
        if authoriser is None:
            return Decision(False, errors=("no such environment",), reason="there is no policy for that environment")
        return authoriser.decide(question)


class CedarAuthoriser:
    """Decides questions about declared actions; an undeclared action is denied."""

    def __init__(self, policy: str, actions: Iterable[Action]) -> None:
        self._actions: dict[str, Action] = {}
        for action in actions:
            if self._actions.setdefault(action.name, action) != action:
                raise Invalid(
                    f"{action.name} is declared twice, and differently",
                    hint="declare it in one stage",
                    code="action_declared_twice",
                )
        unknown = sorted({a.group for a in self._actions.values()} - set(GROUPS))
        if unknown:
            raise Invalid(
                f"no such action group: {', '.join(unknown)}",
                hint=f"use one of {', '.join(GROUPS)}",
                code="no_such_action_group",
            )
        try:
            self._policies = cedarpy.PolicySet.from_str(policy)
        except ValueError as e:
            raise Invalid(
                f"the policy cannot be parsed: {e}", hint="mend the Cedar text; nothing was changed", code="bad_policy"
            ) from e
        self._hints = _hints(policy)
        self._base = cedarpy.Entities.from_json_str(
            msgspec.json.encode([_entity("Action", a.name, [("Action", a.group)]) for a in self._actions.values()]
                                + [_entity("Action", g, []) for g in GROUPS]).decode()
        )  # fmt: skip

    def decide(self, question: Question) -> Decision:
        """Decide by the policy; an undeclared action and an error in any rule are denials."""
        if question.action not in self._actions:
            return Decision(False, errors=("undeclared action",), reason=f"{question.action} is not a declared action")
        principal, resource = question.principal, question.resource
        delta = [
            _entity("Principal", principal.name, [("Role", r) for r in principal.roles], {"kind": principal.kind}),
            _entity(resource.type, resource.id, [], resource.attributes),
        ]
        try:
            entities = self._base.with_added_json_str(msgspec.json.encode(delta).decode())
            answer = cedarpy.is_authorized(
                {
                    "principal": {"type": "Principal", "id": principal.name},
                    "action": {"type": "Action", "id": question.action},
                    "resource": {"type": resource.type, "id": resource.id},
                    "context": question.context,
                },
                self._policies,
                entities,
            )
        except (ValueError, TypeError) as e:
            return Decision(False, errors=(str(e),), reason="the question could not be evaluated")
        names = answer.diagnostics.id_annotations_by_reason
        rules = tuple(sorted(names.get(r, r) for r in answer.diagnostics.reasons))
        errors = tuple(str(e) for e in answer.diagnostics.errors)
        allowed = answer.allowed and not errors
        hint = "" if allowed else "; ".join(self._hints[r] for r in rules if r in self._hints)
        return Decision(allowed, rules, errors, _reason(allowed, rules, errors, principal.roles), hint)


def _hints(policy: str) -> dict[str, str]:
    """The `@hint` of each policy that has one, by its `@id`."""
    parsed = msgspec.json.decode(cedarpy.policies_to_json_str(policy))
    found = [p.get("annotations", {}) for p in parsed["staticPolicies"].values()]
    return {a["id"]: a["hint"] for a in found if "id" in a and "hint" in a}


def _reason(allowed: bool, rules: tuple[str, ...], errors: tuple[str, ...], roles: tuple[str, ...]) -> str:
    if allowed:
        return f"permitted by {', '.join(rules)}"
    if errors:
        return "a rule could not be evaluated, which denies"
    if rules:
        return f"forbidden by {', '.join(rules)}"
    return f"no rule permits it for the roles {', '.join(roles) or '(none)'}"


def _entity(
    kind: str, name: str, parents: list[tuple[str, str]], attributes: dict[str, Any] | None = None
) -> dict[str, Any]:
    return {
        "uid": {"type": kind, "id": name},
        "attrs": attributes or {},
        "parents": [{"type": t, "id": i} for t, i in parents],
    }
