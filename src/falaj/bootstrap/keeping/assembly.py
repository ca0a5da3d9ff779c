"""Backups and keys of an open home, put together for its control plane."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from fastapi import APIRouter

from falaj.bootstrap.keeping.copying import HomeCopier, Parts
from falaj.governance.audit.publisher import Publisher
from falaj.governance.audit.rotating import LogKeyService
from falaj.governance.door import Door
from falaj.governance.identity.guard import Guard
from falaj.governance.signing import recovery
from falaj.governance.signing.keys import KeyRing
from falaj.governance.signing.service import KeyService
from falaj.governance.signing.signer import EnvelopeSigner
from falaj.governance.signing.storekeys import StoreKeys
from falaj.kernel.clock import SystemClock
from falaj.kernel.errors import Integrity
from falaj.kernel.settings import Settings
from falaj.lifecycle.features.service import FeatureService
from falaj.lifecycle.loop.keeping import routes
from falaj.lifecycle.loop.keeping.service import BackupService, KeysService
from falaj.storage.sql.sqlite import SqliteDatabase


class Open(Protocol):
    """The parts of an open home that these stand on."""

    settings: Settings
    database: SqliteDatabase
    publisher: Publisher
    door: Door
    keys: KeyRing
    signing: KeyService
    log_keys: LogKeyService
    store_keys: StoreKeys
    signer: EnvelopeSigner
    features: FeatureService


class Keeping:
    """`stop` ends a backup that is being taken."""

    def __init__(self, home: Open) -> None:
        a, clock = home, SystemClock()
        ids = recovery.public_ids(recovery.read_folder(a.keys.folder))
        self.copier = HomeCopier(
            Parts(a.settings.home, a.database, a.publisher, a.signer, ids, a.features.copy_online, clock, a.store_keys)
        )
        self.backups = BackupService(a.door, self.copier, a.settings.home, clock)
        self.keys = KeysService(a.door, ids)
        self.stop = self.backups.stop

        def follow() -> None:
            ids.update(recovery.public_ids(recovery.read_folder(a.keys.folder)))

        a.signing.on_change(follow)
        a.log_keys.on_change(follow)
        a.store_keys.on_change(follow)

    def routers(self, guard: Guard) -> list[APIRouter]:
        """The routes."""
        return [routes.build(self.backups, self.keys, guard)]


def check_keys(keys: Path, database: Path) -> None:
    """A home that holds something must have its keys: new ones would open nothing. Raises `Integrity`."""
    if database.exists() and not keys.exists():
        raise Integrity(
            "the home's keys are missing",
            hint="bring them back: `falaj keys restore FILE`; new keys cannot open what the old ones protect",
            code="key_missing",
        )
