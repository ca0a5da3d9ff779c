"""The policy over HTTP."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
from fastapi import APIRouter, Request
from pydantic import BaseModel, Field

from falaj.governance.identity.guard import Guard, actor
from falaj.governance.policy.cases import MOST, Case
from falaj.governance.policy.model import POLICY_APPLY, POLICY_READ
from falaj.governance.policy.service import PolicyService
from falaj.kernel.access import Principal


class Text(BaseModel):
    """A policy, as Cedar."""

    text: str


class Apply(Text):
    """A policy, as Cedar, and why it shall hold."""

    reason: str


class Asked(BaseModel):
    """A question: may a principal do this to that, as far as these facts are known of it?

    Without `roles` the principal is one of this home, with the roles that it has now.
    """

    action: str
    principal: str = Field(default="asker", max_length=64)
    roles: list[str] | None = None
    resource: str = "it"
    attributes: dict[str, Any] = {}
    scope: list[str] | None = None
    project: str = Field(default="", max_length=64)


class Expected(Asked):
    """A question, what must come of it, and perhaps a rule that must be among those that decide."""

    expected: str = Field(pattern="^(permit|deny)$")
    rule: str = ""


class Cases(BaseModel):
    """A table of cases."""

    cases: list[Expected] = Field(max_length=MOST)


class Known(msgspec.Struct, frozen=True):
    """What explanations look up: a principal by name, and the facts about a resource by its type and id."""

    principal: Callable[[str], Principal]
    facts: Callable[[str, str], dict[str, Any]]


def build(policy: PolicyService, known: Known, guard: Guard) -> APIRouter:
    """The policy over HTTP."""
    routes = guard.router("/api/v1/policy", "policy")

    @routes.get("", POLICY_READ)
    def show() -> dict[str, Any]:
        layers = policy.layers()
        return {**msgspec.to_builtins(policy.current()), "platform": layers.platform, "trouble": policy.trouble}

    @routes.get("/versions", POLICY_READ)
    def versions() -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = msgspec.to_builtins(policy.versions())
        return [{k: v for k, v in row.items() if k != "text"} for row in rows]

    @routes.get("/versions/{number}", POLICY_READ)
    def version(number: int) -> dict[str, Any]:
        found: dict[str, Any] = msgspec.to_builtins(policy.version(number))
        return found

    @routes.post("/plan", POLICY_READ)
    def plan(body: Text) -> dict[str, Any]:
        found: dict[str, Any] = msgspec.to_builtins(policy.plan(body.text))
        return found

    @routes.post("", POLICY_APPLY)
    def apply(body: Apply, request: Request) -> dict[str, Any]:
        key = request.headers.get("idempotency-key", "")
        done: dict[str, Any] = msgspec.to_builtins(policy.apply(actor(request), body.text, body.reason, key))
        return {k: v for k, v in done.items() if k != "text"}

    @routes.post("/test", POLICY_READ)
    def test(body: Cases) -> list[dict[str, Any]]:
        results: list[dict[str, Any]] = msgspec.to_builtins(policy.test(_case(c, known) for c in body.cases))
        return results

    @routes.post("/explanation", POLICY_READ)
    def explanation(body: Asked) -> dict[str, Any]:
        found: dict[str, Any] = msgspec.to_builtins(policy.explain(_case(body, known), known.facts))
        return found

    return routes.router


def _case(asked: Asked, known: Known) -> Case:
    roles = tuple(asked.roles) if asked.roles is not None else known.principal(asked.principal).roles
    expected = asked if isinstance(asked, Expected) else None
    return Case(
        action=asked.action,
        expected=expected.expected if expected else "permit",
        principal=asked.principal,
        roles=roles,
        resource=asked.resource,
        attributes=asked.attributes,
        rule=expected.rule if expected else "",
        scope=None if asked.scope is None else tuple(asked.scope),
        project=asked.project,
    )
