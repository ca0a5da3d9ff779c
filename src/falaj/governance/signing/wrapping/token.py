"""`pkcs11:`: an AES-256 key in a token, a smart card or an HSM (`places.session`), which it never leaves.

    pkcs11:token=falaj;object=kek?module-path=/usr/lib/softhsm/libsofthsm2.so&pin-source=/run/secrets/pin

    wrapped = nonce (12 bytes)  key by CKM_AES_GCM, its place bound (base64)

A key that could be taken out of the token in clear is refused.
"""

from __future__ import annotations

import base64
import binascii
import secrets
from typing import Any

from falaj.governance.signing.places.session import Session, pkcs11
from falaj.governance.signing.wrapping.local import BYTES, NONCE
from falaj.governance.signing.wrapping.wrapper import KEK_AWAY
from falaj.kernel.errors import Invalid, Unavailable

SCHEME = "pkcs11"
_TAG_BITS = 128
_PROBE = "probe"


class Token:
    """One key in one token."""

    def __init__(self, uri: str) -> None:
        """Raises `Invalid` for a URI that does not name one key, its module and where its PIN comes from."""
        self._uri = uri
        self._session = Session(uri, ("SECRET_KEY",), _away)

    def exact(self) -> str:
        """See `Wrapper.exact`."""
        self._session.use(_check)
        return self._uri

    def wrap(self, key: bytes, bound: str) -> str:
        """See `Wrapper.wrap`."""
        nonce = secrets.token_bytes(NONCE)
        made = self._session.use(lambda kek: bytes(kek.encrypt(key, **_gcm(nonce, bound))))
        return base64.b64encode(nonce + made).decode()

    def unwrap(self, wrapped: str, bound: str) -> bytes | None:
        """See `Wrapper.unwrap`."""
        try:
            raw = base64.b64decode(wrapped, validate=True)
        except (ValueError, binascii.Error):
            return None
        if len(raw) <= NONCE + _TAG_BITS // 8:
            return None
        try:
            return self._decrypted(raw, bound)
        except Unavailable:
            # Modules tell a wrong tag by different errors, softhsm2 by a general one. What can do its own is not away.
            if self._decrypted(base64.b64decode(self.wrap(bytes(BYTES), _PROBE)), _PROBE) != bytes(BYTES):
                raise
            return None

    def _decrypted(self, raw: bytes, bound: str) -> bytes:
        return self._session.use(lambda kek: bytes(kek.decrypt(raw[NONCE:], **_gcm(raw[:NONCE], bound))))


def _gcm(nonce: bytes, bound: str) -> dict[str, Any]:
    return {
        "mechanism": pkcs11.Mechanism.AES_GCM,
        "mechanism_param": pkcs11.GCMParams(nonce, bound.encode(), _TAG_BITS),
    }


def _check(kek: Any) -> None:
    """Raises `Invalid` for what is no AES-256 key, and for one that can leave the token."""
    a = pkcs11.Attribute
    if kek[a.KEY_TYPE] != pkcs11.KeyType.AES or kek[a.VALUE_LEN] != BYTES:
        raise _no("is not an AES key of 256 bits")
    if not kek[a.SENSITIVE] or kek[a.EXTRACTABLE]:
        raise _no("can be taken out of it: it is not sensitive, or it is extractable")


def _no(why: str) -> Invalid:
    return Invalid(
        f"the key in the token {why}",
        hint="make one in the token: `pkcs11-tool --keygen --key-type AES:32 --sensitive --label kek`",
        code="kek_key_type",
    )


def _away(text: str, hint: str) -> Unavailable:
    return Unavailable(text, hint=hint, code=KEK_AWAY)
