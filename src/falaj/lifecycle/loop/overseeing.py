"""People's word over a model: killed and revived, retired, an approval taken back, and what follows in the traffic.

Each is first written down, then carried out: the bundle is published, the plan is set. A crash in between is made good by the
next look. What the inventory lets the platform do by itself is asked here too (`Permissions`).
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import msgspec

from falaj.governance.changes.inventory import PREVIOUS, REFUSE, VERSION, Fallback
from falaj.governance.changes.killing import KillService
from falaj.governance.changes.model import Approval, missing_roles
from falaj.governance.changes.oversight import InventoryService
from falaj.governance.changes.service import ChangeService
from falaj.governance.changes.tiers import ONE_PERSON
from falaj.kernel.access import SYSTEM, Principal
from falaj.kernel.clock import Clock, parse_iso
from falaj.kernel.environments import PRODUCTION
from falaj.kernel.errors import FalajError, Unavailable
from falaj.kernel.ids import new_id
from falaj.lifecycle.loop.withdrawing import Withdrawal, Withdrawing
from falaj.lifecycle.registry.model import Admission, ModelVersion
from falaj.lifecycle.registry.service import RegistryService
from falaj.lifecycle.rollout.model import champion
from falaj.lifecycle.rollout.service import RolloutService
from falaj.lifecycle.serving.killing import Fallbacks
from falaj.lifecycle.serving.model import Killed
from falaj.lifecycle.serving.service import ServingService

KILL_SECONDS = 5.0
"""How long a kill may take until no worker of the data plane answers with the model any more."""


class Permissions:
    """What a model's risk tier and its inventory let the platform do: rollout's port `Promotions`, and retraining's."""

    def __init__(self, inventory: InventoryService) -> None:
        self._inventory = inventory

    def check(self, model: str) -> None:
        """Raises what keeps every new version of the model from production now."""
        for freeze in self._inventory.governed(model).freezes:
            raise freeze.error

    def starts(self, model: str) -> bool:
        """Whether the last approval may start a version's way into traffic."""
        return self._inventory.governed(model).tier.promotes

    def waits(self, model: str) -> str:
        """Why a challenger may not take all the traffic by itself."""
        tier = self._inventory.governed(model).tier
        if tier.promotes:
            return ""
        return f"{model} is of {tier.name} risk: a person gives it the rest, `falaj rollout promote {model}`"

    def retrains(self, model: str) -> bool:
        """Whether drift may start a training."""
        governed = self._inventory.governed(model)
        return governed.tier.retrains and not any(f.always for f in governed.freezes)


class Ports(msgspec.Struct, frozen=True):
    """Whom oversight concerns. `rollouts` and `serving` by environment."""

    registry: RegistryService
    inventory: InventoryService
    kills: KillService
    changes: ChangeService
    fallbacks: Fallbacks
    rollouts: Mapping[str, RolloutService]
    serving: Mapping[str, ServingService]
    withdrawing: Withdrawing
    clock: Clock


