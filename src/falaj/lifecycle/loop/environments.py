"""The environments of a home: what each holds, how two differ, and carrying a version on to staging.

Keys, policies and approvals are each environment's own; the versions are the same bytes everywhere.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from falaj.governance.changes.model import completing, missing_roles
from falaj.governance.changes.service import ChangeService
from falaj.governance.door import Done, Door, Intent
from falaj.governance.policy.decide import Layers
from falaj.kernel.access import Principal, Resource
from falaj.kernel.clock import Clock
from falaj.kernel.digests import sha256
from falaj.kernel.environments import STAGING
from falaj.kernel.errors import Conflict, FalajError, Invalid
from falaj.kernel.ids import new_id
from falaj.lifecycle.loop.model import STAGING_FLOW
from falaj.lifecycle.registry.model import (
    TRIED,
    VERSION_PROMOTE,
    Environment,
    ModelVersion,
    asked,
    check_admissible,
)
from falaj.lifecycle.registry.service import RegistryService
from falaj.lifecycle.rollout.model import champion
from falaj.lifecycle.rollout.service import RolloutService
from falaj.lifecycle.serving.service import ServingService
from falaj.storage.sql.database import Tx
from falaj.workflow.flow import Workflows


class Stands(msgspec.Struct, frozen=True):
    """A version in an environment."""

    model: str
    alias: str
    digest: str


class PlaneView(msgspec.Struct, frozen=True):
    """An environment's data plane: private (dev: one for each measurement), running or stopped."""

    state: str
    address: str = ""
    generation: int = 0


class EnvironmentView(msgspec.Struct, frozen=True):
    """An environment as it stands. `key` and `policy` are digests: of its public key, and of the text that holds there.

    `serving` are the versions that its traffic plans name first, `admitted` the newest of each model that it let in.
    """

    name: str
    after: str
    approvals: int
    roles: tuple[str, ...]
    rehearsal: bool
    key: str
    policy: str
    plane: PlaneView
    serving: tuple[Stands, ...]
    admitted: tuple[Stands, ...]


class ModelDifference(msgspec.Struct, frozen=True):
    """A model of which two environments have different versions; `why` the second lacks the first's, and what to do."""

    model: str
    first: Stands | None
    second: Stands | None
    why: str
    hint: str


class Difference(msgspec.Struct, frozen=True):
    """A property in which two environments differ."""

    what: str
    first: str
    second: str


class Differences(msgspec.Struct, frozen=True):
    """How two environments differ: in what they serve, and in how one gets in."""

    first: str
    second: str
    models: tuple[ModelDifference, ...]
    differences: tuple[Difference, ...]


class Ports(msgspec.Struct, frozen=True):
    """What environments are asked of. `rollouts` and `serving` by environment; `keys` are digests; `policy` is what holds in one now."""

    registry: RegistryService
    changes: ChangeService
    flows: Workflows
    rollouts: Mapping[str, RolloutService]
    serving: Mapping[str, ServingService]
    keys: Mapping[str, str]
    policy: Callable[[str], Layers]
    door: Door
    clock: Clock


