"""DSSE envelopes: https://github.com/secure-systems-lab/dsse/blob/master/protocol.md

Only verification lives here, so that the data plane carries no signing code.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from typing import Any

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key

from falaj.kernel.errors import Integrity

PublicKey = Ed25519PublicKey | ec.EllipticCurvePublicKey
STATEMENT_TYPE = "application/vnd.in-toto+json"
_HINT = "do not use it: fetch it again from its source, and look for the change in the audit log"


def pae(payload_type: str, body: bytes) -> bytes:
    """Pre-authentication encoding: what is really signed.

    >>> pae("http://example.com/HelloWorld", b"hello world")
    b'DSSEv1 29 http://example.com/HelloWorld 11 hello world'
    """
    kind = payload_type.encode()
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(body), body)


def load_public_key(pem: str) -> PublicKey:
    """An Ed25519 or P-256 public key from PEM. Raises `Integrity` for anything else."""
    try:
        key = load_pem_public_key(pem.encode())
    except (ValueError, UnsupportedAlgorithm) as e:
        raise Integrity(
            "a trusted key cannot be read", hint="restore the trust root from a backup", code="trusted_key_unreadable"
        ) from e
    if isinstance(key, Ed25519PublicKey) or (
        isinstance(key, ec.EllipticCurvePublicKey) and key.curve.name == "secp256r1"
    ):
        return key
    raise Integrity(
        "a trusted key has an unsupported type", hint="use Ed25519 or ECDSA P-256 keys", code="trusted_key_unsupported"
    )


def verify_envelope(
    envelope: dict[str, Any], payload_type: str, trusted: Sequence[PublicKey], threshold: int = 1
) -> bytes:
    """Return the payload if at least `threshold` distinct trusted keys signed it.

    `keyid` is a hint at best and is not looked at. The returned bytes are the ones that were
    verified; nothing is parsed again from the envelope. Raises `Integrity`.
    """
    try:
        kind = envelope["payloadType"]
        body = _base64(envelope["payload"])
        signatures = [_base64(s["sig"]) for s in envelope["signatures"]]
    except (KeyError, TypeError, ValueError) as e:
        raise Integrity("the envelope is not a DSSE envelope", hint=_HINT, code="bad_envelope") from e
    if kind != payload_type:
        raise Integrity(f"the envelope holds {kind!r}, not {payload_type!r}", hint=_HINT, code="wrong_payload_type")
    message = pae(payload_type, body)
    keys = {k.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo): k for k in trusted}
    signers = {raw for raw, key in keys.items() for signature in signatures[:64] if verifies(key, signature, message)}
    if len(signers) < max(1, threshold):
        raise Integrity(
            f"{len(signers)} of the {max(1, threshold)} signatures that are needed come from a trusted key",
            hint=_HINT,
            code="bad_signature",
        )
    return body


def verifies(key: PublicKey, signature: bytes, message: bytes) -> bool:
    """Whether a key signed a message: Ed25519 over it, or ECDSA over its SHA-256 in DER."""
    try:
        if isinstance(key, Ed25519PublicKey):
            key.verify(signature, message)
        else:
            key.verify(signature, message, ec.ECDSA(hashes.SHA256()))
    except InvalidSignature:
        return False
    return True


def _base64(text: str) -> bytes:
    """Strict base64, either alphabet; unused bits must be zero, so that bytes have one text. Raises ValueError."""
    try:
        standard = text.replace("-", "+").replace("_", "/")
        data = base64.b64decode(standard, validate=True)
    except (binascii.Error, AttributeError) as e:
        raise ValueError("not base64") from e
    if base64.b64encode(data).decode() != standard:
        raise ValueError("not the base64 of its bytes")
    return data
