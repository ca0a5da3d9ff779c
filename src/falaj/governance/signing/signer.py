"""Sign in-toto statements and other payloads as DSSE envelopes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from securesystemslib.dsse import Envelope
from securesystemslib.signer import CryptoSigner, Signer

from falaj.governance.signing.dsse import STATEMENT_TYPE
from falaj.kernel.digests import canonical_json
from falaj.kernel.errors import Invalid


class EnvelopeSigner:
    """Signs with one key. The key stands behind securesystemslib's `Signer`, so that a key in a
    vault or a token can take its place."""

    def __init__(self, key: Ed25519PrivateKey | Callable[[], Ed25519PrivateKey]) -> None:
        """`key` may be asked for each time, where it can be replaced."""
        self._key = key

    @property
    def _signer(self) -> Signer:
        return CryptoSigner(self._key if isinstance(self._key, Ed25519PrivateKey) else self._key())

    def sign(self, payload_type: str, body: bytes) -> dict[str, Any]:
        """An envelope around `body`, as the JSON object of the DSSE specification."""
        envelope = Envelope(payload=body, payload_type=payload_type, signatures={})
        envelope.sign(self._signer)
        document: dict[str, Any] = envelope.to_dict()
        return document

    def sign_bytes(self, data: bytes) -> bytes:
        """The bare signature of some bytes, as `openssl` checks it. They must not begin like an envelope's encoding."""
        if data.startswith(b"DSSEv1 "):
            raise Invalid("these bytes read like an envelope's", hint="sign them as an envelope", code="bad_envelope")
        return bytes.fromhex(self._signer.sign(data).signature)

    def sign_statement(self, statement: dict[str, Any]) -> dict[str, Any]:
        """An envelope around an in-toto statement."""
        return self.sign(STATEMENT_TYPE, canonical_json(statement))
