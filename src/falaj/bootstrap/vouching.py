"""What outsiders are handed, and the keys that vouch for it, put together for an open home's control plane."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Protocol

from fastapi import APIRouter

import falaj
from falaj.bootstrap.runtime import libraries
from falaj.governance.audit.rotating import LogKeyService
from falaj.governance.changes.service import ChangeService
from falaj.governance.door import Door
from falaj.governance.identity.guard import Guard
from falaj.governance.signing.service import KeyService
from falaj.governance.signing.signer import EnvelopeSigner
from falaj.governance.signing.storekeys import Rotated, StoreKeys
from falaj.kernel.access import Principal
from falaj.kernel.environments import PRODUCTION, STAGING
from falaj.lifecycle.data.service import DataService
from falaj.lifecycle.evidence.service import EvidenceService
from falaj.lifecycle.loop import revoking
from falaj.lifecycle.loop.dossier import routes as dossier_routes
from falaj.lifecycle.loop.dossier.ports import Ports
from falaj.lifecycle.loop.dossier.service import DossierService
from falaj.lifecycle.loop.routes import keys as key_routes
from falaj.lifecycle.loop.withdrawing import Withdrawing
from falaj.lifecycle.registry.service import RegistryService
from falaj.lifecycle.registry.waivers import WaiverService
from falaj.lifecycle.rollout.service import RolloutService
from falaj.lifecycle.serving.model import trust_file
from falaj.lifecycle.serving.service import ServingService, write_trust
from falaj.storage.blobs.local import LocalBlobs


class Open(Protocol):
    """The parts of an open home that these stand on."""

    door: Door
    signing: KeyService
    log_keys: LogKeyService
    store_keys: StoreKeys
    signer: EnvelopeSigner
    blobs: LocalBlobs
    registry: RegistryService
    evidence: EvidenceService
    waivers: WaiverService
    changes: ChangeService
    data: DataService
    rollouts: dict[str, RolloutService]
    serving: ServingService
    staging: ServingService
    withdrawing: Withdrawing


class Vouching:
    """`routers` gives the routes."""

    def __init__(self, home: Open) -> None:
        h = self._h = home
        self.dossiers = DossierService(
            h.door,
            Ports(
                h.registry, h.evidence, h.waivers, h.changes, h.data, h.blobs, h.signing.records, h.signer,
                partial(libraries, h.blobs), falaj.__version__,
            ),
        )  # fmt: skip
        serving = {STAGING: h.staging, PRODUCTION: h.serving}
        self.revoking = revoking.RevokingService(
            revoking.Ports(h.signing, h.registry, h.evidence, h.withdrawing, serving, self._write_trust)
        )

        h.store_keys.on_change(self.revoking.follow_store_keys)

    def routers(self, guard: Guard) -> list[APIRouter]:
        """The routes."""
        return [
            dossier_routes.build(self.dossiers, guard),
            key_routes.build(
                key_routes.Ports(
                    self._h.signing, self._h.log_keys, self.revoking, self._rotate_kek, self._h.store_keys.told
                ),
                guard,
            ),
        ]

    def _rotate_kek(self, actor: Principal, reason: str) -> Rotated:
        return self._h.store_keys.rotate(self._h.door, actor, reason)

    def _write_trust(self) -> None:
        """Say to each data plane whom to trust; a running one follows."""
        for serving in (self._h.staging, self._h.serving):
            target = serving.target
            trust = trust_file(target.environment, self._h.signing.records(), self._h.store_keys.reader())
            write_trust(Path(target.folder), trust)
