"""What is served at one moment. A `State` is replaced as a whole, never changed: an answer is made
by one generation from its first line to its last."""

from __future__ import annotations

import binascii
from collections.abc import Iterable, Iterator, Mapping, Set
from datetime import datetime
from typing import Any

import msgspec
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from falaj.governance.identity.verify import KnownToken, TokenVerifier, bearer
from falaj.governance.policy.decide import CedarAuthoriser, Decider, SplitAuthoriser
from falaj.governance.signing.sealing import unseal
from falaj.kernel.access import Action, Principal, Question, Resource
from falaj.kernel.clock import parse_iso
from falaj.kernel.errors import Denied, Integrity, NotFound, Unavailable
from falaj.lifecycle.rollout.model import place, share
from falaj.lifecycle.serving.model import ONLINE_KEY, PEPPER, Access, Killed, LoadReport
from falaj.lifecycle.serving.plane.loading import Version
from falaj.lifecycle.serving.plane.watching import Latest, Watch

_REMEMBERED, _REMEMBERED_LENGTH = 10_000, 512  # answers, characters of what was asked


class Permits:
    """Who may do what, by one bundle's snapshot. Remembers its answers; a new bundle brings new ones.

    `environment` is a fact about everything that is served here, `projects` one about models.
    """

    def __init__(
        self,
        tokens: Iterable[KnownToken],
        pepper: bytes,
        policy: Decider,
        environment: str = "",
        projects: Mapping[str, str] | None = None,
    ) -> None:
        tokens = tuple(tokens)
        self._verifier = TokenVerifier(tokens, pepper)
        self._policy = policy
        self._facts = {"environment": environment} if environment else {}
        self._projects = projects or {}
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
        facts = self._facts
        if principal.project and action.resource == "Model":
            facts = {**facts, "project": self._projects.get(resource, "")}
        asked = Question(principal, action.name, Resource(action.resource, resource, facts))
        decision = self._policy.decide(asked)
        if not decision.allowed:
            raise Denied(
                f"{principal.name} may not {action.summary} ({resource[:80]}): {decision.reason}",
                hint=decision.hint or "ask a platform administrator for a token whose role allows it",
                code="denied_by_policy",
                details={"rules": list(decision.rules)},
            )
        if len(header) + len(resource) > _REMEMBERED_LENGTH:
            return principal
        if len(self._permitted) >= _REMEMBERED:
            self._permitted.clear()
        self._permitted[header, action.name, resource] = (principal, self._expiry[token.split("_")[1]])
        return principal


def permits_of(access: Access, key: X25519PrivateKey, actions: Iterable[Action], environment: str = "") -> Permits:
    """The permits of a bundle. Raises `Integrity` when its snapshot cannot be read, `Invalid` for a bad policy."""
    try:
        pepper = unseal(key, access.pepper, PEPPER)
        return Permits(access.tokens, pepper, _policy(access, tuple(actions)), environment, access.projects)
    except (ValueError, binascii.Error) as e:
        raise Integrity(
            f"the bundle's access snapshot cannot be read: {e}",
            hint="publish the bundle again",
            code="unreadable_payload",
        ) from e


def online_keys(access: Access, key: X25519PrivateKey) -> tuple[bytes, ...]:
    """The keys of the online store in a bundle. Raises `Integrity`."""
    return tuple(unseal(key, sealed, ONLINE_KEY) for sealed in access.online)


def _policy(access: Access, actions: tuple[Action, ...]) -> Decider:
    everyone = CedarAuthoriser(access.policy, actions)
    return SplitAuthoriser(CedarAuthoriser(access.platform, actions), everyone) if access.platform else everyone


def nobody() -> Permits:
    """The permits before any bundle came: no token is known."""
    return Permits((), b"", CedarAuthoriser("", ()))


class Served(msgspec.Struct, frozen=True):
    """A version in the plan: its weight, when its admission ends, and what watches it if it is a challenger."""

    version: Version
    weight: int
    expires_at: datetime
    role: str = "stable"
    watch: Watch | None = None

    @property
    def effective(self) -> int:
        """The weight that holds: 0 for a challenger that was stopped."""
        return 0 if self.watch is not None and self.watch.trip is not None else self.weight


