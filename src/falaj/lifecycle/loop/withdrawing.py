"""Taking a version out of the traffic, in every environment, for good reasons: a waiver that ended, an approval taken back, a
model retired, a key revoked.

Its traffic goes to the version that serves beside it or, where it is the one that serves, to the version that was asked to come
back, or to none. Doing it again is harmless, and its state is written last: what a crash cut short is done by the next look.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress

import msgspec

from falaj.kernel.clock import Clock
from falaj.kernel.errors import Conflict
from falaj.kernel.ids import new_id
from falaj.lifecycle.registry.model import ModelVersion
from falaj.lifecycle.registry.service import RegistryService
from falaj.lifecycle.rollout.model import all_to, champion, withdrawn
from falaj.lifecycle.rollout.service import RolloutService
from falaj.lifecycle.serving.service import ServingService

UNDECIDED = ("registered", "refused", "rejected", "candidate")
"""The states that taking a version out leaves as they are: it takes no traffic in them."""


class Ports(msgspec.Struct, frozen=True):
    """Whom it concerns. `rollouts` and `serving` by environment."""

    registry: RegistryService
    rollouts: Mapping[str, RolloutService]
    serving: Mapping[str, ServingService]
    clock: Clock


class Withdrawal(msgspec.Struct, frozen=True):
    """A version that is to take no traffic any more: why, for whom, the state that it falls back to (empty: it keeps its
    own), the version that may come back in its place, by environment (its digest), and the environments that it leaves
    (empty: all)."""

    version: ModelVersion
    why: str
    actor: str
    state: str = ""
    back: Mapping[str, str] = {}
    only: tuple[str, ...] = ()


class Withdrawing:
    """Takes versions out of the traffic."""

    def __init__(self, ports: Ports) -> None:
        self._p = ports

    def in_traffic(self) -> list[ModelVersion]:
        """The versions in a traffic plan, and those that count as serving."""
        p = self._p
        planned = {r.digest for rollout in p.rollouts.values() for plan in rollout.plans() for r in plan.routes}
        versions = (v for model in p.registry.models() for v in p.registry.versions(model))
        return [v for v in versions if v.digest in planned or v.state == "serving"]

    def take_out(self, w: Withdrawal) -> list[str]:
        """Give its traffic away; returns the environments that it was in."""
        p, version = self._p, w.version
        left = {name: rollout for name, rollout in p.rollouts.items() if not w.only or name in w.only}
        out = [name for name, rollout in left.items() if self._replanned(rollout, w, w.back.get(name, ""))]
        cut_short = version.state == "serving" and not out
        for name in p.serving if cut_short else out:
            if name in p.serving:
                p.serving[name].publish(w.actor)
        if w.state and version.state not in (*UNDECIDED, w.state):
            self._move(version, w.state, w.why, w.actor)
        return out

    def refuse(self, version: ModelVersion, why: str, actor: str) -> None:
        """A version that takes no traffic is refused, wherever it stands: only making it anew brings it back."""
        self._move(version, "refused", why, actor)

    def _move(self, version: ModelVersion, state: str, why: str, actor: str) -> None:
        """Move a version, with an entry in the log."""
        self._p.registry.move(version.digest, state, why, actor, new_id("op", self._p.clock.now()))

    def _replanned(self, rollout: RolloutService, w: Withdrawal, back: str) -> bool:
        """Take a version out of its model's plan; false when it is not in it."""
        found, version = False, w.version
        while True:
            plan = rollout.present(version.model)
            if all(r.digest != version.digest for r in plan.routes):
                return found
            found, stable = True, champion(plan)
            heir = back if stable == version.digest else stable
            then = all_to(version.model, heir) if heir else withdrawn(version.model)
            with suppress(Conflict):  # somebody else has a part in the traffic by now: look at that plan
                rollout.set_plan(then, w.actor, new_id("op", self._p.clock.now()), plan)
