"""A data plane takes an admission that rests on a waiver only with that very waiver, whole and in time."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from falaj.governance.signing.signer import EnvelopeSigner
from falaj.kernel.digests import FileEntry, canonical_json, manifest_digest, sha256
from falaj.kernel.errors import Integrity
from falaj.lifecycle.registry.model import Admission
from falaj.lifecycle.registry.statements import admission_statement
from falaj.lifecycle.registry.waiver import Signature, Waived, waiver_statement
from falaj.lifecycle.serving.model import Release, SealedBlob
from falaj.lifecycle.serving.plane.verify import Trust, check_admission

KEY, OTHER = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
TRUST = Trust("production", (KEY.public_key(),), ())
FILES = (FileEntry("model.onnx", 1, "sha256:" + "1" * 64),)
DIGEST = manifest_digest(FILES)
AT, END = "2026-03-01T00:00:00Z", "2026-04-01T00:00:00Z"
NOW = datetime(2026, 3, 15, tzinfo=UTC)
SIGNED = (Signature("r", ("risk-officer",), "y", AT), Signature("a", ("platform-admin",), "y", AT))
WAIVED = Waived("wvr_1", DIGEST, "m", "m@1", "me", "e", ("provenance",), "why", AT, END, SIGNED)
ADMITTED = Admission(DIGEST, "m", "m@1", "production", FILES, "e", (), AT, END, "", ("provenance",))


def release(
    waived: Waived | None = WAIVED, key: Ed25519PrivateKey = KEY, bound: bool = True, **admission: Any
) -> Release:
    """A release with a waiver; the admission names it if `bound`."""
    envelope = EnvelopeSigner(key).sign_statement(waiver_statement(waived)) if waived else None
    named = {"waiver": sha256(canonical_json(envelope))} if bound and envelope else {}
    told = msgspec.structs.replace(ADMITTED, **{**named, **admission})
    signed = EnvelopeSigner(KEY).sign_statement(admission_statement(told))
    blobs = tuple(SealedBlob(f.path, f.sha256, "") for f in FILES)
    return Release(DIGEST, "m@1", "m", blobs, {}, signed, envelope)


def changed(**values: Any) -> Waived:
    return msgspec.structs.replace(WAIVED, **values)


def test_the_waiver_that_is_named_lets_it_in() -> None:
    assert check_admission(release(), TRUST, NOW).waived == ("provenance",)


@pytest.mark.parametrize(
    ("name", "made", "code"),
    [
        ("none came", lambda: release(None), "waiver_missing"),
        ("another came", lambda: release(waiver="sha256:" + "0" * 64), "waiver_for_another"),
        ("one came that is not named", lambda: release(bound=False, waived=WAIVED), "waiver_for_another"),
        ("signed by a stranger", lambda: release(key=OTHER), "bad_signature"),
        ("for another version", lambda: release(changed(digest="sha256:" + "2" * 64)), "waiver_for_another"),
        ("on other evidence", lambda: release(changed(evidence="f")), "waiver_evidence_changed"),
        ("of other gates", lambda: release(changed(waived=("scan",))), "waiver_not_all"),
        ("signed by one", lambda: release(changed(signatures=SIGNED[:1])), "waiver_unsigned"),
        ("signed by one person twice", lambda: release(changed(signatures=(SIGNED[0], SIGNED[0]))), "waiver_unsigned"),
        ("signed by the importer", lambda: release(changed(author="r")), "waiver_unsigned"),
        ("over", lambda: release(changed(until="2026-03-10T00:00:00Z")), "waiver_expired"),
        ("outlived", lambda: release(changed(until="2026-03-20T00:00:00Z")), "admission_outlives_waiver"),
    ],
)
def test_anything_else_does_not(name: str, made: Any, code: str) -> None:
    with pytest.raises(Integrity) as refused:
        check_admission(made(), TRUST, NOW)
    assert refused.value.code == code, name


def test_a_waiver_beside_an_admission_that_needs_none_is_refused() -> None:
    envelope = EnvelopeSigner(KEY).sign_statement(waiver_statement(WAIVED))
    plain = msgspec.structs.replace(ADMITTED, waived=())
    signed = EnvelopeSigner(KEY).sign_statement(admission_statement(plain))
    blobs = tuple(SealedBlob(f.path, f.sha256, "") for f in FILES)
    with pytest.raises(Integrity) as refused:
        check_admission(Release(DIGEST, "m@1", "m", blobs, {}, signed, envelope), TRUST, NOW)
    assert refused.value.code == "waiver_for_another"
    assert check_admission(Release(DIGEST, "m@1", "m", blobs, {}, signed), TRUST, NOW).waiver == ""
