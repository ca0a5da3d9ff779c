"""Databases, the audit log, keys, blobs: what everything else is measured by."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import msgspec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from falaj.bootstrap.doctor.model import BROKEN, NOTE, PROBLEM, WELL, Finding, Patient
from falaj.bootstrap.keeping.layout import DATABASES
from falaj.governance.audit import model as audit_model
from falaj.governance.audit.note import verifier_of
from falaj.governance.audit.publisher import all_rows
from falaj.governance.audit.sharded import newest_folder, verify_log, verify_rows
from falaj.governance.audit.store import SqlAuditStore
from falaj.governance.audit.verify import CHECKPOINT, VKEY, heads
from falaj.governance.signing.dsse import STATEMENT_TYPE, PublicKey, load_public_key, verify_envelope
from falaj.governance.signing.keys import SigningKey, public_pem
from falaj.kernel.digests import sha256
from falaj.kernel.environments import ENVIRONMENTS, PRODUCTION
from falaj.kernel.errors import FalajError, Integrity, NotFound, Unavailable
from falaj.lifecycle.serving.model import BUNDLE_TYPE
from falaj.lifecycle.serving.process import plane_folder
from falaj.storage.blobs.format import unwrap
from falaj.storage.blobs.local import LocalBlobs, blob_path
from falaj.storage.sql import snapshot
from falaj.storage.sql.migrate import revisions

_RESTORE = "change nothing, copy the home as it is, and restore it from a backup: falaj restore"
_KEYS = "bring the keys back: falaj keys restore FILE"
_TRIES = 5
_LEAST_BLOB = 64  # bytes: magic, wrapped key, one chunk


def databases(patient: Patient) -> Iterator[Finding]:
    """Whether SQLite can read every page."""
    for name in DATABASES:
        path = patient.home / name
        if not path.exists():
            yield Finding("databases", "database_missing", BROKEN, f"{name} is missing", _RESTORE)
            continue
        try:
            snapshot.check(path)
        except Integrity as e:
            yield Finding("databases", "database_damaged", BROKEN, e.message, _RESTORE)
        else:
            yield Finding("databases", "database", WELL, f"{name} holds together")


def schema(patient: Patient) -> Iterator[Finding]:
    """Which release the home is of."""
    ((current,),) = patient.rows("SELECT version_num FROM alembic_version")
    known = revisions()
    if current not in known:
        yield Finding(
            "schema", "home_is_newer", PROBLEM, f"the home has schema {current}, this release knows {known[-1]}",
            "use the release that wrote it, or a newer one; nothing was changed",
        )  # fmt: skip
    elif current != known[-1]:
        yield Finding(
            "schema", "home_is_older", NOTE, f"the home has schema {current}; {known[-1]} comes with its next start",
            "take a backup first if you may want to go back to the older release",
        )  # fmt: skip
    else:
        yield Finding("schema", "schema", WELL, f"schema {current} is this release's")


def audit_log(patient: Patient) -> Iterator[Finding]:
    """The published log and the rows, from their bytes, against the signed checkpoint."""
    folder, store = patient.home / "audit", SqlAuditStore()
    if not (folder / VKEY).exists() and not (folder / CHECKPOINT).exists():
        yield Finding(
            "audit", "log_not_published", PROBLEM, "no checkpoint was ever published", "open the home: falaj status"
        )
        return
    vkey = None  # one of the two alone: the verification names the other
    if (folder / VKEY).exists():
        vkey = (folder / VKEY).read_text("utf-8", "replace").removesuffix("\n")
    published = verify_log(folder, vkey, midway=True)
    rows = _rows(patient, folder, vkey)
    size = patient.transaction(store.size)
    problems = dict.fromkeys([*published.problems, *rows.problems])
    for text in list(problems)[:5]:
        yield Finding(
            "audit", "log_broken", BROKEN, text,
            "keep this copy, compare with a witness's or a backup's checkpoint; restore the audit folder from a backup",
        )  # fmt: skip
    if not problems:
        unsigned = size - published.size
        shards = f" in {published.shards} shards" if published.shards > 1 else ""
        yield Finding(
            "audit", "audit", WELL, f"{published.size:,} signed entries{shards} hold, {unsigned} are not signed yet"
        )


def _rows(patient: Patient, folder: Path, vkey: str | None) -> audit_model.Report:
    """The rows against the folder; once more when a control plane published meanwhile, for it takes outgrown tiles away."""
    store = SqlAuditStore()

    def look() -> audit_model.Report:
        found: audit_model.Report = patient.transaction(
            lambda tx: verify_rows(partial(all_rows, store, tx), folder, vkey, midway=True)
        )
        return found

    for _ in range(_TRIES):
        before, report = heads(newest_folder(folder)), look()
        if report.ok or heads(newest_folder(folder)) == before:
            return report
    return look()


def keys(patient: Patient) -> Iterator[Finding]:
    """Whether every key is there, and is the one that signed what there is."""
    if not (patient.home / "keys").exists():
        yield Finding("keys", "keys_missing", BROKEN, "the keys folder is missing", _KEYS)
        return
    try:
        ring = patient.keys()
    except FalajError as e:
        yield Finding("keys", "key_missing", BROKEN, e.message, _KEYS)
        return
    wrong = list(_wrong(patient))
    for what in wrong:
        yield Finding("keys", "key_of_another_home", BROKEN, what, f"the key was exchanged: {_KEYS}")
    away = _away(patient)
    if away is not None:
        yield away
    if not wrong and away is None:
        yield Finding("keys", "keys", WELL, f"all keys are there and are this home's (log {_short(ring.log)})")


def _away(patient: Patient) -> Finding | None:
    """Of a key-encryption key that lies elsewhere: that it does not answer, or that another one does."""
    try:
        patient.blob_keys()
    except Unavailable as e:
        told = f"the key-encryption key is away: {e.message}"
        hint = f"{e.hint}; the home does not open before it answers, and one that is open goes on"
        return Finding("keys", "kek_away", PROBLEM, told, hint)
    except Integrity as e:
        return Finding("keys", "key_of_another_home", BROKEN, e.message, e.hint)
    return None


def _wrong(patient: Patient) -> Iterator[str]:
    ring, home = patient.keys(), patient.home
    vkey = newest_folder(home / "audit") / VKEY
    if vkey.exists() and ring.log_successor() is None:  # else a rotation was cut short, which the next start finishes
        lying = vkey.read_text("utf-8", "replace").removesuffix("\n")
        if verifier_of(lying.partition("+")[0], ring.log.public_key()).vkey != lying:
            yield "log.pem is not the key that the audit log is signed with"
    for name in ENVIRONMENTS:
        newest = patient.rows("SELECT digest FROM bundles WHERE environment = ? ORDER BY generation DESC LIMIT 1", name)
        if newest and _unsigned(patient, newest[0][0], BUNDLE_TYPE, _counting(patient, name, ring.of(name))):
            yield f"{name}.pem is not the key that {name}'s newest bundle is signed with"
    statement = patient.rows("SELECT envelope FROM statements ORDER BY created_at DESC LIMIT 1")
    if statement and _unsigned(
        patient, statement[0][0], STATEMENT_TYPE, _counting(patient, "attestation", ring.attestation)
    ):
        yield "attestation.pem is not the key that the newest evidence is signed with"
    trust = plane_folder(home, PRODUCTION) / "trust.json"
    if trust.exists() and public_pem(ring.model) not in msgspec.json.decode(trust.read_bytes())["model"]:
        yield "model.pem is not the key that the data plane trusts"
    sealed = next((home / "blobs").glob("*/[0-9a-f]*"), None)
    if sealed is not None and ring.kek:  # one that lies elsewhere: see `_away`
        try:
            unwrap(sealed.read_bytes(), *patient.blob_keys())
        except Integrity:
            if not _another_opens(patient, sealed.name):
                yield "kek.bin does not open the blobs"


def _counting(patient: Patient, name: str, key: SigningKey) -> list[PublicKey]:
    """The key of a name, and those that it was before."""
    there = patient.rows("SELECT name FROM sqlite_master WHERE type = 'table' AND name = 'retired_keys'")
    earlier = patient.rows("SELECT pem FROM retired_keys WHERE name = ?", name) if there else []
    return [key.public_key(), *(load_public_key(row[0]) for row in earlier)]


def _unsigned(patient: Patient, digest: str, kind: str, keys: list[PublicKey]) -> bool:
    """Whether an envelope can be read and none of the keys signed it; a blob that cannot be read is another check's."""
    if not blob_path(patient.home / "blobs", digest).is_file():
        return False
    try:
        envelope = msgspec.json.decode(LocalBlobs(patient.home / "blobs", patient.blob_keys).get(digest))
    except (FalajError, msgspec.DecodeError, UnicodeDecodeError):
        return False
    try:
        verify_envelope(envelope, kind, keys)
    except Integrity:
        return True
    return False


