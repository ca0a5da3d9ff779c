"""For `proofs/admission.py`: what speaks for a version, item by item, and every way to change a document."""

from __future__ import annotations

import base64
import copy
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy import Table, delete, insert, select, update

from falaj.bootstrap.control_plane import actions
from falaj.governance.changes.store import approvals
from falaj.governance.signing.keys import plane_key
from falaj.governance.signing.signer import EnvelopeSigner
from falaj.kernel.access import SYSTEM
from falaj.kernel.digests import canonical_json
from falaj.kernel.environments import ENVIRONMENTS, PRODUCTION, STAGING
from falaj.kernel.errors import Denied
from falaj.lifecycle.evidence.store import statements_table
from falaj.lifecycle.registry.model import ModelVersion
from falaj.lifecycle.registry.store import admissions, rehearsals, versions
from falaj.lifecycle.rollout.model import all_to
from falaj.lifecycle.serving.model import BUNDLE_TYPE
from falaj.lifecycle.serving.plane.generations import Generations
from falaj.lifecycle.serving.plane.loading import Loader
from falaj.lifecycle.serving.plane.verify import read_trust
from falaj.storage.sql.database import Tx
from tests.lifecycle.house import NAMES, House

Json = Any
OWN, ABSENT, OTHER = "own", "absent", "other"
VALUES = (OWN, ABSENT, OTHER)
"""An item is this version's own, not there, or another version's valid one in its place."""
ITEMS = (*NAMES, "build", "files", "signature", "admission", "rehearsal", "approval")
"""What the registry looks at before it lets a version into production."""
PLANE_ITEMS = ("model.onnx", "profile.json", "signature.json", "signature", "admission")
"""What a data plane looks at before it loads one."""
HINTS = ("keyid", "verificationMaterial", "signed_at")
"""What no signature covers and nobody looks at: DSSE's hint at the key, Sigstore's, and the time that only a key which came to an
end is compared with. Changing it changes nothing."""
BINDING: dict[str, tuple[str, ...]] = {
    "gate": ("_type", "subject", "predicateType", "predicate.result", "predicate.configuration.1.annotations.verdict"),
    "admission": (
        "_type", "subject.0.digest", "predicateType", "predicate.properties", "predicate.falaj.digest", "predicate.falaj.environment",
        "predicate.falaj.files", "predicate.falaj.evidence",
    ),
    "rehearsal": (
        "_type", "subject.0.digest", "predicateType", "predicate.properties", "predicate.falaj.digest", "predicate.falaj.environment",
        "predicate.falaj.evidence", "predicate.falaj.passed",
    ),
    "admitted": (
        "_type", "subject.0.digest", "predicateType", "predicate.properties", "predicate.falaj.digest", "predicate.falaj.model",
        "predicate.falaj.alias", "predicate.falaj.environment", "predicate.falaj.files",
        "predicate.falaj.waiver", "predicate.falaj.waived",
    ),
}  # fmt: skip
"""What must fit even in a statement that the right key signed; `admitted` is a data plane's admission."""
_COLUMNS = {"files": {"files": "[]"}, "signature": {"signature": "", "signed_at": ""}}
_FILED = {"admission": admissions, "rehearsal": rehearsals}


