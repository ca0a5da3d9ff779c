"""How a provider is set up, and which of its groups give which roles."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import msgspec

from falaj.governance.identity.model import ROLES
from falaj.kernel.errors import Denied, Invalid
from falaj.kernel.settings import Settings

PREFIX = "oidc:"
MAX_SUBJECT = 255  # OpenID Connect Core 1.0, section 2
_LOOPBACK = ("127.0.0.1", "localhost", "::1")
_SHOWN = 100


class Setup(msgspec.Struct, frozen=True):
    """A provider as it was set up. `groups` are pairs of a group and a role that it gives."""

    issuer: str
    client_id: str
    audience: str
    scopes: str
    group_claim: str
    groups: tuple[tuple[str, str], ...]
    hours: int
    redirect: str = ""
    secret: str = ""

    @property
    def audiences(self) -> frozenset[str]:
        """Whom an ID token may be for."""
        return frozenset((self.client_id, self.audience))


class Claims(msgspec.Struct, frozen=True):
    """What a verified ID token says of somebody."""

    issuer: str
    subject: str
    display: str
    groups: tuple[str, ...]

    @property
    def principal(self) -> str:
        """The name here. What is not plain in a subject is percent-encoded, so two subjects never share a name."""
        return PREFIX + quote(self.subject, safe="@|")


def setup_of(settings: Settings) -> Setup | None:
    """The provider of some settings; None when there is none. Raises `Invalid` for one that cannot be used."""
    if not settings.oidc_issuer:
        return None
    if not settings.oidc_client_id:
        raise _wrong("oidc_client_id is empty", "set FALAJ_OIDC_CLIENT_ID to the client that the provider knows")
    check_address(settings.oidc_issuer, "oidc_issuer")
    if settings.oidc_redirect_url:
        check_address(settings.oidc_redirect_url, "oidc_redirect_url")
    if "openid" not in settings.oidc_scopes.split():
        raise _wrong("oidc_scopes lacks openid", "write FALAJ_OIDC_SCOPES like 'openid profile groups'")
    return Setup(
        issuer=settings.oidc_issuer,
        client_id=settings.oidc_client_id,
        audience=settings.oidc_audience or settings.oidc_client_id,
        scopes=settings.oidc_scopes,
        group_claim=settings.oidc_group_claim,
        groups=mapping(settings.oidc_groups),
        hours=settings.oidc_session_hours,
        redirect=settings.oidc_redirect_url,
        secret=_secret(settings),
    )


def mapping(text: str) -> tuple[tuple[str, str], ...]:
    """`group=role; group=role` as pairs; a group's name may hold '='. Raises `Invalid` for anything else."""
    pairs = []
    for part in filter(None, (p.strip() for p in text.replace("\n", ";").split(";"))):
        group, equals, role = (p.strip() for p in part.rpartition("="))
        if not (group and equals and role in ROLES):
            raise _wrong(
                f"oidc_groups: {part[:_SHOWN]!r} gives no role to a group",
                f"write FALAJ_OIDC_GROUPS like 'ml-team=ml-engineer; risk=risk-officer', with some of {', '.join(ROLES)}",
            )
        pairs.append((group, role))
    if not pairs:
        raise _wrong(
            "oidc_groups gives no group a role, so nobody could sign in",
            "write FALAJ_OIDC_GROUPS like 'ml-team=ml-engineer; risk=risk-officer'",
        )
    return tuple(pairs)


def roles_of(claims: Claims, groups: tuple[tuple[str, str], ...]) -> tuple[str, ...]:
    """The roles that somebody's groups give, in the order of `ROLES`. Raises `Denied` for none."""
    given = {role for group, role in groups if group in claims.groups}
    if not given:
        raise Denied(
            f"{claims.principal} is in no group that has a role here",
            hint="ask an administrator to put you into one of the provider's groups that oidc_groups names, then sign in again",
            code="no_mapped_group",
        )
    return tuple(role for role in ROLES if role in given)


def groups_in(claim: Any) -> tuple[str, ...]:
    """The groups that a claim names: a list of texts, or one text; anything else names none."""
    if isinstance(claim, str):
        return (claim,)
    if isinstance(claim, list) and all(isinstance(g, str) for g in claim):
        return tuple(claim)
    return ()


def check_address(address: str, name: str) -> None:
    """Raises `Invalid` unless an address is https, or http on this machine alone."""
    try:
        parts = urlsplit(address)
        host, _ = parts.hostname, parts.port
    except ValueError:
        parts, host = urlsplit(""), None
    private = parts.scheme == "http" and host in _LOOPBACK
    plain = not (parts.username or parts.password or parts.fragment) and address.isascii() and address.isprintable()
    if not (host and plain and (parts.scheme == "https" or private)):
        raise _wrong(
            f"{name} is no address that can be trusted: {address[:_SHOWN]!r}",
            "use https; http only on this machine itself (127.0.0.1, localhost)",
        )


def _secret(settings: Settings) -> str:
    if settings.oidc_client_secret and settings.oidc_client_secret_file:
        raise _wrong("the client's secret is set twice", "set oidc_client_secret or oidc_client_secret_file, not both")
    if not settings.oidc_client_secret_file:
        return settings.oidc_client_secret
    try:
        secret = Path(settings.oidc_client_secret_file).read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError) as e:
        raise _wrong(
            f"oidc_client_secret_file cannot be read: {type(e).__name__}", "name a file that holds the secret alone"
        ) from e
    if not secret:
        raise _wrong("oidc_client_secret_file is empty", "name a file that holds the secret alone")
    return secret


def _wrong(what: str, hint: str) -> Invalid:
    return Invalid(what, hint=hint, code="bad_setting")
