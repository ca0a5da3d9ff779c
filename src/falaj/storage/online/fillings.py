"""How the values of one filling of a view are encrypted.

A filling has a data key of its own, wrapped by the store's key for the view that was filled.

    wrapped  nonce (12 bytes)  data key under AES-256-GCM, the view's digest bound (48 bytes)
    name     the view's prefix  keyed BLAKE2b of the entity key (16 bytes): the same key, another name in each filling
    value    number of the value (4 bytes)  ciphertext with its 16-byte tag; the number is the nonce, the name is bound
"""

from __future__ import annotations

import secrets
from hashlib import blake2b

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from falaj.kernel.errors import Integrity
from falaj.storage.keychain import not_held

_NONCE, _NUMBER, _NAME = 12, 4, 16
_ZEROS = bytes(_NONCE - _NUMBER)
_PREFIX_HEX = 32


class Filling:
    """Names, seals and opens the values of one filling."""

    def __init__(self, view: str, data_key: bytes) -> None:
        self._prefix = prefix_of(view)
        cipher = AESGCM(data_key)
        self._encrypt, self._decrypt = cipher.encrypt, cipher.decrypt
        named = blake2b(b"falaj online names", key=data_key, digest_size=32).digest()
        self._keyed = blake2b(
            key=named, digest_size=_NAME
        )  # copied for each name, which is faster than taking the key in

    def name(self, key: bytes) -> bytes:
        """Where the value of an entity lies."""
        keyed = self._keyed.copy()
        keyed.update(key)
        return self._prefix + keyed.digest()

    def seal(self, number: int, key: bytes, value: bytes) -> tuple[bytes, bytes]:
        """Name and sealed value; a number is used once in a filling."""
        name, counted = self.name(key), number.to_bytes(_NUMBER, "big")
        return name, counted + self._encrypt(_ZEROS + counted, value, name)

    def open(self, name: bytes, sealed: bytes | memoryview) -> bytes:
        """The value that lies at a name. Raises `Integrity`."""
        try:
            return self._decrypt(_ZEROS + bytes(sealed[:_NUMBER]), sealed[_NUMBER:], name)
        except (InvalidTag, ValueError) as e:
            raise Integrity(
                "the online store holds something that is not a feature value: its bytes were changed",
                hint="materialise the features again",
                code="online_value_damaged",
            ) from e


def prefix_of(view: str) -> bytes:
    """What the names of a view's values begin with, by its digest."""
    return view.removeprefix("sha256:")[:_PREFIX_HEX].encode() + b"\0"


def new_filling(view: str, keys: tuple[bytes, ...]) -> tuple[bytes, Filling]:
    """A fresh data key, wrapped by the first of the store's keys, and what seals with it. Raises `Integrity` without a key."""
    if not keys:
        raise not_held("the online store")
    data_key, nonce = secrets.token_bytes(32), secrets.token_bytes(_NONCE)
    return nonce + AESGCM(keys[0]).encrypt(nonce, data_key, view.encode()), Filling(view, data_key)


def opened_filling(view: str, wrapped: bytes, keys: tuple[bytes, ...]) -> Filling:
    """What opens the values of a view. Raises `Integrity` when none of the store's keys does."""
    for key in keys:
        try:
            return Filling(view, AESGCM(key).decrypt(wrapped[:_NONCE], wrapped[_NONCE:], view.encode()))
        except (InvalidTag, ValueError):
            continue
    raise not_held("the online store")
