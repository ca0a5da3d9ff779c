"""`env:NAME`: a private key in an environment variable, as PEM (PKCS#8), or as the base64 of it where a line is needed."""

from __future__ import annotations

import base64
import binascii
import os

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from falaj.governance.signing.dsse import PublicKey
from falaj.kernel.errors import Unavailable

SCHEME = "env"


class Variable:
    """A key in a variable of this process, read anew each time: it is kept nowhere else."""

    def __init__(self, name: str) -> None:
        self._name = name

    def public(self) -> tuple[str, PublicKey]:
        """See `Place.public`."""
        return f"{SCHEME}:{self._name}", self._key().public_key()

    def sign(self, data: bytes) -> bytes:
        """See `Place.sign`."""
        key = self._key()
        return key.sign(data) if isinstance(key, Ed25519PrivateKey) else key.sign(data, ec.ECDSA(hashes.SHA256()))

    def _key(self) -> Ed25519PrivateKey | ec.EllipticCurvePrivateKey:
        text = os.environ.get(self._name, "").strip()
        try:
            pem = text.encode() if text.startswith("-----") else base64.b64decode(text, validate=True)
            key = load_pem_private_key(pem, password=None)
        except (ValueError, TypeError, binascii.Error, UnsupportedAlgorithm):
            key = None
        if isinstance(key, (Ed25519PrivateKey, ec.EllipticCurvePrivateKey)):
            return key
        raise Unavailable(
            f"the variable {self._name} holds no private key that could sign",
            hint=f"set {self._name} to an Ed25519 or ECDSA P-256 private key: PEM (PKCS#8, no password), or its base64",
            code="signer_unavailable",
        ) from None