class Registry:
    """The registry of a house, with what speaks for one version changed behind its back, item by item."""

    def __init__(self, house: House, version: ModelVersion, other: ModelVersion) -> None:
        self.house = house
        self.version = version
        self._database = house.plane.database
        self.rows = {n: (self._row(n, version.digest, ""), self._row(n, other.digest, "its ")) for n in ITEMS}

    def admits(self, chosen: Mapping[str, str]) -> bool:
        """Whether production lets the version in on these items; an admission is taken away again."""
        self._database.change(lambda tx: self._lay(tx, chosen))
        return self._asked()

    def admits_with(self, item: str, envelope: Json) -> bool:
        """Whether production lets it in with a document in the place of an item's own."""
        blob = self.house.plane.blobs.put(canonical_json(envelope))
        here = {"signature": blob} if item == "signature" else {"envelope": blob}

        def lay(tx: Tx) -> None:
            self._lay(tx, dict.fromkeys(ITEMS, OWN))
            table, where = self._place(item)
            assert tx.execute(update(table).where(*where).values(**here)).rowcount == 1

        self._database.change(lay)
        return self._asked()

    def document(self, item: str, *, other: bool = False) -> Json:
        """An item's document: its envelope, or the signature bundle."""
        row = self.rows[item][other]
        blob = row["signature"] if item == "signature" else row["envelope"]
        return msgspec.json.decode(self.house.plane.blobs.get(blob))

    def restore(self) -> None:
        """Everything as it was."""
        self._database.change(lambda tx: self._lay(tx, dict.fromkeys(ITEMS, OWN)))

    def _asked(self) -> bool:
        try:
            self.house.plane.registry.admit(self.version.digest, PRODUCTION, SYSTEM)
        except Denied:
            return False
        c = admissions.c
        gone = delete(admissions).where(c.digest == self.version.digest, c.environment == PRODUCTION)
        self._database.change(lambda tx: tx.execute(gone).rowcount)
        return True

    def _lay(self, tx: Tx, chosen: Mapping[str, str]) -> None:
        digest = self.version.digest
        for table in (statements_table, rehearsals, approvals):
            tx.execute(delete(table).where(table.c.digest == digest))
        tx.execute(delete(admissions).where(*self._place("admission")[1]))
        for name, value in chosen.items():
            table, where = self._place(name)
            row = {OWN: self.rows[name][0], ABSENT: {}, OTHER: self.rows[name][1]}[value]
            if name in _COLUMNS:
                values = {column: row.get(column, empty) for column, empty in _COLUMNS[name].items()}
                tx.execute(update(table).where(*where).values(**values))
            elif row:
                tx.execute(insert(table).values(**{**row, "digest": digest}))

    def _row(self, item: str, digest: str, prefix: str) -> dict[str, Any]:
        table, where = self._place(item, digest)
        row = self._database.read(lambda tx: tx.execute(select(table).where(*where)).mappings().one())
        named = {"id": prefix + row["id"]} if table is approvals else {}
        return {**{k: v for k, v in row.items() if k != "id"}, **named}

    def _place(self, item: str, digest: str = "") -> tuple[Table, tuple[Any, ...]]:
        digest = digest or self.version.digest
        if item in ("files", "signature"):
            return versions, (versions.c.digest == digest,)
        if item == "approval":
            return approvals, (approvals.c.digest == digest,)
        if item in _FILED:
            table = _FILED[item]
            return table, (table.c.digest == digest, table.c.environment == STAGING)
        return statements_table, (statements_table.c.digest == digest, statements_table.c.gate == item)


class Plane:
    """A data plane's own verification and loading, over bundles that are put together item by item."""

    def __init__(self, house: House, version: ModelVersion, other: ModelVersion, scratch: Path) -> None:
        serving, layout = house.plane.serving, house.plane.layout
        self.signer = EnvelopeSigner(house.plane.keys.of(PRODUCTION))
        for v in (version, other):
            house.plane.registry.admit(v.digest, PRODUCTION, SYSTEM)
        self.own, self.other = (serving.release(v.digest, serving.target) for v in (version, other))
        serving.publish("owner")
        newest = serving.newest()
        assert newest is not None
        plans = (all_to(version.model, version.digest),)
        self.bundle = msgspec.structs.replace(newest, plans=plans, releases=(self.own,))
        self._trust, self._key = read_trust(layout.plane / "trust.json"), plane_key(layout.plane)
        self._blobs, self._clock = layout.blobs, house.plane.clock
        self._scratch = scratch
        self._number = 0

    def takes(self, release: Json) -> bool:
        """Whether the version is loaded from a release in a bundle that the right key signed."""
        return self.takes_bundle({**msgspec.to_builtins(self.bundle), "releases": [release]})

    def takes_bundle(self, bundle: Json, signer: EnvelopeSigner | None = None) -> bool:
        return self.takes_envelope((signer or self.signer).sign(BUNDLE_TYPE, canonical_json(bundle)))

    def takes_envelope(self, envelope: Json) -> bool:
        """Whether a data plane that knows nothing else has a version in service after this bundle."""
        self._number += 1
        folder = self._scratch / str(self._number)
        folder.mkdir()
        (folder / "bundle.json").write_bytes(msgspec.json.encode(envelope))
        loader = Loader(self._trust, self._key, self._blobs)
        plane = Generations(folder, self._trust, self._key, loader, self._clock, actions())
        plane.start()
        shutil.rmtree(folder)
        return any(True for _ in plane.state.served())

    def release(self, chosen: Mapping[str, str]) -> Json:
        """The version's release, with items of it left out or replaced by the other version's."""
        own, other = msgspec.to_builtins(self.own), msgspec.to_builtins(self.other)
        files = []
        for mine, its in zip(own["files"], other["files"], strict=True):
            value = chosen[mine["path"]]
            files += [] if value == ABSENT else [mine if value == OWN else its]
        found = {**own, "files": files}
        for name in ("signature", "admission"):
            found[name] = {OWN: own[name], ABSENT: {}, OTHER: other[name]}[chosen[name]]
        return found