class Model(msgspec.Struct, frozen=True):
    """One model's traffic. `envelope` is the bundle that it was taken from.

    `routes` are those that can answer. `places` and `weights` are what was planned, canaries first (see
    `rollout.model.split`); a place is None when its version is not loaded or its admission has expired.
    """

    name: str
    routes: tuple[Served, ...]
    generation: int
    envelope: dict[str, Any]
    places: tuple[Served | None, ...]
    weights: tuple[int, ...]
    shadows: tuple[Served, ...] = ()
    latest: Latest | None = None  # the stable version's last score, when a guard compares scores

    def pick(self, key: str) -> Served:
        """The version for a request: for one key always the same while the plan stands. What a stopped or
        expired challenger had is the stable version's; nobody else ever gets more than was planned.
        Raises `Unavailable` when no version is left."""
        route = self.places[place(self.weights, share(self.name, key) * 100)]
        return route if route is not None and route.effective else self.stable()

    def stable(self) -> Served:
        """The version that answers when a challenger does not. Raises `Unavailable`."""
        for route in self.routes:
            if route.role == "stable":
                return route
        raise _none_left(self.name)

    def named(self, label: str) -> Served:
        """The version with a number or digest. Raises `NotFound`."""
        for route in self.routes:
            if label in (route.version.label, route.version.digest):
                return route
        raise NotFound(
            f"{self.name} has no version {label[:80]!r} in the traffic plan",
            hint="GET /v2/models/MODEL lists the versions; leave the version out to follow the plan",
            code="version_not_found",
        )

    def without(self, gone: Set[str]) -> Model:
        """This model without some digests; the places of the others stay."""
        return msgspec.structs.replace(
            self,
            routes=tuple(r for r in self.routes if r.version.digest not in gone),
            places=tuple(None if r is None or r.version.digest in gone else r for r in self.places),
            shadows=tuple(r for r in self.shadows if r.version.digest not in gone),
        )

    @property
    def can_answer(self) -> bool:
        """Whether a stable version is there to answer."""
        return any(r.role == "stable" for r in self.routes)


def _none_left(model: str) -> Unavailable:
    return Unavailable(
        f"no version of {model} may be served now",
        hint="GET /falaj/v1/status says why: a release was refused or its admission has expired",
        code="no_admitted_version",
    )


def _killed(model: str) -> Unavailable:
    return Unavailable(
        f"{model} was killed: it answers nobody now",
        hint="use another way to decide until two people have revived it; whoever owns the model knows more",
        code="model_killed",
    )


class State(msgspec.Struct, frozen=True):
    """One generation in service."""

    generation: int
    digest: str  # of the bundle's bytes
    issued_at: str
    permits: Permits
    models: dict[str, Model]
    reports: tuple[LoadReport, ...]
    planned: tuple[str, ...]  # the models that the bundle plans
    killed: dict[str, Killed] = {}

    def model(self, name: str) -> Model:
        """Raises `NotFound`; `Unavailable` for a model that is planned but has no version that may be served, or that was
        killed and has no version in its place."""
        found = self.models.get(name)
        if name in self.killed and (found is None or not found.routes):
            raise _killed(name)
        if found is not None and found.routes:
            return found
        if found is None and name not in self.planned:
            raise NotFound(
                f"no model {name[:80]!r} is served here",
                hint="check the name; `falaj rollout status` shows what is in the traffic",
                code="model_not_found",
            )
        raise _none_left(name)

    def killing(self, killed: Iterable[Killed]) -> State:
        """This state with some models killed: of each, only the version that answers in its place is left."""
        told = {k.model: k for k in killed}
        models = {}
        for name, model in self.models.items():
            kill = told.get(name)
            if kill is None:
                models[name] = model
                continue
            left = [r for r in (*model.routes, *model.shadows) if kill.digest and r.version.digest == kill.digest]
            if left:
                only = msgspec.structs.replace(left[0], weight=100, role="stable", watch=None)
                models[name] = msgspec.structs.replace(
                    model, routes=(only,), places=(only,), weights=(100,), shadows=(), latest=None
                )
        return msgspec.structs.replace(self, models=models, killed=told)

    @property
    def ready(self) -> bool:
        """Whether every planned model can answer."""
        return self.generation > 0 and all(n in self.models and self.models[n].can_answer for n in self.planned)

    def served(self) -> Iterator[Served]:
        """Everything that is loaded, shadows too."""
        for model in self.models.values():
            yield from model.routes
            yield from model.shadows


def empty() -> State:
    """The state before the first bundle: nobody is known and nothing serves."""
    return State(0, "", "", nobody(), {}, (), ())
