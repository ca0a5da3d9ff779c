"""Sign in-toto statements and other payloads as DSSE envelopes."""

from __future__ import annotations

from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from securesystemslib.dsse import Envelope
from securesystemslib.signer import CryptoSigner

from falaj.governance.signing.dsse import STATEMENT_TYPE
from falaj.kernel.digests import canonical_json


class EnvelopeSigner:
    """Signs with one key. The key stands behind securesystemslib's `Signer`, so that a key in a
    vault or a token can take its place."""

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._signer = CryptoSigner(key)

    def sign(self, payload_type: str, body: bytes) -> dict[str, Any]:
        """An envelope around `body`, as the JSON object of the DSSE specification."""
        envelope = Envelope(payload=body, payload_type=payload_type, signatures={})
        envelope.sign(self._signer)
        document: dict[str, Any] = envelope.to_dict()
        return document

    def sign_statement(self, statement: dict[str, Any]) -> dict[str, Any]:
        """An envelope around an in-toto statement."""
        return self.sign(STATEMENT_TYPE, canonical_json(statement))
