"""The words of authorisation: who wants to do what to which thing, and the answer."""

from __future__ import annotations

from typing import Any

import msgspec

WITHIN = "within-the-project"
"""The platform's rule about tokens that are bound to a project."""


class Principal(msgspec.Struct, frozen=True):
    """Someone who acts: a person or a service, with the roles that hold now.

    `scope` are the actions and groups that the token at hand is good for; None is all that the roles give. `glass` are
    actions beyond the roles, by break-glass; only what decides fills it in, and whatever stood there before is forgotten.
    `project` is the one that the token at hand is bound to; empty: none.
    """

    name: str
    kind: str = "person"  # person | service
    roles: tuple[str, ...] = ()
    scope: tuple[str, ...] | None = None
    glass: tuple[str, ...] = ()
    project: str = ""


class Action(msgspec.Struct, frozen=True):
    """Something that can be done. Each stage declares its own, next to its routes.

    `group` is what policies speak about: read, engineering, risk, administration, audit, inference or system.
    `resource` is the type that it is done to.
    """

    name: str
    group: str
    resource: str
    summary: str


class Resource(msgspec.Struct, frozen=True):
    """The thing acted upon, with the facts that rules look at."""

    type: str
    id: str
    attributes: dict[str, Any] = {}


class Question(msgspec.Struct, frozen=True):
    """May this principal do this action to this resource, in this context?"""

    principal: Principal
    action: str
    resource: Resource
    context: dict[str, Any] = {}


class Decision(msgspec.Struct, frozen=True):
    """The answer, with the rules that decided it. `errors` not empty means denied; `hint` is the rules' own advice.

    `under` names the break-glass without which it would not be allowed; the audit entry has it.
    """

    allowed: bool
    rules: tuple[str, ...] = ()
    errors: tuple[str, ...] = ()
    reason: str = ""
    hint: str = ""
    under: str = ""


SYSTEM = Principal(name="falaj", kind="service", roles=("system",))
"""The platform itself: flow steps act as it, and name the person they act for in the context."""
