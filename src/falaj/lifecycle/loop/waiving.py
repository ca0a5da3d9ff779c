"""What follows from waivers: a version that is waived goes on to staging, one whose waiver ends takes no traffic.

The data plane takes a version out by itself when its admission ends, which is no later than the waiver. What is written here follows:
the traffic plan, the version's state, and the incident. A revocation is carried out at once, and again by the next look if a crash
came between.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import msgspec

from falaj.kernel.access import SYSTEM, Principal
from falaj.kernel.clock import Clock, iso, parse_iso
from falaj.kernel.errors import FalajError
from falaj.lifecycle.loop.model import STAGING_FLOW
from falaj.lifecycle.loop.withdrawing import Withdrawal, Withdrawing
from falaj.lifecycle.monitoring.ports import Alarms
from falaj.lifecycle.registry.model import ModelVersion, missing
from falaj.lifecycle.registry.ports import VerifiedEvidence
from falaj.lifecycle.registry.service import RegistryService
from falaj.lifecycle.registry.waiver import Waiver
from falaj.lifecycle.registry.waivers import Proposal, WaiverService
from falaj.lifecycle.rollout.service import RolloutService
from falaj.workflow.flow import Workflows

ENDS = "waiver"
"""The kind of the incident of a waiver that ends soon, or has ended while the version served."""
WARN = timedelta(days=7)


class Ports(msgspec.Struct, frozen=True):
    """Whom waivers concern. `rollouts` by environment."""

    registry: RegistryService
    waivers: WaiverService
    evidence: VerifiedEvidence
    rollouts: Mapping[str, RolloutService]
    withdrawing: Withdrawing
    flows: Workflows
    alarms: Alarms
    clock: Clock


class WaivingService:
    """People's decisions about waivers, and what follows from them and from the passing of time."""

    def __init__(self, ports: Ports) -> None:
        self._p = ports

    # deciding

    def of(self, version: ModelVersion) -> list[dict[str, Any]]:
        """A version's waivers, newest first, each with its state."""
        return [self._told(w) for w in self._p.waivers.of(version.digest)]

    def propose(self, actor: Principal, version: ModelVersion, proposal: Proposal) -> dict[str, Any]:
        """Propose to waive what the version is missing; the proposal is the first signature."""
        return self._told(self._p.waivers.propose(actor, version, proposal))

    def sign(self, actor: Principal, version: ModelVersion, reason: str) -> dict[str, Any]:
        """Sign what is proposed; the signature that completes it carries a registered version on to staging."""
        waiver = self._p.waivers.sign(actor, version, reason)
        told = self._told(waiver)
        if told["state"] != "in force" or version.state != "registered":
            return {**told, "flow": ""}
        flow = f"stg_{waiver.content.id.partition('_')[2]}"
        self._p.flows.start(STAGING_FLOW, flow, {"digest": version.digest, "actor": actor.name})
        return {**told, "flow": flow}

    def revoke(self, actor: Principal, version: ModelVersion, reason: str) -> dict[str, Any]:
        """Take a waiver back: the version takes no traffic any more, in no environment."""
        told = self._told(self._p.waivers.revoke(actor, version, reason))
        why = self._uncovered(version)
        taken_out = self._p.withdrawing.take_out(Withdrawal(version, why, actor.name, "registered")) if why else []
        return {**told, "taken_out": taken_out}

    # what follows

    def look(self) -> None:
        """Take out what its waiver no longer covers, and tell of waivers that end soon.

        Raises what went wrong with a version after the others were looked at: it hides nothing but itself.
        """
        failed: FalajError | None = None
        for version in self._in_traffic():
            try:
                self._look_at(version)
            except FalajError as e:
                failed = failed or e
        if failed is not None:
            raise failed

    def _look_at(self, version: ModelVersion) -> None:
        p, why = self._p, self._uncovered(version)
        if why:
            p.withdrawing.take_out(Withdrawal(version, why, SYSTEM.name, "registered"))
            p.alarms.open(version.model, ENDS, version.digest, f"{version.alias} takes no traffic any more: {why}")
            return
        covering = p.registry.standing(version, p.evidence.proven(version.digest)).waiver
        if covering is not None and parse_iso(covering.until) <= p.clock.now() + WARN:
            reason = f"the waiver of {version.alias} ends at {covering.until}; it takes no traffic from then on"
            p.alarms.open(version.model, ENDS, version.digest, reason)

    def _in_traffic(self) -> list[ModelVersion]:
        """Imported versions in a traffic plan, and those that a crash kept from being taken out whole: they count as serving."""
        return [v for v in self._p.withdrawing.in_traffic() if v.imported]

    def _uncovered(self, version: ModelVersion) -> str:
        """Why nothing covers what a version is missing now; empty when something does, or it misses nothing."""
        proven = self._p.evidence.proven(version.digest)
        if not missing(version, proven.verdicts):
            return ""
        standing = self._p.registry.standing(version, proven)
        return "" if standing.waiver is not None else standing.problem

    def _told(self, waiver: Waiver) -> dict[str, Any]:
        content: dict[str, Any] = msgspec.to_builtins(waiver.content)
        return {
            **content,
            "state": waiver.state(iso(self._p.clock.now())),
            "statement": waiver.statement,
            "revoked": msgspec.to_builtins(waiver.revoked),
            "words": waiver.content.words,
        }