def _another_opens(patient: Patient, but: str) -> bool:
    for path in (patient.home / "blobs").glob("*/[0-9a-f]*"):
        if path.name != but:
            try:
                unwrap(path.read_bytes(), *patient.blob_keys())
            except Integrity:
                continue
            return True
    return False


def blobs(patient: Patient) -> Iterator[Finding]:
    """Whether what SQL names is there; with `--deep`, whether it is what its name says."""
    there = (patient.home / "blobs").is_dir()  # a store makes its folder
    deep = patient.deep and _away(patient) is None
    store = LocalBlobs(patient.home / "blobs", patient.blob_keys) if deep and there else None
    named = dict(_named(patient))
    bad = 0
    for digest, what in named.items():
        path = blob_path(patient.home / "blobs", digest)
        if not path.is_file():
            found = Finding("blobs", "blob_missing", BROKEN, f"the blob {digest} is missing: {what}", _RESTORE)
        elif path.stat().st_size < _LEAST_BLOB:
            found = Finding("blobs", "blob_broken", BROKEN, f"the blob {digest} was cut off: {what}", _RESTORE)
        elif store is not None and (why := _broken(store, digest)):
            found = Finding("blobs", "blob_broken", BROKEN, f"the blob {digest}: {why} ({what})", _RESTORE)
        else:
            continue
        bad += 1
        if bad <= 5:
            yield found
    if not bad:
        how = "hold what their names say" if deep else "are there (--deep reads their bytes)"
        yield Finding("blobs", "blobs", WELL, f"{len(named)} blobs that are named {how}")


