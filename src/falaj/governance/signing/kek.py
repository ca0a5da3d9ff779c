"""The key-encryption key: what wraps the keys of the stores, and nothing else.

`KeyEncryptionKey` is the port. Here it is a file; one that a KMS or Vault keeps wraps and unwraps over there, and is asked
only when a home is opened and when it rotates.

    wrapped = nonce (12 bytes)  key under AES-256-GCM, its place bound (base64); by HKDF-SHA-256 of the file's 256 bits
"""

from __future__ import annotations

import base64
import binascii
import secrets
from pathlib import Path
from typing import Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from falaj.governance.signing.recovery import public_ids
from falaj.kernel.errors import Integrity
from falaj.kernel.files import flush, write_private

FILE = "kek.bin"
NEXT = ".kek.next"
_BYTES, _NONCE = 32, 12


class KeyEncryptionKey(Protocol):
    """Wraps keys for a place; what was wrapped for one opens for no other."""

    @property
    def id(self) -> str:
        """A public name: the same key, the same id."""
        ...

    def wrap(self, key: bytes, place: str) -> str:
        """A key as it may lie anywhere."""
        ...

    def unwrap(self, wrapped: str, place: str) -> bytes:
        """The key. Raises `Integrity` for what this did not wrap for this place."""
        ...


class KeyEncryptionKeys(Protocol):
    """Where the key-encryption key comes from, and its successor."""

    def current(self) -> KeyEncryptionKey:
        """The one that holds."""
        ...

    def prepare(self) -> KeyEncryptionKey:
        """A successor that survives a crash and does not hold yet."""
        ...

    def take_over(self) -> None:
        """Let the successor hold. The old one is gone then."""
        ...

    def settle(self, kek: str) -> None:
        """Finish what a crash cut short: a successor of this id takes over, any other goes."""
        ...


class FileKey:
    """A key-encryption key of 32 bytes that this process knows."""

    def __init__(self, secret: bytes) -> None:
        self.id = public_ids({FILE: secret})[Path(FILE).stem]
        derived = HKDF(algorithm=hashes.SHA256(), length=_BYTES, salt=None, info=b"falaj/store-keys/1").derive(secret)
        self._cipher = AESGCM(derived)

    def wrap(self, key: bytes, place: str) -> str:
        """See `KeyEncryptionKey`."""
        nonce = secrets.token_bytes(_NONCE)
        return base64.b64encode(nonce + self._cipher.encrypt(nonce, key, place.encode())).decode()

    def unwrap(self, wrapped: str, place: str) -> bytes:
        """See `KeyEncryptionKey`."""
        try:
            raw = base64.b64decode(wrapped, validate=True)
            return self._cipher.decrypt(raw[:_NONCE], raw[_NONCE:], place.encode())
        except (InvalidTag, binascii.Error, ValueError) as e:
            raise Integrity(
                f"the key of {place.partition('/')[0]} does not open with this home's key-encryption key",
                hint="bring back the key that belongs to this home: `falaj keys restore FILE`, with the newest keys backup",
                code="store_key_broken",
            ) from e


class FileKeys:
    """The key-encryption key in a home's keys folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._current = FileKey((folder / FILE).read_bytes())

    def current(self) -> FileKey:
        """See `KeyEncryptionKeys`."""
        return self._current

    def prepare(self) -> FileKey:
        """See `KeyEncryptionKeys`."""
        path, secret = self._folder / NEXT, secrets.token_bytes(_BYTES)
        path.unlink(missing_ok=True)
        write_private(path, secret)
        flush(self._folder)
        return FileKey(secret)

    def take_over(self) -> None:
        """See `KeyEncryptionKeys`."""
        (self._folder / NEXT).replace(self._folder / FILE)
        flush(self._folder)
        self._current = FileKey((self._folder / FILE).read_bytes())

    def settle(self, kek: str) -> None:
        """See `KeyEncryptionKeys`."""
        path = self._folder / NEXT
        if not path.exists():
            return
        if kek != self._current.id and FileKey(path.read_bytes()).id == kek:
            self.take_over()
        else:
            path.unlink()
