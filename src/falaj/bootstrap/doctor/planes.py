"""What the data planes are told, what is under way, and what time it is."""

from __future__ import annotations

import base64
import sqlite3
import time
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import msgspec

from falaj.bootstrap.doctor.model import BROKEN, NOTE, OPEN, PROBLEM, WELL, Finding, Patient
from falaj.governance.signing.keys import plane_key
from falaj.governance.signing.sealing import unseal
from falaj.kernel.clock import HomeClock, iso, parse_iso
from falaj.kernel.digests import sha256
from falaj.kernel.environments import PRODUCTION, STAGING
from falaj.kernel.errors import FalajError, Integrity
from falaj.lifecycle.registry.model import Admission
from falaj.lifecycle.registry.statements import read_admission
from falaj.lifecycle.serving.model import PEPPER, Bundle
from falaj.lifecycle.serving.process import plane_folder
from falaj.storage.blobs.local import LocalBlobs, blob_path
from falaj.workflow.moving import under_way

_SOON = timedelta(days=7)
_STUCK_SECONDS = 86_400
_AHEAD = timedelta(minutes=5)
_OLD_BACKUP = timedelta(days=7)


def bundles(patient: Patient) -> Iterator[Finding]:
    """Whether each environment's data plane has what SQL says, can read it, and may serve it."""
    now = HomeClock(patient.home).now()
    for environment in (PRODUCTION, STAGING):
        newest = patient.rows(
            "SELECT digest, generation FROM bundles WHERE environment = ? ORDER BY generation DESC LIMIT 1", environment
        )
        if not newest:
            continue
        (digest, generation), folder = newest[0], plane_folder(patient.home, environment)
        found = list(_bundle(patient, environment, digest))
        lying = folder / "bundle.json"
        if not lying.exists() or sha256(lying.read_bytes()) != digest:
            yield Finding(
                "bundles", "bundle_not_published", PROBLEM, f"{environment}'s data plane does not have generation {generation}",
                "open the home, which writes it: falaj status", OPEN,
            )  # fmt: skip
        yield from found
        if not (folder / "trust.json").exists():
            yield Finding(
                "bundles", "trust_root_missing", PROBLEM, f"{environment}'s data plane has no trust root",
                "open the home, which writes it: falaj status", OPEN,
            )  # fmt: skip
        yield from _admissions(patient, environment, digest, now)
        yield from _guard(patient, environment)


def _read(patient: Patient, digest: str) -> Bundle | None:
    """The bundle in a blob; None where it cannot be read, which is the blobs' check's to say."""
    if not blob_path(patient.home / "blobs", digest).is_file():
        return None
    try:
        envelope = msgspec.json.decode(LocalBlobs(patient.home / "blobs", patient.blob_keys).get(digest))
        return msgspec.json.decode(base64.b64decode(envelope["payload"]), type=Bundle)
    except (FalajError, msgspec.DecodeError, KeyError, ValueError):
        return None


def _bundle(patient: Patient, environment: str, digest: str) -> Iterator[Finding]:
    folder, bundle = plane_folder(patient.home, environment), _read(patient, digest)
    if bundle is None:
        return
    try:
        if not (folder / "key.pem").exists():
            raise Integrity("its key is missing", hint="", code="key_missing")
        unseal(plane_key(folder), bundle.access.pepper, PEPPER)
    except Integrity as e:
        yield Finding(
            "bundles", "not_sealed_to_me", PROBLEM, f"{environment}'s data plane cannot open its bundle: {e.message}",
            "open the home: a new key is made if need be, and a bundle for it: falaj status", OPEN,
        )  # fmt: skip
    else:
        yield Finding("bundles", "bundle", WELL, f"{environment} can open generation {bundle.generation}")


def _admissions(patient: Patient, environment: str, digest: str, now: Any) -> Iterator[Finding]:
    bundle = _read(patient, digest)
    for release in bundle.releases if bundle else ():
        admission: Admission = read_admission(release.admission, (patient.keys().of(environment).public_key(),))
        until = parse_iso(admission.expires_at)
        again = f"admit it again: falaj rollout start {release.alias} --at-once"
        if until <= now:
            text = f"the admission of {release.alias} to {environment} expired at {admission.expires_at}"
            yield Finding("bundles", "admission_expired", PROBLEM, f"{text}: it answers no more", again)
        elif until - now < _SOON:
            text = f"the admission of {release.alias} to {environment} ends at {admission.expires_at}"
            yield Finding("bundles", "admission_ends_soon", PROBLEM, text, again)


