"""Decisions by Cedar policies (https://docs.cedarpolicy.com/auth/authorization.html).

Default deny; any forbid wins; and stricter than Cedar: a rule that fails to evaluate denies,
because Cedar skips it, and a skipped forbid would be an open door.

Two layers: the platform's rules, which every release brings, and above them the home's own policy. The platform's
forbids therefore hold whatever a home permits, and a home's forbids never stop the platform itself.
"""

from __future__ import annotations

from collections.abc import Iterable
from importlib import resources
from typing import Any, Protocol

import cedarpy
import msgspec

from falaj.governance.policy.schema import GROUPS, misshapen
from falaj.kernel.access import Action, Decision, Question
from falaj.kernel.environments import ENVIRONMENTS, home_of
from falaj.kernel.errors import Invalid


class Decider(Protocol):
    """Whoever answers questions."""

    def decide(self, question: Question) -> Decision:
        """Decide; an error in any rule is a denial."""
        ...


def default_policy() -> str:
    """The home's own policy, as a new home starts with it."""
    return _text("default.cedar")


def recovery_policy() -> str:
    """What holds in the place of a home's policy that cannot."""
    return _text("recovery.cedar")


def platform_policy(environment: str = "") -> str:
    """The platform's own rules, with those for things in an environment."""
    own = _text("environments", f"{home_of(environment)}.cedar") if environment else ""
    return f"{_text('platform.cedar')}\n{own}"


def policy_text(environment: str = "", home: str | None = None) -> str:
    """All that holds (for things in an environment): the platform's rules, and the home's own or the default."""
    return Layers(platform_policy(environment), default_policy() if home is None else home).whole


class Layers(msgspec.Struct, frozen=True):
    """What holds in one place: the platform's rules there, and the home's own policy above them."""

    platform: str
    home: str

    @property
    def whole(self) -> str:
        """Both, as one text."""
        return f"{self.platform}\n{self.home}"


class EnvironmentAuthoriser:
    """Decides a question about a thing in an environment by that environment's rules, any other without them.

    The environment is the resource's attribute of that name; one that nobody knows denies. `home` is the home's own
    policy; the default when it is left out.
    """

    def __init__(self, actions: Iterable[Action], home: str | None = None) -> None:
        actions, home = tuple(actions), default_policy() if home is None else home
        self._default = layered(Layers(platform_policy(), home), actions)
        self._own = {n: layered(Layers(platform_policy(n), home), actions) for n in ENVIRONMENTS}

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


class SplitAuthoriser:
    """Decides about the platform itself by one policy, about everyone else by another."""

    def __init__(self, platform: Decider, everyone: Decider) -> None:
        self._platform = platform
        self._everyone = everyone

    def decide(self, question: Question) -> Decision:
        """Decide; an error in any rule is a denial."""
        return (self._platform if "system" in question.principal.roles else self._everyone).decide(question)


def layered(layers: Layers, actions: tuple[Action, ...]) -> SplitAuthoriser:
    """Decides by the platform's rules and the home's; what the platform does itself, by its own rules alone."""
    return SplitAuthoriser(CedarAuthoriser(layers.platform, actions), CedarAuthoriser(layers.whole, actions))


class CedarAuthoriser:
    """Decides questions about declared actions by one text; an undeclared action is denied."""

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
        wrong = misshapen(resource.attributes)
        if wrong:
            return Decision(False, errors=(wrong,), reason=f"the question could not be evaluated: {wrong}")
        own: dict[str, Any] = {"kind": principal.kind}
        if principal.scope is not None:
            own["scope"] = [{"__entity": {"type": "Action", "id": name}} for name in principal.scope]
        if principal.project:
            own["project"] = principal.project
        if principal.glass:
            own["glass"] = [{"__entity": {"type": "Action", "id": name}} for name in principal.glass]
        delta = [
            _entity("Principal", principal.name, [("Role", r) for r in principal.roles], own),
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


def _text(*path: str) -> str:
    return resources.files("falaj.governance.policy").joinpath(*path).read_text("utf-8")
