"""Principals and roles: pure rules."""

from __future__ import annotations

import re
from collections.abc import Collection

from falaj.kernel.access import Action
from falaj.kernel.errors import Invalid

ROLES = ("viewer", "data-scientist", "ml-engineer", "risk-officer", "platform-admin", "auditor", "service")

IDENTITY_READ = Action("identity.read", "read", "Account", "see who may act and which tokens exist")
IDENTITY_GRANT = Action("identity.grant", "administration", "Account", "give a principal roles and a token")
IDENTITY_REVOKE = Action("identity.revoke", "administration", "Account", "revoke a token")
SESSION_OPEN = Action("identity.open_session", "read", "Account", "get a one-time link into the console")
WHO_AM_I = Action("identity.who_am_i", "read", "Account", "see who one is, and with which roles")
SIGN_IN = Action("identity.sign_in", "system", "Account", "sign somebody in whom the identity provider knows")
SIGN_OUT = Action("identity.sign_out", "system", "Account", "end a sign-in, for whoever signed in")
WITHDRAW = Action(
    "identity.withdraw",
    "system",
    "Account",
    "take roles and tokens from somebody to whom the provider gives none any more",
)
ACTIONS = (
    IDENTITY_READ, IDENTITY_GRANT, IDENTITY_REVOKE, SESSION_OPEN, WHO_AM_I, SIGN_IN, SIGN_OUT, WITHDRAW,
)  # fmt: skip

_REASON = 200  # characters: with a long scope it must fit an entry of the log

_NAME = re.compile(r"[a-z0-9](?:[a-z0-9._@-]{0,62}[a-z0-9])?\Z")


def check_principal(name: str, roles: tuple[str, ...]) -> None:
    """Raise `Invalid` unless the name and the roles can be granted. The role `system` never can."""
    if not _NAME.match(name) or name == "falaj":
        raise Invalid(
            f"{name[:64]!r} cannot name a principal",
            hint="use 1 to 64 lower-case letters, digits, '.', '_', '@' and '-'; 'falaj' is the platform itself",
            code="bad_principal_name",
        )
    unknown = sorted(set(roles) - set(ROLES))
    if unknown or not roles:
        raise Invalid(
            f"no such role: {', '.join(unknown) or '(none given)'}",
            hint=f"use some of {', '.join(ROLES)}",
            code="no_such_role",
        )


def check_project(name: str) -> None:
    """Raise `Invalid` unless a token can be bound to this; empty binds it to none."""
    if name and not _NAME.match(name):
        raise Invalid(
            f"{name[:64]!r} names no project",
            hint="use the name in the project's falaj.toml, or leave --project out",
            code="bad_token_project",
        )


def check_scope(scope: tuple[str, ...], known: Collection[str]) -> None:
    """Raise `Invalid` unless a token's scope names declared actions and groups only, at least one."""
    unknown = sorted(set(scope) - set(known))
    if unknown or not scope:
        raise Invalid(
            f"no such action or group: {', '.join(unknown)[:200] or '(none given)'}",
            hint="name actions, as in `falaj policy explain`, or groups: read, engineering, risk, audit, inference; "
            "leave --scope out for all that the roles give",
            code="bad_token_scope",
        )


def told(reason: str) -> dict[str, str]:
    """Why, as the log has it; nothing where nobody said. Raises `Invalid` for too long a reason."""
    text = reason.encode(errors="replace").decode().strip()
    if len(text) > _REASON:
        raise Invalid(f"a reason here has at most {_REASON} characters", hint="say it shorter", code="no_reason")
    return {"reason": text} if text else {}
