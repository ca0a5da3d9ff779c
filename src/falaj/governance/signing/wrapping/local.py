"""AES-256-GCM with a key that this process knows.

wrapped = nonce (12 bytes)  key under AES-256-GCM, its place bound (base64); by HKDF-SHA-256 of 256 bits
"""

from __future__ import annotations

import base64
import binascii
import secrets

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

BYTES, NONCE = 32, 12


def wrap(secret: bytes, key: bytes, bound: str) -> str:
    """A key under a secret of 256 bits."""
    nonce = secrets.token_bytes(NONCE)
    return base64.b64encode(nonce + _cipher(secret).encrypt(nonce, key, bound.encode())).decode()


def unwrap(secret: bytes, wrapped: str, bound: str) -> bytes | None:
    """The key; None for what this secret did not wrap with this."""
    try:
        raw = base64.b64decode(wrapped, validate=True)
        return _cipher(secret).decrypt(raw[:NONCE], raw[NONCE:], bound.encode())
    except (InvalidTag, binascii.Error, ValueError):
        return None


def _cipher(secret: bytes) -> AESGCM:
    return AESGCM(HKDF(algorithm=hashes.SHA256(), length=BYTES, salt=None, info=b"falaj/store-keys/1").derive(secret))
