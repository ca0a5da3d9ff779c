"""How a journal's segment is encrypted.

Each segment has a data key of its own. Its beginning carries it, sealed to the home's journal key, so whoever writes
segments cannot read them again: a data plane holds no key that opens what it wrote down.

    head    = "FALAJJ2\\n"  the data key sealed by HPKE for "falaj journal " and the segment's name (base64)  "\\n"
    payload = nonce (12 bytes: how many records the writer has sealed)  ciphertext with its 16-byte tag (AES-256-GCM)

The segment's name and the record's offset are bound to each payload: no record can stand in another one's place. The nonce is
counted, not the offset: what could not be written is tried again at the same place, and may be something else then.
"""

from __future__ import annotations

import secrets
from functools import lru_cache

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from falaj.governance.signing.sealing import seal_to, unseal
from falaj.kernel.errors import Integrity
from falaj.storage.keychain import not_held

SEALED = b"FALAJJ2\n"
HEAD = len(SEALED) + 108 + 1
_PURPOSE = "falaj journal "
_NONCE = 12


class Sealer:
    """Seals the records of one new segment; `head` is what the segment begins with."""

    def __init__(self, segment: str, reader: bytes) -> None:
        """`reader` is the public half (32 bytes) of the key that the segment shall be read with. Raises `Integrity`."""
        if not reader:
            raise not_held("the prediction journal")
        key = secrets.token_bytes(32)
        self.head = (
            SEALED + seal_to(X25519PublicKey.from_public_bytes(reader), key, _PURPOSE + segment).encode() + b"\n"
        )
        self._encrypt = AESGCM(key).encrypt
        self._segment = segment.encode()
        self._count = 0

    def seal(self, plain: bytes, offset: int) -> bytes:
        """The payload of the record at an offset."""
        self._count += 1
        nonce = self._count.to_bytes(_NONCE, "big")
        return nonce + self._encrypt(nonce, plain, self._segment + offset.to_bytes(8, "big"))


class Opener:
    """Opens the records of one segment."""

    def __init__(self, segment: str, head: bytes, keys: tuple[bytes, ...]) -> None:
        """`keys` are private ones (32 bytes each), of which one opens the segment. Raises `Integrity` without any."""
        if not keys:
            raise not_held(f"the journal segment {segment}")
        data_key = _data_key(segment, head, keys)
        self._decrypt = AESGCM(data_key).decrypt if data_key else None
        self._segment = segment.encode()

    def open(self, payload: bytes, offset: int) -> bytes | None:
        """A record's plain bytes; None for what was changed, is not from this place, or is under a key that none opens."""
        if self._decrypt is None:
            return None
        try:
            return self._decrypt(payload[:_NONCE], payload[_NONCE:], self._segment + offset.to_bytes(8, "big"))
        except (InvalidTag, ValueError):
            return None


@lru_cache(maxsize=256)
def _data_key(segment: str, head: bytes, keys: tuple[bytes, ...]) -> bytes | None:
    sealed = head[len(SEALED) : -1].decode("ascii", "replace")
    for key in keys:
        try:
            return unseal(X25519PrivateKey.from_private_bytes(key), sealed, _PURPOSE + segment)
        except Integrity:
            continue
    return None
