"""Files that are sealed as a whole: those of the lake, of parcels, of backups.

    "FJS1"  nonce (12 bytes)  data key under the store's key (48 bytes, AES-256-GCM)  chunk*
    chunk = length of the ciphertext (4 bytes, big endian)  ciphertext with its 16-byte tag

A data key encrypts one file. Chunks hold up to 1 MiB of it and are sealed by AES-256-GCM; the nonce is the chunk's number
and a mark on the last one, so they can be neither reordered, dropped nor appended. What the file is, its identity, is bound
to the data key and to every chunk: it opens under that name only.
"""

from __future__ import annotations

import base64
import secrets
import struct
from collections.abc import Callable, Iterable, Iterator, Sequence

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from falaj.kernel.errors import Integrity

MAGIC = b"FJS1"
CHUNK = 1 << 20
_NONCE, _WRAPPED, _TAG = 12, 48, 16
_TEXT = "fjs1:"  # JSON never begins like this
HEAD = len(MAGIC) + _NONCE + _WRAPPED


def seal(plain: bytes, key: bytes, identity: str) -> bytes:
    """Seal under a data key of its own, which `key` (32 bytes) opens."""
    return b"".join(sealing([plain], key, identity))


def unseal(sealed: bytes, keys: Sequence[bytes], identity: str) -> bytes:
    """The plain bytes. Raises `Integrity` when no key opens it, or anything was changed, moved, cut or added."""
    at = 0

    def read(count: int) -> bytes:
        nonlocal at
        block, at = sealed[at : at + count], at + count
        return block

    return b"".join(opening(read, keys, identity))


def sealing(plain: Iterable[bytes], key: bytes, identity: str) -> Iterator[bytes]:
    """As `seal`, piece by piece; pieces may have any length."""
    sealer = Sealer(key, identity)
    yield sealer.head
    for piece in plain:
        yield sealer.feed(piece)
    yield sealer.end()


class Sealer:
    """As `sealing`, for whoever has the pieces one by one: `head`, what `feed` returns, and what `end` returns."""

    def __init__(self, key: bytes, identity: str) -> None:
        data_key, nonce, self._bound = secrets.token_bytes(32), secrets.token_bytes(_NONCE), _bound(identity)
        self.head = MAGIC + nonce + AESGCM(key).encrypt(nonce, data_key, self._bound)
        self._cipher, self._number, self._waiting = AESGCM(data_key), 0, bytearray()

    def feed(self, piece: bytes) -> bytes:
        """What is complete with this piece."""
        sealed, self._waiting = [], self._waiting + piece
        while len(self._waiting) > CHUNK:  # the last one is known as such only at the end
            sealed.append(_chunk(self._cipher, self._number, bytes(self._waiting[:CHUNK]), self._bound, last=False))
            self._number += 1
            del self._waiting[:CHUNK]
        return b"".join(sealed)

    def end(self) -> bytes:
        """The last chunk."""
        return _chunk(self._cipher, self._number, bytes(self._waiting), self._bound, last=True)


def opening(read: Callable[[int], bytes], keys: Sequence[bytes], identity: str) -> Iterator[bytes]:
    """As `unseal`, chunk by chunk; `read` gives at most so many bytes, fewer only at the end.

    What was given is from the file, in its place; only when no error followed was that all of it.
    """
    head, bound = read(HEAD), _bound(identity)
    if len(head) != HEAD or not is_sealed(head):
        raise _broken("it is not a sealed file, or was cut off")
    cipher = AESGCM(_data_key(head, keys, bound))
    frame, number = read(4), 0
    while True:
        (length,) = struct.unpack(">I", frame) if len(frame) == 4 else (0,)
        sealed = read(length) if _TAG <= length <= CHUNK + _TAG else b""
        if not length or len(sealed) != length:
            raise _broken("it was cut off")
        frame = read(4)
        try:
            yield cipher.decrypt(_nonce(number, last=not frame), sealed, bound)
        except InvalidTag as e:
            raise _broken("its bytes were changed, or are another file's") from e
        if not frame:
            return
        number += 1


def seal_text(text: str, key: bytes, identity: str) -> str:
    """A short text sealed under `key` itself, as text."""
    nonce = secrets.token_bytes(_NONCE)
    return _TEXT + base64.b64encode(nonce + AESGCM(key).encrypt(nonce, text.encode(), _bound(identity))).decode()


def open_text(text: str, keys: Sequence[bytes], identity: str) -> str:
    """The text that was sealed; one that is not sealed is of 0.1, and comes back as it is. Raises `Integrity`."""
    if not text.startswith(_TEXT):
        return text
    for key in keys:
        try:
            raw = base64.b64decode(text.removeprefix(_TEXT), validate=True)
            return AESGCM(key).decrypt(raw[:_NONCE], raw[_NONCE:], _bound(identity)).decode()
        except (InvalidTag, ValueError):
            continue
    raise _broken("no key that this process holds opens it")


def plain_size(sealed: int) -> int:
    """How many plain bytes a sealed file of so many bytes holds."""
    chunks = -(-(sealed - HEAD) // (CHUNK + 4 + _TAG))
    return sealed - HEAD - chunks * (4 + _TAG)


def is_sealed(beginning: bytes) -> bool:
    """Whether a file with this beginning is a sealed one."""
    return beginning[: len(MAGIC)] == MAGIC


def _data_key(head: bytes, keys: Sequence[bytes], bound: bytes) -> bytes:
    nonce, wrapped = head[len(MAGIC) : len(MAGIC) + _NONCE], head[len(MAGIC) + _NONCE :]
    for key in keys:
        try:
            return AESGCM(key).decrypt(nonce, wrapped, bound)
        except InvalidTag:
            continue
    raise _broken("no key that this process holds opens it")


def _chunk(cipher: AESGCM, number: int, plain: bytes, bound: bytes, *, last: bool) -> bytes:
    sealed = cipher.encrypt(_nonce(number, last=last), plain, bound)
    return struct.pack(">I", len(sealed)) + sealed


def _nonce(number: int, *, last: bool) -> bytes:
    return struct.pack(">QI", number, 1 if last else 0)


def _bound(identity: str) -> bytes:
    return MAGIC + b"\0" + identity.encode()


def _broken(why: str) -> Integrity:
    return Integrity(
        f"an encrypted file cannot be used: {why}",
        hint="restore it from a backup of the same home; keys that were lost come back with `falaj keys restore`",
        code="sealed_file_broken",
    )
