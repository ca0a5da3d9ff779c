"""Bytes that one holder of a private key can open: HPKE (RFC 9180), base mode,
DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, AES-256-GCM."""

from __future__ import annotations

import base64
import binascii

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite

from falaj.kernel.errors import Integrity

_SUITE = Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)


def seal_to(reader: X25519PublicKey, plain: bytes, purpose: str) -> str:
    """Seal for one reader; `purpose` is bound to the result. Returns base64."""
    return base64.b64encode(_SUITE.encrypt(plain, reader, purpose.encode())).decode()


def unseal(reader: X25519PrivateKey, sealed: str, purpose: str) -> bytes:
    """Open what was sealed to `reader` for `purpose`. Raises `Integrity`."""
    try:
        return _SUITE.decrypt(base64.b64decode(sealed, validate=True), reader, purpose.encode())
    except (InvalidTag, binascii.Error, ValueError) as e:
        raise Integrity(
            "a sealed key cannot be opened by this data plane",
            hint="the bundle was made for another data plane key: publish it again with `falaj up`",
            code="not_sealed_to_me",
        ) from e
