"""Sign in-toto statements, models and other payloads as DSSE envelopes."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Sequence
from typing import Any

from securesystemslib.dsse import Envelope
from securesystemslib.signer import Signature, SSlibKey

from falaj.governance.signing.dsse import STATEMENT_TYPE, pae
from falaj.governance.signing.elsewhere import Elsewhere
from falaj.governance.signing.keys import KeyRing, SigningKey, public_pem, signature
from falaj.governance.signing.model_signature import verify_model_signature
from falaj.kernel.digests import FileEntry, canonical_json
from falaj.kernel.errors import Invalid


class EnvelopeSigner:
    """Signs with one key, which may lie here or elsewhere."""

    def __init__(self, key: SigningKey | Callable[[], SigningKey]) -> None:
        """`key` may be asked for each time, where it can be replaced."""
        self._key = key

    @property
    def _signing(self) -> SigningKey:
        return self._key() if callable(self._key) else self._key

    def sign(self, payload_type: str, body: bytes) -> dict[str, Any]:
        """An envelope around `body`, as the JSON object of the DSSE specification."""
        key = self._signing
        envelope = Envelope(payload=body, payload_type=payload_type, signatures={})
        name = SSlibKey.from_crypto(key.public_key()).keyid
        envelope.signatures[name] = Signature(name, signature(key, envelope.pae()).hex())
        document: dict[str, Any] = envelope.to_dict()
        return document

    def sign_bytes(self, data: bytes) -> bytes:
        """The bare signature of some bytes, as `openssl` checks it. They must not begin like an envelope's encoding."""
        if data.startswith(b"DSSEv1 "):
            raise Invalid("these bytes read like an envelope's", hint="sign them as an envelope", code="bad_envelope")
        return signature(self._signing, data)

    def sign_statement(self, statement: dict[str, Any]) -> dict[str, Any]:
        """An envelope around an in-toto statement."""
        return self.sign(STATEMENT_TYPE, canonical_json(statement))


class ModelSigner:
    """Sees to it that a version is signed by the home's model key.

    A step process signs with a key in a file. Where the key lies elsewhere the step makes one up, and what it signed is
    signed again here: no step is ever let at a token or a service.
    """

    def __init__(self, ring: KeyRing) -> None:
        self._ring = ring

    @property
    def path(self) -> str:
        """The file of the key, for a step; empty where there is none."""
        return "" if isinstance(self._ring.model, Elsewhere) else str(self._ring.model_path)

    def signed(self, bundle: dict[str, Any], files: Sequence[FileEntry]) -> dict[str, Any]:
        """The bundle that a step made of these files, signed by the home's key. Raises `Integrity` for one of other files."""
        key = self._ring.model
        if isinstance(key, Elsewhere):
            envelope = bundle["dsseEnvelope"]
            body = base64.b64decode(envelope["payload"])
            made = base64.b64encode(key.sign(pae(STATEMENT_TYPE, body))).decode()
            material = bundle["verificationMaterial"] | {
                "publicKey": {"hint": hashlib.sha256(public_pem(key).encode()).hexdigest()}
            }
            bundle = bundle | {
                "verificationMaterial": material,
                "dsseEnvelope": envelope | {"signatures": [{"sig": made}]},
            }
        verify_model_signature(bundle, files, [key.public_key()])
        return bundle