Path_ = tuple[str | int, ...]


def mutants(document: Json, other: Json = None, at: Path_ = ()) -> Iterator[tuple[Path_, Json]]:
    """(where, the document with one field changed): left out, emptied, another value, the other document's value."""
    for key, value in list(document.items() if isinstance(document, dict) else enumerate(document)):
        its = _at(other, key)
        for changed in _changes(value, its):
            copied = copy.copy(document)
            if changed is _GONE:
                del copied[key]
            else:
                copied[key] = changed
            yield (*at, key), copied
        if isinstance(value, dict | list):
            for where, inner in mutants(value, its, (*at, key)):
                copied = copy.copy(document)
                copied[key] = inner
                yield where, copied


_GONE = object()


def _changes(value: Json, its: Json) -> Iterator[Json]:
    yield _GONE
    yield from (changed for changed in (*_altered(value), its) if changed is not None and changed != value)


def _altered(value: Json) -> Iterator[Json]:
    if isinstance(value, bool):
        yield not value
    elif isinstance(value, int | float):
        yield value + 1
        yield str(value)
    elif isinstance(value, str):
        yield from ("", value + "x", (chr(ord(value[0]) ^ 1) + value[1:]) if value else "y")
    elif value is None:
        yield "x"
    else:
        yield type(value)()
        yield "x"


def _at(other: Json, key: str | int) -> Json:
    if isinstance(other, dict):
        return other.get(key)
    return other[key] if isinstance(other, list) and isinstance(key, int) and key < len(other) else None


def payload_of(envelope: Json) -> Json:
    """What an envelope holds."""
    return msgspec.json.decode(base64.b64decode(envelope["payload"]))


def with_payload(envelope: Json, payload: Json) -> Json:
    """An envelope with another payload under the same signatures."""
    return {**envelope, "payload": base64.b64encode(canonical_json(payload)).decode()}


def unsigned(envelope: Json, other: Json) -> Iterator[tuple[Path_, Json]]:
    """An envelope with one field of it, or of what it holds, changed by somebody without a key."""
    yield from mutants(envelope, other)
    for where, changed in mutants(payload_of(envelope), payload_of(other), ("payload",)):
        yield where, with_payload(envelope, changed)


def signed_by_others(house: House, envelope: Json, own: str) -> Iterator[tuple[Path_, Json]]:
    """The same statement, truly signed by every other key of the house, and by a stranger's."""
    ring = house.plane.keys
    keys = {name: ring.of(name) for name in ENVIRONMENTS} | {"attestation": ring.attestation, "log": ring.log}
    keys["stranger"] = Ed25519PrivateKey.generate()
    for name, key in keys.items():
        if name != own:
            yield (
                ("signed by", name),
                EnvelopeSigner(key).sign(envelope["payloadType"], base64.b64decode(envelope["payload"])),
            )


def binding(envelope: Json, other: Json, signer: EnvelopeSigner, kind: str) -> Iterator[tuple[Path_, Json]]:
    """The statement with one field changed that must fit, truly signed by the right key; and as another type."""
    yield ("signed", "payloadType"), signer.sign("application/json", base64.b64decode(envelope["payload"]))
    for where, changed in mutants(payload_of(envelope), payload_of(other)):
        name = ".".join(map(str, where))
        if same(payload_of(envelope), changed, where):
            continue
        if any(name == b or name.startswith(f"{b}.") for b in BINDING[kind]):
            yield ("signed", *where), signer.sign(envelope["payloadType"], canonical_json(changed))
    if "expires_at" in payload_of(envelope)["predicate"].get("falaj", {}):
        for over in ("2001-01-01T00:00:00.000Z", "", "never"):
            expired = payload_of(envelope)
            expired["predicate"]["falaj"]["expires_at"] = over
            yield ("signed", "expires_at"), signer.sign(envelope["payloadType"], canonical_json(expired))


def same(document: Json, changed: Json, where: Path_) -> bool:
    """Whether only something empty was left out, which says the same."""
    for key in where[:-1]:
        document, changed = document[key], changed[key]
    left_out = isinstance(document, dict) and where[-1] not in changed
    return left_out and document[where[-1]] in ("", [], None)


def hint(where: Path_) -> bool:
    """Whether nobody looks at this field."""
    return any(part in HINTS for part in where)
