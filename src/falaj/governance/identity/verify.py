"""Tokens: their format, their hash, and how one is checked.

    falaj_<id: 16 characters>_<secret: 43 characters>_<checksum: 8 hex digits>

The checksum (CRC-32 of what stands before it) lets a scanner tell a token from chance and a typing
error from an attack. Only HMAC-SHA-256(pepper, token) is ever stored.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import zlib
from collections.abc import Iterable
from datetime import datetime

import msgspec

from falaj.kernel.access import Principal
from falaj.kernel.clock import parse_iso
from falaj.kernel.errors import Unauthenticated
from falaj.kernel.ids import ALPHABET

_TOKEN = re.compile(r"(falaj_(?P<id>[0-9a-z]{16})_[A-Za-z0-9_-]{43})_(?P<sum>[0-9a-f]{8})\Z")


class KnownToken(msgspec.Struct, frozen=True):
    """A token as a verifier knows it. `hash` is hex; `expires_at` is RFC 3339; `scope` and `project` as in
    `Principal`."""

    id: str
    hash: str
    principal: str
    kind: str
    roles: tuple[str, ...]
    expires_at: str
    scope: tuple[str, ...] | None = None
    project: str = ""

    def principal_of(self) -> Principal:
        """Whom it stands for."""
        return Principal(self.principal, self.kind, self.roles, self.scope, project=self.project)


def make_token() -> tuple[str, str]:
    """A fresh (id, token)."""
    identifier = "".join(secrets.choice(ALPHABET) for _ in range(16))
    body = f"falaj_{identifier}_{secrets.token_urlsafe(32)}"
    return identifier, f"{body}_{_checksum(body)}"


def token_hash(token: str, pepper: bytes) -> str:
    """The keyed hash that is stored."""
    return hmac.new(pepper, token.encode(), hashlib.sha256).hexdigest()


class TokenVerifier:
    """Checks tokens against a snapshot."""

    def __init__(self, known: Iterable[KnownToken], pepper: bytes) -> None:
        self._known = {k.id: k for k in known}
        self._pepper = pepper

    def verify(self, token: str, now: datetime) -> Principal:
        """The principal that a token stands for. Raises `Unauthenticated`, always with the same words
        for unknown, revoked and forged tokens, so that an attacker learns nothing."""
        match = _TOKEN.match(token)
        if match is None or _checksum(match[1]) != match["sum"]:
            raise _refused("it is not a token", "malformed_token")
        known = self._known.get(match["id"])
        if known is None or not hmac.compare_digest(token_hash(token, self._pepper), known.hash):
            raise _refused("it is not known", "unknown_token")
        if now >= parse_iso(known.expires_at):
            raise _refused("it has expired", "expired_token")
        return known.principal_of()


def bearer(header: str) -> str:
    """The token in an Authorization header. Raises `Unauthenticated`."""
    scheme, _, token = header.partition(" ")
    if scheme.lower() != "bearer" or not token:
        raise _refused("there is none", "no_token")
    return token.strip()


def id_in(token: str) -> str:
    """The id that a well-formed token names; empty for anything else. It says nothing about whether it is known."""
    match = _TOKEN.match(token)
    return match["id"] if match else ""


def _checksum(body: str) -> str:
    return f"{zlib.crc32(body.encode()):08x}"


def _refused(why: str, code: str) -> Unauthenticated:
    return Unauthenticated(
        f"the token is not accepted: {why}",
        hint="send 'Authorization: Bearer TOKEN' with a token from `falaj token create`",
        code=code,
    )
