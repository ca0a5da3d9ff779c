"""What is served at one moment. A `State` is replaced as a whole, never changed: an answer is made
by one generation from its first line to its last."""

from __future__ import annotations

import base64
import binascii
import hashlib
import random
from collections.abc import Iterable
from datetime import datetime
from typing import Any

import msgspec
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from falaj.governance.identity.verify import KnownToken, TokenVerifier, bearer
from falaj.governance.policy.decide import CedarAuthoriser
from falaj.governance.signing.sealing import unseal
from falaj.kernel.access import Action, Principal, Question, Resource
from falaj.kernel.clock import parse_iso
from falaj.kernel.errors import Denied, Integrity, NotFound, Unavailable
from falaj.lifecycle.serving.model import PEPPER, Access, LoadReport
from falaj.lifecycle.serving.plane.loading import Version

_REMEMBERED = 10_000


class Guard:
    """Who may do what, by one bundle's snapshot. Remembers its answers; a new bundle brings a new guard."""

    def __init__(self, tokens: Iterable[KnownToken], pepper: bytes, policy: str, actions: Iterable[Action]) -> None:
        tokens = tuple(tokens)
        self._verifier = TokenVerifier(tokens, pepper)
        self._authoriser = CedarAuthoriser(policy, actions)
        self._expiry = {t.id: parse_iso(t.expires_at) for t in tokens}
        self._permitted: dict[tuple[str, str, str], tuple[Principal, datetime]] = {}

    def admit(self, header: str, action: Action, resource: str, now: datetime) -> Principal:
        """The principal behind an Authorization header, if it may do `action` to `resource`.
        Raises `Unauthenticated`, `Denied`."""
        known = self._permitted.get((header, action.name, resource))
        if known is not None and now < known[1]:
            return known[0]
        token = bearer(header)
        principal = self._verifier.verify(token, now)
        decision = self._authoriser.decide(Question(principal, action.name, Resource(action.resource, resource)))
        if not decision.allowed:
            raise Denied(
                f"{principal.name} may not {action.name} {action.resource} {resource[:80]}: {decision.reason}",
                hint="ask a platform administrator for a token whose role allows it",
                code="denied_by_policy",
                details={"rules": list(decision.rules)},
            )
        if len(self._permitted) >= _REMEMBERED:
            self._permitted.clear()
        self._permitted[header, action.name, resource] = (principal, self._expiry[token.split("_")[1]])
        return principal


def guard_of(access: Access, key: X25519PrivateKey, actions: Iterable[Action]) -> Guard:
    """The guard of a bundle. Raises `Integrity` when its snapshot cannot be read, `Invalid` for a bad policy."""
    try:
        pepper = unseal(key, access.pepper, PEPPER)
        return Guard(access.tokens, pepper, access.policy, actions)
    except (ValueError, binascii.Error) as e:
        raise Integrity(
            f"the bundle's access snapshot cannot be read: {e}",
            hint="publish the bundle again",
            code="unreadable_payload",
        ) from e


def nobody() -> Guard:
    """The guard before any bundle came: no token is known."""
    return Guard((), base64.b64decode(""), "", ())


class Served(msgspec.Struct, frozen=True):
    """A version in the traffic, its share and when its admission ends."""

    version: Version
    weight: int
    expires_at: datetime


class Model(msgspec.Struct, frozen=True):
    """One model's traffic. `envelope` is the bundle that it was taken from."""

    name: str
    routes: tuple[Served, ...]
    generation: int
    envelope: dict[str, Any]

    def pick(self, key: str | None) -> Version:
        """The version for a caller: by routing key always the same while the plan stands, else by chance.
        Raises `Unavailable` when no version is left."""
        routes = self.routes
        if len(routes) == 1:
            return routes[0].version
        total = sum(r.weight for r in routes)
        if total <= 0:
            raise Unavailable(
                f"no version of {self.name} may be served now",
                hint="its admission has expired: admit it again with `falaj rollout start`",
                code="no_admitted_version",
            )
        point = (random.random() if key is None else _share(self.name, key)) * total
        for route in routes:
            point -= route.weight
            if point < 0:
                return route.version
        return routes[-1].version

    def version(self, label: str) -> Version:
        """The version with a number or digest. Raises `NotFound`."""
        for route in self.routes:
            if label in (route.version.label, route.version.digest):
                return route.version
        raise NotFound(
            f"{self.name} has no version {label[:80]!r} in the traffic plan",
            hint="GET /v2/models/MODEL lists the versions; leave the version out to follow the plan",
            code="version_not_found",
        )


def _share(model: str, key: str) -> float:
    digest = hashlib.blake2b(f"{model}\0{key}".encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "big") / (1 << 64)


class State(msgspec.Struct, frozen=True):
    """One generation in service."""

    generation: int
    digest: str  # of the bundle's bytes
    issued_at: str
    guard: Guard
    models: dict[str, Model]
    reports: tuple[LoadReport, ...]
    planned: tuple[str, ...]  # the models that the bundle plans

    def model(self, name: str) -> Model:
        """Raises `NotFound`; `Unavailable` for a model that is planned but has no version that may be served."""
        found = self.models.get(name)
        if found is not None and found.routes:
            return found
        if found is None and name not in self.planned:
            raise NotFound(
                f"no model {name[:80]!r} is served here",
                hint="check the name; `falaj rollout status` shows what is in the traffic",
                code="model_not_found",
            )
        raise Unavailable(
            f"no version of {name} may be served now",
            hint="GET /falaj/v1/status says why: a release was refused or its admission has expired",
            code="no_admitted_version",
        )

    @property
    def ready(self) -> bool:
        """Whether every planned model can answer."""
        return self.generation > 0 and all(n in self.models and self.models[n].routes for n in self.planned)


def empty() -> State:
    return State(0, "", "", nobody(), {}, (), ())