class EnvironmentService:
    """What each environment holds, how two differ, and the way from one to the next."""

    def __init__(self, ports: Ports) -> None:
        self._p = ports

    # looking

    def all(self) -> tuple[EnvironmentView, ...]:
        """Every environment of this home, in the order in which a version passes them."""
        return tuple(self._view(e) for e in self._p.registry.environments)

    def diff(self, first: str, second: str) -> Differences:
        """How two environments differ. Raises `Invalid` for one that this home does not have."""
        one, two = self._view(self._hosted(first)), self._view(self._hosted(second))
        here, there = self._has(one), self._has(two)
        models = [
            self._model(m, here.get(m), there.get(m), second)
            for m in sorted({*here, *there})
            if here.get(m) != there.get(m)
        ]
        told = (
            ("key", one.key, two.key),
            ("policy", one.policy, two.policy),
            ("approvals", str(one.approvals), str(two.approvals)),
            ("roles", ", ".join(one.roles), ", ".join(two.roles)),
            ("rehearsal", _yes(one.rehearsal), _yes(two.rehearsal)),
            ("comes after", one.after, two.after),
        )
        return Differences(first, second, tuple(models), tuple(Difference(*d) for d in told if d[1] != d[2]))

    # carrying on

    def promote(self, actor: Principal, version: ModelVersion, to: str) -> dict[str, Any]:
        """Carry a version on to staging: admission and rehearsal, as a flow. Done already, nothing is started.

        Raises `Denied` by policy (production is entered by approval), `Conflict` for a version that may not go on.
        """
        place = self._hosted(to)
        resource = Resource("ModelVersion", version.alias, {"environment": to})
        intent = Intent(actor, VERSION_PROMOTE, resource, detail={"digest": version.digest, "environment": to})
        self._p.door.check(intent)
        if not place.rehearsal:
            raise Invalid(
                f"nothing is promoted to {to}: a build ends there by itself",
                hint=f"carry it on: `falaj promote {version.alias} --to {STAGING}`",
                code="not_promoted_to",
            )
        if version.state != "registered" and not self._p.registry.lacks(version, to):
            return {"flow": "", "environment": to, "already": True}
        self._check_promotable(version, to)
        flow = new_id("stg", self._p.clock.now())

        def do(_tx: Tx) -> Done[str]:
            return Done(flow, {"flow": flow})

        self._p.door.change(intent, do)
        self._p.flows.start(STAGING_FLOW, flow, {"digest": version.digest, "actor": actor.name})
        return {"flow": flow, "environment": to, "already": False}

    def approve(self, actor: Principal, version: ModelVersion, reason: str, name: str) -> dict[str, Any]:
        """Approve a registered version for staging; the approval that completes what it asks for carries it on.

        Whoever gave it may repeat it. Raises `Conflict` where no approval is asked for, `Denied` for the author.
        """
        place, registry = self._hosted(name), self._p.registry
        needed, roles = asked(place, version)
        if not (needed or roles):
            raise Conflict(
                f"{name} asks for no approval",
                hint=f"carry it on: `falaj promote {version.alias} --to {STAGING}`",
                code="no_approval_asked",
            )
        if version.state != "registered":
            raise Conflict(
                f"{version.alias} is {version.state}, it does not await approval for {name}",
                hint=f"`falaj versions {version.model}` shows where each version stands",
                code="not_awaiting",
            )
        subject = registry.subject(version, name)
        mine = (a for a in self._p.changes.counting(subject) if a.principal == actor.name)
        given = next(mine, None) or self._p.changes.decide(actor, subject, True, reason)
        counting = self._p.changes.counting(subject)
        missing = missing_roles(counting, subject)
        answer: dict[str, Any] = {
            "approval": given.id, "approvals": len(counting), "needed": needed, "missing_roles": list(missing),
            "environment": name, "flow": "", "rollout": False,
        }  # fmt: skip
        last = completing(counting, needed, subject)
        if last is None:
            return answer
        flow = f"stg_{last.id.partition('_')[2]}"  # whoever asks: one rehearsal comes of these approvals
        self._p.flows.start(STAGING_FLOW, flow, {"digest": version.digest, "actor": actor.name})
        return {**answer, "flow": flow}

    def _check_promotable(self, version: ModelVersion, to: str) -> None:
        last = self._p.registry.proven_rehearsal(version.digest, to)
        again = last is not None and not last.passed and last.evidence == version.evidence
        if version.number and (version.state in TRIED or (version.state == "refused" and again)):
            return
        why = f" ({version.reason})" if version.reason else ""
        raise Conflict(
            f"{version.alias} is {version.state}{why}: it goes nowhere",
            hint=f"`falaj versions {version.model}` shows where each version stands; train another one",
            code="wrong_state",
        )

    # what several answers need

    def _hosted(self, name: str) -> Environment:
        """An environment that versions stand in: not the one for measuring."""
        found = self._p.registry.environment(name)
        if found not in self._p.registry.environments:
            raise Invalid(f"nothing stands in {name}", hint="it is for measuring only", code="no_such_environment")
        return found

    def _view(self, environment: Environment) -> EnvironmentView:
        p, name = self._p, environment.name
        plans = p.rollouts[name].plans()
        serving = [self._stands(digest) for digest in map(champion, plans) if digest]
        newest = {v.model: v for v in map(p.registry.by_digest, p.registry.admitted(name))}
        return EnvironmentView(
            name=name,
            after=environment.after,
            approvals=environment.approvals,
            roles=environment.roles,
            rehearsal=environment.rehearsal,
            key=p.keys[name],
            policy=sha256(p.policy(name).whole.encode()),
            plane=self._plane(name),
            serving=tuple(serving),
            admitted=tuple(Stands(v.model, v.alias, v.digest) for _, v in sorted(newest.items())),
        )

    def _plane(self, name: str) -> PlaneView:
        serving = self._p.serving.get(name)
        if serving is None:
            return PlaneView("private")
        workers = serving.workers()
        if not workers:
            return PlaneView("stopped", "", serving.generation())
        return PlaneView("running", workers[0].address, min(w.generation for w in workers))

    def _stands(self, digest: str) -> Stands:
        version = self._p.registry.by_digest(digest)
        return Stands(version.model, version.alias, version.digest)

    @staticmethod
    def _has(view: EnvironmentView) -> dict[str, Stands]:
        """What an environment has of each model: the version that serves there, else the newest that it let in."""
        return {**{s.model: s for s in view.admitted}, **{s.model: s for s in view.serving}}

    def _model(self, model: str, first: Stands | None, second: Stands | None, name: str) -> ModelDifference:
        if first is None:
            return ModelDifference(model, first, second, "", "")
        version = self._p.registry.by_digest(first.digest)
        try:
            check_admissible(version, self._p.registry.environment(name), self._p.registry.facts(version, name))
        except FalajError as e:
            return ModelDifference(model, first, second, e.message, e.hint)
        why = f"nothing is missing: {version.alias} is {version.state}"
        return ModelDifference(model, first, second, why, f"see `falaj rollout status {model}`")


def _yes(value: bool) -> str:
    return "yes" if value else "no"
