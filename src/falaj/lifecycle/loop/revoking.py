"""What follows when a signing key is replaced or revoked: data planes trust the new one, what no longer holds takes no traffic.

The order matters. The keys change in one transaction; then what no longer holds is taken out of the plans, bundles are
signed by the key that signs now, and the trust roots say whom to believe. A crash in between is carried on at the next
start, and a data plane that was told nothing serves what it had: until it is told, or its admissions end.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from falaj.governance.signing.service import Ended, KeyService
from falaj.kernel.access import SYSTEM, Principal
from falaj.kernel.errors import FalajError
from falaj.lifecycle.loop.withdrawing import Withdrawal, Withdrawing
from falaj.lifecycle.registry.model import ModelVersion, unpassed, unwaived
from falaj.lifecycle.registry.ports import VerifiedEvidence
from falaj.lifecycle.registry.service import RegistryService
from falaj.lifecycle.serving.service import ServingService

_SECONDS = 5.0  # that running data planes get to follow
_TRAIN = "train it again, which measures and signs it anew: `falaj train {model}`"
_STAGING = "carry it on again: `falaj promote {alias} --to staging`, then `falaj rollout start {alias} --at-once`"
_START = "admit it again: `falaj rollout start {alias} --at-once`"


class Affected(msgspec.Struct, frozen=True):
    """A version that a revocation touches: what of it no longer counts, where it took traffic, and what to do."""

    version: str
    digest: str
    lost: tuple[str, ...]
    taken_out: tuple[str, ...]
    hint: str


class Ports(msgspec.Struct, frozen=True):
    """Whom it concerns. `serving` by environment; `trust` writes the trust root of each data plane's folder."""

    keys: KeyService
    registry: RegistryService
    evidence: VerifiedEvidence
    withdrawing: Withdrawing
    serving: Mapping[str, ServingService]
    trust: Callable[[], None]


class RevokingService:
    """People's decisions about signing keys, and what follows from them."""

    def __init__(self, ports: Ports) -> None:
        self._p = ports

    def rotate(self, actor: Principal, name: str, reason: str) -> Ended:
        """Let a new key take a key's place; every data plane follows. See `KeyService.rotate`."""
        ended = self._p.keys.rotate(actor, name, reason)
        self._tell(actor.name)
        return ended

    def follow_store_keys(self) -> None:
        """The stores have new keys: data planes are told them before anything is written under them."""
        self._tell(SYSTEM.name)

    def revoke(self, actor: Principal, key: str, since: str, reason: str) -> dict[str, Any]:
        """Let nothing count that a key signed at `since` or later, and take out of traffic what rests on it.

        See `KeyService.revoke`.
        """
        ended = self._p.keys.revoke(actor, key, since, reason)
        affected = self.look(actor.name)
        behind = self._tell(actor.name)
        told = {"affected": [msgspec.to_builtins(a) for a in affected], "behind": behind}
        return {**msgspec.to_builtins(ended), **told}

    def resume(self) -> None:
        """Carry out what a crash cut short."""
        if self._p.keys.revoked():
            self.look(SYSTEM.name)

    def look(self, actor: str) -> list[Affected]:
        """Every version that does not hold by the keys that count; those in traffic are taken out of it."""
        p, found = self._p, []
        serving = {v.digest for v in p.withdrawing.in_traffic()}
        for version in (v for model in p.registry.models() for v in p.registry.versions(model)):
            if not version.number or version.state in ("refused", "rejected"):
                continue
            remake, admissions = self._lost(version)
            if not (remake or admissions):
                continue
            lost = (*remake, *(f"admission to {name}" for name in admissions))
            why = f"a key was revoked: {', '.join(lost)} no longer counts"
            state = "refused" if remake else ("approved" if version.state == "serving" else version.state)
            out: list[str] = []
            if version.digest in serving:
                out = p.withdrawing.take_out(Withdrawal(version, why, actor, state))
            elif remake:
                p.withdrawing.refuse(version, why, actor)
            found.append(
                Affected(version.alias, version.digest, lost, tuple(out), _hint(version, bool(remake), admissions))
            )
        return found

    def _lost(self, version: ModelVersion) -> tuple[list[str], list[str]]:
        """What of a version no longer holds: what only making it anew brings back, and the environments to admit it to again."""
        p, remake = self._p, []
        try:
            p.registry.check_signature(version)
        except FalajError:
            remake.append("model signature")
        verdicts = p.evidence.proven(version.digest).verdicts
        if unpassed(unwaived(version, verdicts), verdicts):
            remake.append("evidence")
        admissions = [
            e for e in p.registry.let_in(version.digest) if p.registry.proven_admission(version.digest, e) is None
        ]
        return remake, admissions

    def _tell(self, actor: str) -> list[dict[str, str]]:
        """Bundles by the key that signs now, then the trust roots that say so; waits until running data planes follow, and
        returns the workers that do not in time: each with its environment, and why."""
        p = self._p
        published = {name: serving.publish(actor) for name, serving in p.serving.items()}
        p.trust()
        return [
            {"environment": name, "worker": worker, "why": why}
            for name, generation in published.items()
            for worker, why in p.serving[name].behind(generation, p.serving[name].settle(generation, _SECONDS)).items()
        ]


def _hint(version: ModelVersion, remake: bool, admissions: list[str]) -> str:
    if remake:
        return _TRAIN.format(model=version.model)
    return (_START if admissions == ["production"] else _STAGING).format(alias=version.alias)
