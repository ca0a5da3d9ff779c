"""Take a version out of traffic for good reason: its share goes to the version that serves beside it, or to none."""

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


class Withdrawal(msgspec.Struct, frozen=True):
    """Takes versions out. `rollouts` and `serving` by environment."""

    registry: RegistryService
    rollouts: Mapping[str, RolloutService]
    serving: Mapping[str, ServingService]
    clock: Clock

    def in_traffic(self) -> list[ModelVersion]:
        """The versions in a traffic plan, and those that count as serving."""
        planned = {r.digest for rollout in self.rollouts.values() for plan in rollout.plans() for r in plan.routes}
        versions = (v for model in self.registry.models() for v in self.registry.versions(model))
        return [v for v in versions if v.digest in planned or v.state == "serving"]

    def take_out(self, version: ModelVersion, why: str, actor: str, state: str) -> list[str]:
        """Give its traffic away in every environment; returns those that it was in.

        Its state is written last: what a crash cut short is done by the next look.
        """
        out = [name for name, rollout in self.rollouts.items() if self._replanned(rollout, version, actor)]
        cut_short = version.state == "serving" and not out
        for name in self.serving if cut_short else out:
            if name in self.serving:
                self.serving[name].publish(actor)
        if version.state not in UNDECIDED and version.state != state:
            self.move(version, state, why, actor)
        return out

    def refuse(self, version: ModelVersion, why: str, actor: str) -> None:
        """A version that takes no traffic is refused, wherever it stands: only making it anew brings it back."""
        self.move(version, "refused", why, actor)

    def move(self, version: ModelVersion, state: str, why: str, actor: str) -> None:
        """Move a version, with an entry in the log."""
        self.registry.move(version.digest, state, why, actor, new_id("op", self.clock.now()))

    def _replanned(self, rollout: RolloutService, version: ModelVersion, actor: str) -> bool:
        """Take a version out of its model's plan; false when it is not in it."""
        found = False
        while True:
            plan = rollout.present(version.model)
            if all(r.digest != version.digest for r in plan.routes):
                return found
            found, stable = True, champion(plan)
            then = withdrawn(version.model) if stable == version.digest else all_to(version.model, stable)
            with suppress(Conflict):  # somebody else has a part in the traffic by now: look at that plan
                rollout.set_plan(then, actor, new_id("op", self.clock.now()), plan)
