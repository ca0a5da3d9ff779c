"""`pkcs11:`: a signing key in a token, a smart card or an HSM (`session`).

    pkcs11:token=falaj;object=model?module-path=/usr/lib/softhsm/libsofthsm2.so&pin-source=/run/secrets/pin

ECDSA P-256 by CKM_ECDSA, Ed25519 by CKM_EDDSA where the module knows it.
"""

from __future__ import annotations

import hashlib
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from falaj.governance.signing.dsse import PublicKey
from falaj.governance.signing.places.session import SCHEME as SCHEME
from falaj.governance.signing.places.session import Session
from falaj.governance.signing.places.session import pkcs11 as pkcs11
from falaj.kernel.errors import Invalid, Unavailable

_P256 = bytes.fromhex("06082a8648ce3d030107")
_ED25519 = (bytes.fromhex("06032b6570"), b"\x13\x0cedwards25519")  # CKA_EC_PARAMS: the OID, or the curve's name
_POINT, _RAW = 65, 32  # bytes of a public key


class Token:
    """One key in one token."""

    def __init__(self, uri: str) -> None:
        """Raises `Invalid` for a URI that does not name one key, its module and where its PIN comes from."""
        self._uri = uri
        self._session = Session(uri, ("PUBLIC_KEY", "PRIVATE_KEY"), _away)

    def public(self) -> tuple[str, PublicKey]:
        """See `Place.public`."""
        return self._uri, self._session.use(lambda public, _: _public(public))

    def sign(self, data: bytes) -> bytes:
        """See `Place.sign`."""
        return self._session.use(lambda public, private: _signed(_public(public), private, data))


def _public(key: Any) -> PublicKey:
    kind, point = bytes(key[pkcs11.Attribute.EC_PARAMS]), bytes(key[pkcs11.Attribute.EC_POINT])
    try:
        if kind == _P256:
            return ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), point[-_POINT:])
        if kind in _ED25519:
            return Ed25519PublicKey.from_public_bytes(point[-_RAW:])
    except ValueError:
        pass  # the same refusal as for another curve
    raise Invalid(
        "the key in the token is neither ECDSA P-256 nor Ed25519",
        hint="make one of these: `pkcs11-tool --keypairgen --key-type EC:prime256v1`",
        code="signer_key_type",
    )


def _signed(public: PublicKey, private: Any, data: bytes) -> bytes:
    if isinstance(public, Ed25519PublicKey):
        return bytes(private.sign(data, mechanism=pkcs11.Mechanism.EDDSA))
    raw = bytes(private.sign(hashlib.sha256(data).digest(), mechanism=pkcs11.Mechanism.ECDSA))
    half = len(raw) // 2
    return encode_dss_signature(int.from_bytes(raw[:half], "big"), int.from_bytes(raw[half:], "big"))


def _away(text: str, hint: str) -> Unavailable:
    return Unavailable(text, hint=hint, code="signer_unavailable")