def _broken(store: LocalBlobs, digest: str) -> str:
    try:
        store.get(digest)
    except (Integrity, NotFound) as e:
        return e.message
    return ""


def _named(patient: Patient) -> Iterator[tuple[str, str]]:
    """(digest, what it is) of every blob that SQL names."""
    for digest, gate, version in patient.rows("SELECT envelope, gate, digest FROM statements"):
        yield digest, f"evidence of {version[:19]} for {gate}"
    for digest, environment in patient.rows("SELECT envelope, environment FROM admissions"):
        yield digest, f"an admission to {environment}"
    for (digest,) in patient.rows("SELECT envelope FROM rehearsals"):
        yield digest, "a rehearsal"
    for files, signature, model, number in patient.rows("SELECT files, signature, model, number FROM versions"):
        yield signature, f"the signature of {model}@{number}"
        for file in msgspec.json.decode(files):
            yield file["sha256"], f"{file['path']} of {model}@{number}"
    for artifacts, run in patient.rows("SELECT artifacts, id FROM runs"):
        for name, digest in msgspec.json.decode(artifacts).items():
            yield digest, f"{name} of {run}"
    for digest, environment, generation in patient.rows(
        "SELECT digest, environment, max(generation) FROM bundles GROUP BY environment"
    ):
        yield digest, f"bundle {generation} of {environment}"
    tables = {name for (name,) in patient.rows("SELECT name FROM sqlite_master WHERE type = 'table'")}
    if "imports" in tables:  # a home of the first release has none of these until it is opened
        yield from _named_by_imports(patient)
    if "external_models" in tables:
        for contract, profile, name in patient.rows("SELECT contract, profile, name FROM external_models"):
            yield contract, f"the contract of {name}, which somebody else serves"
            yield profile, f"the reference of {name}, which somebody else serves"


def _named_by_imports(patient: Patient) -> Iterator[tuple[str, str]]:
    # A failed one may name what nobody ever sent.
    for files, artifacts, imported in patient.rows("SELECT files, artifacts, id FROM imports WHERE state = 'finished'"):
        for file in msgspec.json.decode(files):
            yield file["sha256"], f"{file['path']} as it came with {imported}"
        for name, digest in msgspec.json.decode(artifacts).items():
            yield digest, f"{name} of {imported}"
    for digest, waiver in patient.rows("SELECT statement, id FROM waivers WHERE statement != ''"):
        yield digest, f"the waiver {waiver}"


def _short(key: SigningKey) -> str:
    raw = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)[-32:]  # of an Ed25519 key
    return sha256(base64.b64encode(raw))[7:19]
