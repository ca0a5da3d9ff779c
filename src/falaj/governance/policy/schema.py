"""What a policy can speak about, as a Cedar schema (https://docs.cedarpolicy.com/schema/human-readable-schema.html).

Generated from the declared actions, so that a rule about an action, a type or a fact that does not exist is an
error when the rule is written and not a rule that never applies. Light, for the data plane uses it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from falaj.governance.identity.model import ROLES
from falaj.kernel.access import SYSTEM, Action

GROUPS = ("read", "engineering", "risk", "administration", "audit", "inference", "system")

STRING, STRINGS, BOOL, PRINCIPAL = "String", "Set<String>", "Bool", "Principal"
_OF_DATA = {"quarantined": BOOL, "region": STRING, "regions": STRINGS}
"""Of what rests on data: whether it, or what it rests on, is in quarantine; where it would be used; and the regions that
its data may not leave (none: it may go anywhere)."""
FACTS: dict[str, dict[str, str]] = {
    "Dataset": {"region": STRING, "regions": STRINGS},
    "FeatureView": _OF_DATA,
    "Glass": {"proposed_by": PRINCIPAL},
    "Model": {"environment": STRING, "proposed_by": PRINCIPAL, "purpose": STRING, "purposes": STRINGS, **_OF_DATA},
    "ModelVersion": {
        "author": PRINCIPAL, "environment": STRING, "purpose": STRING, "purposes": STRINGS, "regulated": BOOL, "tier": STRING,
        **_OF_DATA,
    },
    "Quarantine": {"author": PRINCIPAL},
    "Review": {"author": PRINCIPAL},
}  # fmt: skip
"""Resource type → the facts that may be known of one, with their Cedar types. None is always known: all are optional."""
PROJECT = "project"
"""The fact that everything may have: the project that it belongs to."""
CONTEXT = {"on_behalf_of": STRING}
_SHAPES = {PROJECT: STRING, **{name: kind for facts in FACTS.values() for name, kind in facts.items()}}


def cedar_schema(actions: Iterable[Action]) -> str:
    """The schema of some actions: roles, principals, the types that actions are done to, and the actions in their groups.

    A principal has its `kind`, a `scope` when its token is good for some actions only, `glass` while it may do more,
    and a `project` when its token is bound to one; any resource may have one.
    """
    actions = sorted(actions, key=lambda a: a.name)
    roles = ", ".join(json.dumps(role) for role in (*ROLES, *SYSTEM.roles))
    lines = [
        f"entity Role enum [{roles}];",
        "entity Principal in [Role] { kind: String, scope?: Set<Action>, glass?: Set<Action>, project?: String };",
    ]
    lines += [
        f"entity {kind} {{ {_record({**FACTS.get(kind, {}), PROJECT: STRING})} }};"
        for kind in sorted({a.resource for a in actions})
    ]
    lines += [f"action {json.dumps(group)};" for group in GROUPS]
    lines += [
        f"action {json.dumps(a.name)} in [{json.dumps(a.group)}] appliesTo "
        f"{{ principal: [Principal], resource: [{a.resource}], context: {{ {_record(CONTEXT)} }} }};"
        for a in actions
    ]
    return "\n".join(lines) + "\n"


def misshapen(facts: Mapping[str, Any]) -> str:
    """What is wrong with the facts about a resource, or nothing: rules are checked against the schema, so a fact of
    another type than the schema has must not reach them."""
    for name, value in facts.items():
        kind = _SHAPES.get(name)
        if kind is None:
            return f"the fact {name} is not in the schema"
        if not _has_shape(value, kind):
            return f"the fact {name} is no {kind}"
    return ""


def principal_fact(name: str) -> dict[str, Any]:
    """A principal as the value of a fact."""
    return {"__entity": {"type": "Principal", "id": name}}


def _has_shape(value: Any, kind: str) -> bool:
    if kind == STRING:
        return isinstance(value, str)
    if kind == BOOL:
        return isinstance(value, bool)
    if kind == STRINGS:
        return isinstance(value, list | tuple) and all(isinstance(v, str) for v in value)
    entity = value.get("__entity") if isinstance(value, dict) and len(value) == 1 else None
    return isinstance(entity, dict) and entity.get("type") == "Principal" and isinstance(entity.get("id"), str)


def _record(facts: Mapping[str, str]) -> str:
    return ", ".join(f"{name}?: {kind}" for name, kind in sorted(facts.items()))
