"""Is it what it claims to be? Bundles and admissions against the data plane's own trust root."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

import msgspec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from falaj.governance.signing.dsse import load_public_key, verify_envelope
from falaj.governance.signing.trust import Keys, Trusted, every, unrevoked
from falaj.kernel.clock import parse_iso
from falaj.kernel.digests import canonical_json, sha256
from falaj.kernel.errors import Integrity
from falaj.lifecycle.registry.model import Admission
from falaj.lifecycle.registry.statements import not_accepted, read_admission
from falaj.lifecycle.registry.waiver import fits, read_waiver
from falaj.lifecycle.serving.model import BUNDLE_TYPE, Bundle, Release, TrustFile

T = TypeVar("T")


class Trust(msgspec.Struct, frozen=True):
    """The trust root, its keys parsed."""

    environment: str
    keys: Keys
    model: Keys
    journal: bytes = b""
    digest: str = ""  # of the file, where it was one


def read_trust(path: Path) -> Trust:
    """The trust root of a data plane, with the digest of its file. Raises `Integrity` when it is missing or cannot be read."""
    try:
        raw = path.read_bytes()
        file = msgspec.json.decode(raw, type=TrustFile)
    except (OSError, msgspec.DecodeError, UnicodeDecodeError) as e:
        raise Integrity(
            f"the trust root {path.name} cannot be read: {e}",
            hint="start the home again with `falaj up`, which writes it, or restore it from a backup",
            code="trust_root_missing",
        ) from e
    return msgspec.structs.replace(trust_of(file), digest=sha256(raw))


def trust_of(file: TrustFile) -> Trust:
    """A trust root with its keys parsed. Raises `Integrity` for a key that cannot be read."""

    def parsed(pem: str) -> Trusted:
        key = load_public_key(pem)
        name = sha256(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))
        return Trusted(key, file.until.get(name, ""), name in file.revoked)

    return Trust(file.environment, tuple(map(parsed, file.keys)), tuple(map(parsed, file.model)), file.journal)


def open_bundle(envelope: dict[str, Any], trust: Trust) -> tuple[Bundle, str]:
    """The bundle in an envelope and the digest of its bytes. Raises `Integrity`.

    A bundle says itself when it was issued, so no key that somebody else may hold can have signed it.
    """
    payload = verify_envelope(envelope, BUNDLE_TYPE, every(trust.keys))
    bundle = _decoded(payload, Bundle, "the bundle")
    verify_envelope(envelope, BUNDLE_TYPE, unrevoked(trust.keys, bundle.issued_at))
    if bundle.environment != trust.environment:
        raise Integrity(
            f"the bundle is for {bundle.environment}, this data plane serves {trust.environment}",
            hint="publish the bundle of this environment",
            code="wrong_environment",
        )
    return bundle, sha256(payload)


def check_admission(release: Release, trust: Trust, now: datetime) -> Admission:
    """The admission of a release, if a trusted key admitted exactly this version to this environment
    and it has not expired. Raises `Integrity`."""
    admission = read_admission(release.admission, trust.keys)
    if admission.digest != release.digest:
        raise _not_admitted("it admits another version", "admission_for_another_version")
    if (admission.model, admission.alias) != (release.model, release.alias):
        raise _not_admitted(f"it admits {admission.alias}, under another name", "admission_for_another_version")
    if admission.environment != trust.environment:
        raise _not_admitted(f"it admits to {admission.environment}, not to {trust.environment}", "wrong_environment")
    if sorted(f.path for f in release.files) != sorted(f.path for f in admission.files):
        raise _not_admitted("the release lists other files than the admission", "files_differ")
    if now >= expiry(admission):
        raise _not_admitted(f"it expired at {admission.expires_at}", "admission_expired")
    check_waiver(release, admission, trust, now)
    return admission


def check_waiver(release: Release, admission: Admission, trust: Trust, now: datetime) -> None:
    """Raise `Integrity` unless the waiver that an admission rests on is there and covers it.

    It is the very one that the admission names, two people signed it, it is for this version and its evidence and for the gates
    that the admission leaves out, and it ends no sooner than the admission. An admission without one is left as it is.
    """
    if not admission.waiver and not admission.waived:
        if release.waiver:
            raise _not_admitted("a waiver came with it that it does not name", "waiver_for_another")
        return
    if release.waiver is None:
        raise _not_admitted("the waiver that it rests on is not there", "waiver_missing")
    if sha256(canonical_json(release.waiver)) != admission.waiver:
        raise _not_admitted("another waiver came with it than it names", "waiver_for_another")
    waiver = read_waiver(release.waiver, trust.keys)
    problem, code = fits(waiver, admission.digest, admission.evidence, admission.waived, now)
    if code:
        raise _not_admitted(problem, code)
    if expiry(admission) > parse_iso(waiver.until):
        raise _not_admitted(f"it outlives its waiver, which ends at {waiver.until}", "admission_outlives_waiver")


def expiry(admission: Admission) -> datetime:
    """When an admission ends. Raises `Integrity` for a time that cannot be read."""
    try:
        return parse_iso(admission.expires_at)
    except ValueError as e:
        raise _not_admitted("its expiry is not a time", "not_an_admission") from e


def _decoded(payload: bytes, kind: type[T], what: str) -> T:
    try:
        return msgspec.json.decode(payload, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as e:
        raise Integrity(
            f"{what} is signed but cannot be read: {e}",
            hint="the planes are of different versions: upgrade the data plane, then publish again",
            code="unreadable_payload",
        ) from e


def _not_admitted(why: str, code: str) -> Integrity:
    return not_accepted("admission", why, code)