def _guard(patient: Patient, environment: str) -> Iterator[Finding]:
    path = plane_folder(patient.home, environment) / "guard.json"
    if path.exists():
        try:
            msgspec.json.decode(path.read_bytes())
        except (msgspec.DecodeError, UnicodeDecodeError):
            yield Finding(
                "bundles", "guard_unreadable", PROBLEM, f"{path} cannot be read: no challenger gets any traffic",
                f"restore it from a backup; or remove it while no rollout is under way: rm {path}",
            )  # fmt: skip


def flows(patient: Patient) -> Iterator[Finding]:
    """Flows that have not ended."""
    try:
        going = under_way(patient.home / "flows.db")
    except sqlite3.Error as e:
        yield Finding("flows", "flows_unreadable", PROBLEM, f"flows.db cannot be read: {e}", "restore it from a backup")
        return
    stuck = [(i, n, at) for i, n, at in going if time.time() - at / 1000 > _STUCK_SECONDS]
    for flow, name, at in stuck[:5]:
        hours = (time.time() - at / 1000) / 3600
        told = f"the flow {flow} ({name}) has not moved for {hours:,.0f} hours"
        yield Finding("flows", "flow_stuck", PROBLEM, told, "open the home, which carries it on, and watch: falaj up")
    if going and not stuck:
        goes = "are under way" if patient.running else "go on when the home is opened"
        yield Finding("flows", "flows_under_way", NOTE, f"{len(going)} flows {goes}")
    elif not going:
        yield Finding("flows", "flows", WELL, "no flow is under way")


def clock(patient: Patient) -> Iterator[Finding]:
    """Whether time goes forward from what was written down last."""
    try:
        now = HomeClock(patient.home).now()
    except Integrity as e:
        mend = f"set it again, or remove {patient.home / 'clock.json'} to show the machine's time"
        yield Finding("clock", "clock_unreadable", BROKEN, e.message, mend)
        return
    newest = patient.rows("SELECT at FROM audit_entries ORDER BY idx DESC LIMIT 1")
    if newest and parse_iso(newest[0][0]) > now + _AHEAD:
        yield Finding(
            "clock", "clock_behind", PROBLEM, f"the newest entry of the log is of {newest[0][0]}, the clock shows {iso(now)}",
            "set the machine's clock (or clock.json, where a home replays another day): expiry is judged by it",
        )  # fmt: skip
    else:
        yield Finding("clock", "clock", WELL, f"it is {iso(now)}")


def backups(patient: Patient) -> Iterator[Finding]:
    """When the home was backed up last."""
    query = "SELECT at, data FROM audit_entries WHERE action = ? AND outcome = 'done' ORDER BY idx DESC"
    now, name = HomeClock(patient.home).now(), "backup_old"
    done = [
        at
        for at, data in patient.rows(query, "home.backup")
        if msgspec.json.decode(data)["detail"].get("state") == "done"
    ]
    how = "take one onto another disk: falaj backup FOLDER"
    if not done:
        yield Finding("backups", "no_backup", NOTE, "the home was never backed up", how)
    elif now - parse_iso(done[0]) > _OLD_BACKUP:
        yield Finding("backups", name, NOTE, f"the last backup is of {done[0]}", how)
    else:
        yield Finding("backups", "backup", WELL, f"the last backup is of {done[0]}")
    if not patient.rows("SELECT 1 FROM audit_entries WHERE action = ? AND outcome = 'done' LIMIT 1", "keys.backup"):
        yield Finding(
            "backups", "no_keys_backup", NOTE, "the keys were never backed up", "do it now: falaj keys backup FILE"
        )


def tokens(patient: Patient) -> Iterator[Finding]:
    """Whether somebody can still administer the home."""
    now = HomeClock(patient.home).now()
    query = "SELECT t.expires_at FROM tokens t JOIN principals p ON p.name = t.principal WHERE t.revoked_at IS NULL AND p.roles LIKE ?"
    live = sorted(at for (at,) in patient.rows(query, "%platform-admin%") if parse_iso(at) > now)
    if not live:
        yield Finding(
            "tokens", "no_administrator", PROBLEM, "no administrator has a token that is valid",
            "restore the home from a backup, which gives its owner one; then keep it fresh: falaj token create",
        )  # fmt: skip
    elif parse_iso(live[-1]) - now < 2 * _SOON:
        text = f"the last administrator's token ends at {live[-1]}"
        yield Finding(
            "tokens", "token_ends_soon", PROBLEM, text, "falaj token create owner --role platform-admin --keep"
        )
    else:
        yield Finding("tokens", "tokens", WELL, f"{len(live)} tokens of administrators are valid")
