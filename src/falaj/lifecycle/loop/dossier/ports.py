"""Whom a dossier is collected from."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from falaj.governance.changes.service import ChangeService
from falaj.governance.signing.signer import EnvelopeSigner
from falaj.governance.signing.trust import KeyRecord
from falaj.lifecycle.data.service import DataService
from falaj.lifecycle.evidence.documents.facts import Library
from falaj.lifecycle.evidence.service import EvidenceService
from falaj.lifecycle.registry.ports import Blobs
from falaj.lifecycle.registry.service import RegistryService
from falaj.lifecycle.registry.waivers import WaiverService


class Ports(msgspec.Struct, frozen=True):
    """Whom a dossier is collected from. `keys` are all public keys, `libraries` what a runtime of that digest holds.

    `signer` signs the manifest; `tool` is the version of Falaj that writes the documents.
    """

    registry: RegistryService
    evidence: EvidenceService
    waivers: WaiverService
    changes: ChangeService
    data: DataService
    blobs: Blobs
    keys: Callable[[], Sequence[KeyRecord]]
    signer: EnvelopeSigner
    libraries: Callable[[str], tuple[Library, ...]]
    tool: str
