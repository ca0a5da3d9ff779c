"""Verify an OpenSSF model signature (v1.0) against files that were hashed already.

The signature is a Sigstore bundle around a DSSE envelope around an in-toto statement with the
predicate `https://model_signing/signature/v1.0`. Its subject digest does not bind file names, so
every file is compared by name, and the set of files must be exactly the signed one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import msgspec

from falaj.governance.signing.dsse import STATEMENT_TYPE, verify_envelope
from falaj.governance.signing.trust import Keys, valid_at
from falaj.kernel.digests import FileEntry
from falaj.kernel.errors import Integrity

PREDICATE = "https://model_signing/signature/v1.0"
_BUNDLES = ("application/vnd.dev.sigstore.bundle.v0.3+json",)


def verify_model_signature(bundle: dict[str, Any], files: Sequence[FileEntry], trusted: Keys, at: str = "") -> None:
    """Raise `Integrity` unless a trusted key signed exactly these files, by path and digest.

    The format holds no time: `at` is when it was signed, as far as that is known (RFC 3339), which matters for keys that
    have come to an end.
    """
    if not isinstance(bundle, dict) or bundle.get("mediaType") not in _BUNDLES:
        raise _bad("it is not a Sigstore bundle v0.3")
    statement = _statement(verify_envelope(bundle.get("dsseEnvelope") or {}, STATEMENT_TYPE, valid_at(trusted, at)))
    try:
        if statement["predicateType"] != PREDICATE:
            raise _bad(f"its predicate is {statement['predicateType']!r}")
        predicate = statement["predicate"]
        if predicate["serialization"]["method"] != "files":
            raise _bad("it does not list files one by one")
        resources = [(r["name"], r["algorithm"], r["digest"]) for r in predicate["resources"]]
        subject = statement["subject"][0]["digest"]["sha256"]
        signed = {name: f"sha256:{digest}" for name, algorithm, digest in resources if algorithm == "sha256"}
        rolled = hashlib.sha256(b"".join(bytes.fromhex(digest) for _, _, digest in resources)).hexdigest()
    except (KeyError, IndexError, TypeError, ValueError) as e:
        raise _bad("its statement is incomplete") from e
    if len(signed) != len(resources) or not all(isinstance(name, str) for name in signed):
        raise _bad("it names a file twice, or not as text, or uses another hash")
    if rolled != subject:
        raise _bad("its subject is not the hash of its files")
    present = {f.path: f.sha256 for f in files}
    differing = sorted(set(signed.items()) ^ set(present.items()))
    if differing:
        raise Integrity(
            f"{differing[0][0]} is not what was signed",
            hint="do not load it: restore the version from a backup, or register it again",
            code="not_as_signed",
            details={"files": sorted({name for name, _ in differing})},
        )


def _statement(payload: bytes) -> dict[str, Any]:
    try:
        return msgspec.json.decode(payload, type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeDecodeError) as e:
        raise _bad("its statement is not JSON") from e


def _bad(why: str) -> Integrity:
    return Integrity(
        f"the model signature cannot be accepted: {why}",
        hint="sign the model again with `falaj train`, or restore the version from a backup",
        code="bad_model_signature",
    )