class OverseeingService:
    """Kills, revivals, retirements, revocations."""

    def __init__(self, ports: Ports) -> None:
        self._p = ports
        self._seen: tuple[int, frozenset[str]] = (0, frozenset())  # the generation that tells these kills

    # the kill switch

    def kill(self, actor: Principal, model: str, reason: str) -> dict[str, Any]:
        """Kill a model; returns what answers in its place, and how long it took until every live worker did so.

        Raises `Unavailable` when the kill is written down and the data plane has not taken it in time; it is tried again.
        """
        began = time.perf_counter()
        declared = self._p.inventory.known(model).fallback
        killed, less = self._p.fallbacks.of(model, declared)
        fallback = self._settled(declared, killed)
        kill = self._p.kills.kill(actor, model, fallback, reason)
        generation, workers = self._projected(actor.name)
        seconds = time.perf_counter() - began
        self._abort(model, actor)
        return {
            **msgspec.to_builtins(kill),
            "declared": msgspec.to_builtins(declared),
            "answers": self._words(killed, fallback),
            "less": less,
            "generation": generation,
            "workers": workers,
            "seconds": round(seconds, 3),
        }

    def revive(self, actor: Principal, model: str, reason: str) -> dict[str, Any]:
        """Propose to revive a model, or do it if somebody else has proposed it. Its own traffic plan holds again then."""
        kill = self._p.kills.revive(actor, model, reason)
        told: dict[str, Any] = {**msgspec.to_builtins(kill), "revived": bool(kill.revived_at), "generation": 0}
        if kill.revived_at:
            told["generation"], told["workers"] = self._projected(actor.name)
        return told

    def _settled(self, declared: Fallback, killed: Killed) -> Fallback:
        """The fallback as it holds for this kill: one version, whatever retires or serves later."""
        if killed.kind == VERSION:
            return Fallback(VERSION, self._p.registry.by_digest(killed.digest).number)
        return Fallback() if killed.kind == REFUSE or declared.kind == PREVIOUS else declared

    def _projected(self, actor: str) -> tuple[int, int]:
        """Publish, and wait until every live worker has it: (generation, workers)."""
        serving = self._p.serving[PRODUCTION]
        try:
            generation = serving.publish(actor)
        except FalajError as e:
            raise _not_taken(f"the bundle cannot be published: {e.message}", e.hint) from e
        workers = serving.settle(generation, KILL_SECONDS)
        for why in serving.behind(generation, workers).values():
            raise _not_taken(
                f"a worker of the data plane has not taken it: {why}",
                "stop the data plane if it must not answer: `falaj down`",
            )
        return generation, len(workers)

    def _abort(self, model: str, actor: Principal) -> None:
        """End the rollout that runs: its challenger gets nothing any more, so nobody could ever judge it."""
        rollout = self._p.rollouts[PRODUCTION]
        running = rollout.running(model)
        if running is not None:
            told = msgspec.structs.replace(running, order="abort")
            rollout.move(told, new_id("op", self._p.clock.now()), {"killed_by": actor.name})

    def _words(self, killed: Killed, fallback: Fallback) -> str:
        return self._p.registry.by_digest(killed.digest).alias if killed.digest else fallback.words

    # retirement

    def retire(self, actor: Principal, model: str, reason: str) -> list[str]:
        """Retire a model: none of its versions takes traffic any more. Returns the environments that it was in."""
        self._p.inventory.set(actor, model, {"retired": True}, reason)
        return self._carry_out_retirement(model, actor.name)

    def _carry_out_retirement(self, model: str, actor: str) -> list[str]:
        out: list[str] = []
        for rollout in self._p.rollouts.values():
            for route in rollout.present(model).routes:
                version = self._p.registry.by_digest(route.digest)
                state = "retired" if version.state == "serving" else ""
                out += self._p.withdrawing.take_out(Withdrawal(version, "its model was retired", actor, state))
        return list(dict.fromkeys(out))

    # approvals taken back

    def revoke(
        self, actor: Principal, version: ModelVersion, environment: str, approval: str, reason: str
    ) -> dict[str, Any]:
        """Take an approval back; a version that has too few then takes no traffic any more."""
        subject = self._p.registry.subject(version, environment)
        found = self._p.changes.revoke(actor, subject, approval, reason)
        now = self._p.registry.by_digest(version.digest)
        why = self._unsupported(now, found)
        taken_out = self._withdraw(now, why, actor.name, environment) if why else []
        self._step_back(now, found, actor.name)
        return {"approval": found.id, "given_by": found.principal, "taken_out": taken_out}

    def _step_back(self, version: ModelVersion, found: Approval, actor: str) -> None:
        """A version that was approved and not admitted yet awaits approval again when too few approvals are left."""
        now = self._p.registry.by_digest(version.digest)
        if now.state == "approved" and found.environment == PRODUCTION and self._lacking(now):
            why = _taken_back(found)
            self._p.registry.move(now.digest, "awaiting approval", why, actor, new_id("op", self._p.clock.now()))

    def _unsupported(self, version: ModelVersion, revoked: Approval) -> str:
        """Why an admission no longer stands on enough approvals once one was taken back; empty when it does."""
        admission = self._p.registry.proven_admission(version.digest, revoked.environment)
        if (
            admission is None
            or revoked.id not in admission.approvals
            or not self._lacking(version, revoked.environment)
        ):
            return ""
        return _taken_back(revoked)

    def _lacking(self, version: ModelVersion, environment: str = PRODUCTION) -> bool:
        needed, _ = self._p.registry.asked(version, environment)
        subject = self._p.registry.subject(version, environment)
        counting = self._p.changes.counting(subject)
        return len(counting) < needed or bool(missing_roles(counting, subject))

    def take_out(self, version: ModelVersion, why: str, actor: str) -> list[str]:
        """Take a version out of every environment; the one before comes back where it still may. It awaits approval then."""
        out = [n for n in self._p.rollouts if n != PRODUCTION and self._withdraw(version, why, actor, n)]
        return [*out, *self._withdraw(version, why, actor, PRODUCTION)]

    def _withdraw(self, version: ModelVersion, why: str, actor: str, environment: str) -> list[str]:
        """Take a version out of an environment; where it is the one that serves in production, the one before comes back if
        it still may."""
        back = self._before(version) if environment == PRODUCTION else None
        if back is not None and champion(self._p.rollouts[PRODUCTION].present(version.model)) == version.digest:
            self._p.registry.move(back.digest, "serving", "", actor, new_id("op", self._p.clock.now()))
        else:
            back = None
        heirs = {PRODUCTION: back.digest} if back else {}
        state = "awaiting approval" if environment == PRODUCTION else ""
        return self._p.withdrawing.take_out(Withdrawal(version, why, actor, state, heirs, (environment,)))

    def _before(self, version: ModelVersion) -> ModelVersion | None:
        """The version that served last before this one, of those whose admission still stands."""
        older = [v for v in self._p.registry.versions(version.model) if v.state == "retired" and v != version]
        return next(
            (v for v in self._p.rollouts[PRODUCTION].served_last(version.model, older) if self._stands(v)), None
        )

    def _stands(self, version: ModelVersion) -> bool:
        admission = self._p.registry.proven_admission(version.digest, PRODUCTION)
        if admission is None or parse_iso(admission.expires_at) <= self._p.clock.now():
            return False
        return not any(a.revoked and a.id in admission.approvals for a in self._p.changes.of(version.digest))

    # what follows from time and crashes

    def look(self) -> None:
        """Carry out what a crash cut short: revocations, retirements, kills; and take out what its author alone let in once its
        model is for regulated use."""
        p = self._p
        for approval in p.changes.revoked():
            version = p.registry.by_digest(approval.digest)
            if version.state == "serving" or self._planned(version):
                why = self._unsupported(version, approval)
                if why:
                    self._withdraw(version, why, SYSTEM.name, approval.environment)
        for model in {plan.model for rollout in p.rollouts.values() for plan in rollout.plans()}:
            governed = p.inventory.governed(model)
            if governed.retired:
                self._carry_out_retirement(model, SYSTEM.name)
            elif governed.regulated:
                self._take_out_own(model)
        self._mend(frozenset(p.kills.in_force()))

    def _mend(self, killed: frozenset[str]) -> None:
        """Publish kills and revivals that the newest bundle does not tell: the process died, or it could not be made then."""
        serving = self._p.serving[PRODUCTION]
        seen = (serving.generation(), killed)
        if seen == self._seen:
            return
        bundle = serving.newest()
        told = {k.model for k in bundle.killed} if bundle else set()
        if told != killed:
            serving.publish(SYSTEM.name)
        self._seen = (serving.generation(), killed)

    def _take_out_own(self, model: str) -> None:
        for route in self._p.rollouts[PRODUCTION].present(model).routes:
            admission: Admission | None = self._p.registry.proven_admission(route.digest, PRODUCTION)
            if admission is not None and ONE_PERSON.name in admission.marks:
                version = self._p.registry.by_digest(route.digest)
                self._withdraw(
                    version, "its author alone approved it, and its model is for regulated use", SYSTEM.name, PRODUCTION
                )

    def _planned(self, version: ModelVersion) -> bool:
        plans = (r.present(version.model) for r in self._p.rollouts.values())
        return any(route.digest == version.digest for plan in plans for route in plan.routes)


def _taken_back(approval: Approval) -> str:
    by = approval.revoked.principal if approval.revoked else ""
    why = approval.revoked.reason if approval.revoked else ""
    return f"the approval by {approval.principal} was revoked by {by}: {why}"[:500]


def _not_taken(why: str, hint: str) -> FalajError:
    return Unavailable(
        f"it is written down and not carried out yet: {why}",
        hint=f"{hint}; it is tried again every few seconds, and `falaj status` shows the data plane",
        code="kill_not_taken",
    )
