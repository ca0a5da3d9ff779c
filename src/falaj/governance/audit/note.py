"""C2SP signed notes, checkpoints and cosignatures (c2sp.org/signed-note, /tlog-checkpoint, /tlog-cosignature), Ed25519.

falaj.example/log                                  ← origin
8                                                  ← tree size
XcnaeacGWamtVZy3Ad7ZoqudgjqtL0lgz+Nw7/RgQyg=       ← root hash
                                                   ← the last empty line parts text and signatures
— falaj.example/log Uw2QOv…                        ← base64(key id, 4 bytes || signature)
— witness.example/w1 jWbPPw…                       ← base64(key id || time, 8 bytes || signature)
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Sequence
from typing import Protocol

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from falaj.governance.audit.merkle import HASH_SIZE
from falaj.kernel.digests import sha256
from falaj.kernel.errors import FalajError, Integrity, Invalid

MAX_NOTE = 1_000_000
"""Bytes of a note at the most."""
ED25519 = 0x01
"""The kind of key that a log signs with."""
COSIGNATURE = 0x04
"""The kind of key that a witness signs with: Ed25519 over the time and the text (cosignature/v1)."""
LATEST = (1 << 63) - 1
"""Seconds since 1970 that a cosignature may name at the most."""
SIZE_TYPE = "text/x.tlog.size"
"""The media type with which a witness says which size it has seen (c2sp.org/tlog-witness)."""
_TIME = 8  # bytes
_VKEY = re.compile(r"([^\s+]+)\+([0-9a-f]{8})\+([A-Za-z0-9+/=]+)\Z")
_SIZE = re.compile(r"(0|[1-9][0-9]{0,18})\Z")
_CONTROL = re.compile(rb"[\x00-\x09\x0b-\x1f]")


class Signs(Protocol):
    """A private key of a log: Ed25519, wherever it lies."""

    def public_key(self) -> Ed25519PublicKey | EllipticCurvePublicKey:
        """The public half; any but an Ed25519 one is refused."""
        ...

    def sign(self, data: bytes, /) -> bytes:
        """The signature of some bytes. Raises `Unavailable` where the key lies elsewhere and does not answer."""
        ...


class Verifier(msgspec.Struct, frozen=True):
    """Whose signature is believed: a name and an Ed25519 public key (32 bytes); `kind` is `ED25519` or `COSIGNATURE`."""

    name: str
    public: bytes
    kind: int = ED25519

    @property
    def key_id(self) -> bytes:
        """SHA-256(name || 0x0A || kind || public)[:4]."""
        return hashlib.sha256(self.name.encode() + b"\n" + self._typed).digest()[:4]

    @property
    def vkey(self) -> str:
        """The verifier as text: name+hex8(key id)+base64(kind || public)."""
        return f"{self.name}+{self.key_id.hex()}+{_base64(self._typed)}"

    @property
    def _typed(self) -> bytes:
        return bytes([self.kind]) + self.public


class Opened(msgspec.Struct, frozen=True):
    """A note with at least one believed signature: its text (ends in a newline) and the vkeys that signed it.

    `times` has the newest cosignature's seconds since 1970 by its witness's vkey; `unknown` names the lines by others.
    """

    text: str
    signers: tuple[str, ...]
    times: dict[str, int] = {}
    unknown: tuple[str, ...] = ()


class Checkpoint(msgspec.Struct, frozen=True):
    """The head of a log. `root` is 32 bytes; `extensions` are further lines that a foreign log may add."""

    origin: str
    size: int
    root: bytes
    extensions: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """The text that is signed."""
        lines = (self.origin, str(self.size), _base64(self.root), *self.extensions)
        return "".join(line + "\n" for line in lines)


def verifier_of(name: str, key: Ed25519PublicKey | EllipticCurvePublicKey, kind: int = ED25519) -> Verifier:
    """The verifier for a key. Raises `Invalid` for another type of key, or a name that is empty or holds white space or a plus."""
    if not isinstance(key, Ed25519PublicKey):
        raise Invalid("a log's key is Ed25519, nothing else", hint="name a key of that type", code="signer_key_type")
    if not _name_ok(name):
        raise Invalid(f"{name!r} cannot name a key", hint="use a name without spaces and '+'", code="bad_key_name")
    return Verifier(name, key.public_bytes_raw(), kind)


def parse_vkey(text: str, kind: int = ED25519) -> Verifier:
    """Read a vkey of a kind. Raises `Invalid` unless it is exactly what `Verifier.vkey` writes for its name and key."""
    match = _VKEY.match(text)
    if match:
        try:
            key = unbase64(match[3])
        except Integrity:
            key = b""
        if len(key) == 1 + HASH_SIZE and key[0] == kind:
            verifier = Verifier(match[1], key[1:], kind)
            if verifier.vkey == text:
                return verifier
    raise Invalid(
        "this is not a verification key: its parts do not belong together",
        hint="a vkey is name+8 hex digits+base64, copied whole, with an Ed25519 key of a log or, where one is asked"
        " for, of a witness",
        code="bad_vkey",
    )


def sign(text: str, signers: Sequence[tuple[str, Signs]]) -> bytes:
    """The note over `text` (must end in a newline), with one signature line for each (name, key)."""
    data = text.encode()
    if not text.endswith("\n") or _CONTROL.search(data) or not signers:
        raise Invalid(
            "this text cannot be signed", hint="end it with a newline; no control characters", code="bad_note"
        )
    lines = []
    for name, key in signers:
        verifier = verifier_of(name, key.public_key())
        lines.append(f"— {name} {_base64(verifier.key_id + key.sign(data))}\n")
    return (text + "\n" + "".join(lines)).encode()


def cosign(text: str, name: str, key: Ed25519PrivateKey, time: int) -> str:
    """The line with which a witness cosigns a checkpoint's text at `time` (seconds since 1970); ends in a newline."""
    verifier = verifier_of(name, key.public_key(), COSIGNATURE)
    signature = time.to_bytes(_TIME, "big") + key.sign(_cosigned(text, time))
    return f"— {name} {_base64(verifier.key_id + signature)}\n"


