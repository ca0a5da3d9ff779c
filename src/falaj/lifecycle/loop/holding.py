"""Quarantine, and what follows from it in the traffic: a version that is held answers nobody any more."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from falaj.governance.changes.holding import QuarantineService
from falaj.governance.changes.holds import DATASET, QUARANTINE, VERSION, Hold, check_held, holding
from falaj.governance.door import Door, Intent
from falaj.kernel.access import SYSTEM, Principal, Resource
from falaj.kernel.errors import NotFound
from falaj.lifecycle.data.service import DataService
from falaj.lifecycle.loop.restrictions import DataFacts
from falaj.lifecycle.loop.withdrawing import Withdrawing
from falaj.lifecycle.registry.model import ModelVersion
from falaj.lifecycle.registry.service import RegistryService

Withdraw = Callable[[ModelVersion, str, str], list[str]]


class Ports(msgspec.Struct, frozen=True):
    """Whom it concerns. `withdraw` takes a version out of the traffic (why, by whom); returns the environments that it
    was in."""

    quarantine: QuarantineService
    facts: DataFacts
    data: DataService
    registry: RegistryService
    withdrawing: Withdrawing
    withdraw: Withdraw
    door: Door


class HoldingService:
    """Things put into quarantine, and let out."""

    def __init__(self, ports: Ports) -> None:
        self._p = ports

    def all(self) -> list[Hold]:
        """Newest first."""
        return self._p.quarantine.all()

    def put(self, actor: Principal, kind: str, name: str, reason: str) -> dict[str, Any]:
        """Put a version or a dataset into quarantine; a version leaves the traffic.

        Returns what was written down, the environments that the version was in, and the versions that were trained on a
        dataset from there on: they stay where they are, and cannot be approved, admitted or scored with any more.
        """
        self._p.door.check(Intent(actor, QUARANTINE, Resource("Quarantine", name[:140])))
        check_held(kind, name)
        version = self._find(kind, name)
        hold = self._p.quarantine.put(actor, kind, name, reason)
        out = self._p.withdraw(version, _why(hold), actor.name) if version else []
        return {**msgspec.to_builtins(hold), "taken_out": out, "affected": self._affected(hold)}

    def lift(self, actor: Principal, hold_id: str, reason: str) -> Hold:
        """Let something out. A version that left the traffic comes back by an approval, as any does."""
        return self._p.quarantine.lift(actor, hold_id, reason)

    def look(self) -> None:
        """Take out of the traffic what a crash left in it."""
        held = self._p.quarantine.holding
        for version in self._p.withdrawing.in_traffic():
            for hold in held((version.alias,)):
                self._p.withdraw(version, _why(hold), SYSTEM.name)

    def _find(self, kind: str, name: str) -> ModelVersion | None:
        """The version that is meant. Raises `NotFound` for what is not there."""
        of, _, number = name.rpartition("@")
        if kind == VERSION:
            return self._p.registry.version(of, int(number))
        if all(v.version != int(number) for v in self._p.data.versions(of)):
            raise NotFound(
                f"there is no version {name} of a dataset",
                hint=f"`falaj data log {of}` lists them",
                code="no_dataset_version",
            )
        return None

    def _affected(self, hold: Hold) -> list[str]:
        if hold.kind != DATASET:
            return []
        versions = (v for model in self._p.registry.models() for v in self._p.registry.versions(model))
        return sorted(v.alias for v in versions if v.number and holding([hold], (), self._p.facts.read(v)))


def _why(hold: Hold) -> str:
    return f"{hold.by} put it into quarantine: {hold.reason}"[:500]
