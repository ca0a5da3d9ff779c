"""Collects everything that speaks for a version, each thing verified from its bytes now, and refuses when one does not hold."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from falaj.governance.door import Door, Intent
from falaj.governance.signing.dsse import load_public_key
from falaj.governance.signing.model_signature import verify_model_signature
from falaj.governance.signing.trust import KeyRecord
from falaj.kernel.access import Principal, Resource
from falaj.kernel.digests import canonical_json, manifest_digest, sha256
from falaj.kernel.environments import home_of
from falaj.kernel.errors import FalajError, Integrity
from falaj.lifecycle.evidence.documents.bom import bom
from falaj.lifecycle.evidence.documents.card import card
from falaj.lifecycle.evidence.model import Finding, Statement
from falaj.lifecycle.evidence.statements import PROVENANCE
from falaj.lifecycle.loop.dossier.knowing import known, payload
from falaj.lifecycle.loop.dossier.model import (
    EVIDENCE,
    EVIDENCE_EXPORT,
    MANIFEST,
    MODEL,
    MODEL_SIGNATURE,
    SIGNATURE,
    WAIVERS,
    Item,
    checks,
    item,
    key_file,
    keys_document,
    manifest_text,
    tar,
)
from falaj.lifecycle.loop.dossier.ports import Ports
from falaj.lifecycle.registry.model import ModelVersion

_UNSAFE = re.compile(r"[^a-z0-9_.]+")


class Dossier(msgspec.Struct, frozen=True):
    """A folder that is ready to be handed out."""

    alias: str
    digest: str
    items: tuple[Item, ...]


class DossierService:
    """Hands out a version with everything that speaks for it."""

    def __init__(self, door: Door, ports: Ports) -> None:
        self._door = door
        self._p = ports

    def collect(self, actor: Principal, model: str, number: int, region: str | None = None) -> Dossier:
        """The folder of a version, authorised and audited before anything is read. `region` is where it goes; None: it
        stays where the home is.

        Raises `NotFound`, `Denied`, and `Integrity` (audited too) when anything of it does not hold.
        """
        version = self._p.registry.version(model, number)
        detail = {"digest": version.digest, "evidence": version.evidence}
        goes = {} if region is None else {"region": region}
        resource = Resource("ModelVersion", version.alias, goes)
        intent = Intent(actor, EVIDENCE_EXPORT, resource, detail={**detail, **goes})
        self._door.read(intent)
        try:
            return Dossier(version.alias, version.digest, self._items(version))
        except FalajError as e:
            error = Integrity(f"{version.alias} is not handed out: {e.message}", hint=e.hint, code=e.code)
            self._door.refuse(intent, error)
            raise error from e

    def tar(self, dossier: Dossier) -> Iterator[bytes]:
        """The folder as it travels."""
        return tar(dossier.items, self._p.blobs.get)

    def _items(self, version: ModelVersion) -> tuple[Item, ...]:
        p, keys = self._p, tuple(self._p.keys())
        findings = self._findings(version)
        model_key = self._check_model(version, keys)
        facts = known(p, version, findings)
        manifest_key = next(k for k in keys if k.name == "attestation" and not k.until)
        decisions = [msgspec.to_builtins(a) for a in p.changes.of(version.digest)]
        waived = [msgspec.to_builtins(w) for w in p.waivers.of(version.digest)]
        found = [
            *(Item(f"{MODEL}/{f.path}", f.size, f.sha256) for f in version.files),
            item(MODEL_SIGNATURE, p.blobs.get(version.signature)),
            *self._evidence(findings),
            *self._passed(version),
            *(item(key_file(k), k.pem.encode()) for k in keys),
            item("keys.json", _pretty(keys_document(keys))),
            item("approvals.json", _pretty({"version": version.alias, "digest": version.digest, "approvals": decisions, "waivers": waived})),
            item("bom.cdx.json", _pretty(bom(facts, p.tool))),
            item("MODEL_CARD.md", card(facts, checks(manifest_key, key_file(model_key))).encode()),
        ]  # fmt: skip
        listed = manifest_text(found)
        return (*found, item(MANIFEST, listed), item(SIGNATURE, p.signer.sign_bytes(listed)))

    def _findings(self, version: ModelVersion) -> list[tuple[Statement, Finding | None]]:
        """The version's evidence, every statement of it verified, and the set that it was registered with."""
        found = self._p.evidence.findings(version.digest)
        proven = self._p.evidence.proven(version.digest)
        if not found or proven.evidence != version.evidence:
            raise Integrity(
                "its evidence is not the set that it was registered with",
                hint=f"see `falaj evidence show {version.alias}`; train it again",
                code="evidence_changed",
            )
        return found

    def _check_model(self, version: ModelVersion, keys: Sequence[KeyRecord]) -> KeyRecord:
        """The key that signed the model. Raises `Integrity` unless bytes, digest and signature agree."""
        for file in version.files:
            self._p.blobs.get(file.sha256)  # whole, and what its name says; else raises
        if manifest_digest(version.files) != version.digest:
            raise Integrity(
                "its files are not those that its digest names", hint="register it again", code="files_differ"
            )
        self._p.registry.check_signature(version)
        signature = self._p.registry.signature(version)
        for key in (k for k in keys if k.name == "model"):
            try:
                verify_model_signature(signature, version.files, [load_public_key(key.pem)])
            except FalajError:
                continue
            return key
        raise Integrity("no key that is known signed it", hint="train it again, which signs it", code="bad_signature")

    def _evidence(self, findings: Sequence[tuple[Statement, Finding | None]]) -> Iterator[Item]:
        for number, (filed, _) in enumerate(findings, 1):
            envelope = self._p.blobs.get(filed.envelope)
            yield item(f"{EVIDENCE}/{number:02}-{_slug(filed.gate)}.json", envelope)
            if filed.predicate_type == PROVENANCE:
                yield item("provenance.json", payload(envelope))

    def _passed(self, version: ModelVersion) -> Iterator[Item]:
        """Admissions, rehearsals and waivers, as they were signed."""
        p, count = self._p, dict[str, int]()
        for admission, envelope in p.registry.signed_admissions(version.digest):
            count[admission.environment] = number = count.get(admission.environment, 0) + 1
            name = f"admission-{number:02}" if admission.environment == home_of(admission.environment) else (
                f"{admission.environment}-admission-{number:02}"
            )  # fmt: skip
            yield item(f"attestations/{home_of(admission.environment)}/{name}.json", p.blobs.get(envelope))
        for rehearsal, envelope in p.registry.signed_rehearsals(version.digest):
            yield item(f"attestations/{rehearsal.environment}/rehearsal.json", p.blobs.get(envelope))
        for number, (_, statement) in enumerate(p.waivers.signed(version.digest), 1):
            yield item(f"{WAIVERS}/waiver-{number:02}.json", p.blobs.get(statement))


def _slug(gate: str) -> str:
    return _UNSAFE.sub("-", gate.lower()).strip("-.")[:60] or sha256(gate.encode())[7:19]


def _pretty(document: Any) -> bytes:
    """JSON for people as well: sorted, indented."""
    return msgspec.json.format(canonical_json(document), indent=2) + b"\n"