def open_note(note: bytes, verifiers: Sequence[Verifier]) -> Opened:
    """Check a note. Signatures by others are ignored; one by a known key that is wrong rejects the note.

    Raises `Integrity` for a malformed note, a wrong signature, or no signature by a verifier.
    """
    known = {(v.name, v.key_id): v for v in verifiers}
    if len(known) != len(verifiers):
        raise Invalid("two verifiers have the same name and key id", hint="name each verifier once", code="bad_vkey")
    text, lines = _parts(note)
    times: dict[str, int] = {}
    unknown: list[str] = []
    for line in lines:
        name, key_id, signature = _signature(line)
        verifier = known.get((name, key_id))
        if verifier is None:
            unknown.append(name)
            continue
        try:
            time = _verified(verifier, text, signature)
        except (InvalidSignature, ValueError) as e:
            raise _bad(f"the signature by {name} is wrong") from e
        times[verifier.vkey] = max(time, times.get(verifier.vkey, 0))
    if not times:
        raise _bad("no signature by a known key", code="audit_unsigned")
    cosigned = {v.vkey: times[v.vkey] for v in verifiers if v.kind == COSIGNATURE and v.vkey in times}
    return Opened(text, tuple(times), cosigned, tuple(unknown))


def lines_of(note: bytes) -> list[tuple[str, bytes, str]]:
    """(name, key id, whole line) of each signature line of a note. Raises `Integrity` for a malformed note."""
    return [(*_signature(line)[:2], line + "\n") for line in _parts(note)[1]]


def unsigned(note: bytes) -> Checkpoint:
    """What a note says before anybody looked at who signed it: to find out whom to ask. Raises `Integrity`."""
    return parse_checkpoint(_parts(note)[0])


def parse_checkpoint(text: str) -> Checkpoint:
    """Read a checkpoint's text; it must be exactly what `Checkpoint.text` writes. Raises `Integrity` otherwise."""
    lines = text.split("\n")
    if len(lines) < 4 or lines[-1] or not all(lines[:-1]) or not _SIZE.match(lines[1]):
        raise _bad("this is not a checkpoint: it needs an origin, a size and a root hash", code="bad_checkpoint")
    root = unbase64(lines[2])
    if len(root) != HASH_SIZE:
        raise _bad(f"the checkpoint's root hash has {len(root)} bytes instead of {HASH_SIZE}", code="bad_checkpoint")
    return Checkpoint(lines[0], int(lines[1]), root, tuple(lines[3:-1]))


