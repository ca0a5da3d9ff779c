"""A blob at rest.

    "FJB1"  wrapped data key (40 bytes, AES key wrap, RFC 3394)  chunk*
    chunk = length of the ciphertext (4 bytes, big endian)  ciphertext with its 16-byte tag

Chunks hold up to 4 MiB and are sealed by AES-256-GCM under the blob's own data key. The nonce is
the chunk's number and a mark on the last one, so chunks can be neither reordered, dropped nor
appended; a data key encrypts one blob only, so a nonce never repeats under it.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import suppress

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.keywrap import InvalidUnwrap, aes_key_unwrap, aes_key_wrap

from falaj.kernel.errors import Integrity

MAGIC = b"FJB1"
CHUNK = 4 << 20
_WRAPPED = 40


def seal(plain: bytes, data_key: bytes, kek: bytes) -> bytes:
    """Encrypt under `data_key`, which is stored wrapped by `kek` (both 32 bytes)."""
    cipher = AESGCM(data_key)
    parts = [MAGIC, aes_key_wrap(kek, data_key)]
    count = max(1, -(-len(plain) // CHUNK))
    for i in range(count):
        sealed = cipher.encrypt(_nonce(i, i == count - 1), plain[i * CHUNK : (i + 1) * CHUNK], MAGIC)
        parts += [struct.pack(">I", len(sealed)), sealed]
    return b"".join(parts)


def unwrap(sealed: bytes, *keks: bytes) -> bytes:
    """The data key of a blob, wrapped by one of these. Raises `Integrity`."""
    wrapped = _wrapped_key(sealed)
    for kek in keks:
        with suppress(InvalidUnwrap):
            return aes_key_unwrap(kek, wrapped)
    raise _broken("its data key does not open with this home's key")


def open_sealed(sealed: bytes, data_key: bytes) -> bytes:
    """The plain bytes. Raises `Integrity` if anything was changed, moved, cut or added."""
    cipher = AESGCM(data_key)
    try:
        chunks = list(_chunks(sealed))
        if not chunks:
            raise _broken("it was cut off")
        last = len(chunks) - 1
        return b"".join(cipher.decrypt(_nonce(i, i == last), c, MAGIC) for i, c in enumerate(chunks))
    except InvalidTag as e:
        raise _broken("its bytes were changed") from e


def _wrapped_key(sealed: bytes) -> bytes:
    if sealed[:4] != MAGIC or len(sealed) < 4 + _WRAPPED:
        raise _broken("it is not a blob")
    return sealed[4 : 4 + _WRAPPED]


def _chunks(sealed: bytes) -> Iterator[bytes]:
    _wrapped_key(sealed)
    at = 4 + _WRAPPED
    while at < len(sealed):
        if at + 4 > len(sealed):
            raise _broken("it was cut off")
        (length,) = struct.unpack_from(">I", sealed, at)
        at += 4
        if not 16 <= length <= CHUNK + 16 or at + length > len(sealed):
            raise _broken("it was cut off")
        yield sealed[at : at + length]
        at += length


def _nonce(index: int, last: bool) -> bytes:
    return struct.pack(">QI", index, 1 if last else 0)


def _broken(why: str) -> Integrity:
    return Integrity(
        f"a stored blob cannot be used: {why}",
        hint="restore the home's blobs folder from a backup; `falaj audit log` shows what named it",
        code="blob_broken",
    )