def open_checkpoint(note: bytes, verifier: Verifier) -> Checkpoint:
    """The checkpoint in a note, signed by the log itself: its origin is the verifier's name. Raises `Integrity`."""
    return open_witnessed(note, verifier, ())[0]


def open_witnessed(note: bytes, verifier: Verifier, witnesses: Sequence[Verifier]) -> tuple[Checkpoint, Opened]:
    """As `open_checkpoint`, with the cosignatures of these witnesses checked too; a wrong one rejects the note."""
    opened = open_note(note, [verifier, *witnesses])
    checkpoint = parse_checkpoint(opened.text)
    if verifier.vkey not in opened.signers:
        raise _bad("no signature by the log's own key", code="audit_unsigned")
    if checkpoint.origin != verifier.name:
        raise _bad(f"the checkpoint is of {checkpoint.origin}, not of {verifier.name}", code="bad_checkpoint")
    return checkpoint, opened


def encode_head(checkpoint: Checkpoint) -> bytes:
    """What the publisher keeps of a checkpoint before it signs it: the text and a digest that shows a changed byte."""
    return f"{checkpoint.text}{sha256(checkpoint.text.encode())}\n".encode()


def parse_head(data: bytes) -> Checkpoint:
    """Read a head file. Raises `Integrity` unless it is exactly what `encode_head` writes."""
    try:
        text, _, _ = data.decode("utf-8").removesuffix("\n").rpartition("\n")
        checkpoint = parse_checkpoint(text + "\n")
    except UnicodeDecodeError as e:
        raise _bad("the head file is not UTF-8") from e
    if encode_head(checkpoint) != data:
        raise _bad("the head file does not have the digest that it names")
    return checkpoint


def unbase64(text: str) -> bytes:
    """Standard base64 with padding, in its one spelling: the last unused bits are zero. Raises `Integrity`."""
    try:
        data = base64.b64decode(text.encode("ascii"), validate=True)
    except (binascii.Error, ValueError) as e:
        raise _bad("a base64 text is malformed") from e
    if _base64(data) != text:
        raise _bad("a base64 text has stray bits")
    return data


def _parts(note: bytes) -> tuple[str, list[str]]:
    """The text and the signature lines."""
    if len(note) > MAX_NOTE:
        raise _bad(f"a note of {len(note)} bytes is too large")
    if _CONTROL.search(note):
        raise _bad("the note holds a control character")
    try:
        whole = note.decode("utf-8")
    except UnicodeDecodeError as e:
        raise _bad("the note is not UTF-8") from e
    text, parted, signatures = whole.rpartition("\n\n")
    if not parted or not signatures.endswith("\n"):
        raise _bad("the note has no signatures")
    return text + "\n", signatures[:-1].split("\n")


def _signature(line: str) -> tuple[str, bytes, bytes]:
    """Name, key id and signature of a line `— name base64`."""
    parts = line.split(" ")
    if len(parts) != 3 or parts[0] != "—" or not _name_ok(parts[1]):
        raise _bad("a signature line is malformed")
    data = unbase64(parts[2])
    if len(data) < 5:
        raise _bad("a signature is too short")
    return parts[1], data[:4], data[4:]


def _verified(verifier: Verifier, text: str, signature: bytes) -> int:
    """The time of a cosignature, 0 for a log's signature. Raises `InvalidSignature` or `ValueError` if it is wrong."""
    key = Ed25519PublicKey.from_public_bytes(verifier.public)
    if verifier.kind == ED25519:
        key.verify(signature, text.encode())
        return 0
    time = int.from_bytes(signature[:_TIME], "big")
    if len(signature) <= _TIME or time > LATEST:
        raise ValueError("no time")
    key.verify(signature[_TIME:], _cosigned(text, time))
    return time


def _cosigned(text: str, time: int) -> bytes:
    return f"cosignature/v1\ntime {time}\n{text}".encode()


def _name_ok(name: str) -> bool:
    return bool(name) and "+" not in name and not any(c.isspace() for c in name)


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def refused(message: str) -> FalajError:
    """The refusal of a note."""
    return _bad(message)


def _bad(message: str, code: str = "bad_note") -> FalajError:
    return Integrity(message, hint="fetch it again from the log; if it stays so, it was changed", code=code)
