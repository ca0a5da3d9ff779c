"""All private keys of a home in one file, sealed under a recovery code that exists on paper only.

    code   27 + 5 letters and digits of Crockford's base 32, in groups of four: 135 random bits, 25 bits of checksum
    key    HKDF-SHA-256(code, salt of the file, the file's purpose): the code is no password, so nothing has to be slow
    file   JSON: what it is, the public ids of the keys, salt, nonce, and the keys under AES-256-GCM; all before is bound

Who has the file alone can try 2^135 codes; who has the code alone has nothing.
"""

from __future__ import annotations

import base64
import hashlib
import secrets
from pathlib import Path

import msgspec
from cryptography.exceptions import InvalidTag, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes, PublicKeyTypes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

from falaj.governance.signing.dsse import PublicKey
from falaj.governance.signing.keyfile import referred
from falaj.kernel.digests import canonical_json, sha256
from falaj.kernel.errors import Conflict, Denied, FalajError, Integrity, Invalid, NotFound
from falaj.kernel.files import flush, write_private
from falaj.kernel.ids import ALPHABET

FORMAT = "falaj-keys-1"
ELSEWHERE = "elsewhere: "
"""How a key's file begins that does not hold it."""
_ALPHABET = ALPHABET.upper()
_LIKE = str.maketrans("ILO", "110")  # what a person reads for another letter
_RANDOM, _CHECK, _GROUP = 27, 5, 4  # characters of five bits
_MAX_FILE = 1 << 20


class _Header(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    format: str
    made_at: str
    keys: dict[str, str]
    salt: str
    nonce: str


class KeyArchive(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The file. `header.keys` are public ids by name; `sealed` is base64."""

    header: _Header
    sealed: str


def new_code() -> str:
    """A fresh recovery code, in groups of four."""
    random = "".join(secrets.choice(_ALPHABET) for _ in range(_RANDOM))
    whole = random + _checksum(random)
    return "-".join(whole[i : i + _GROUP] for i in range(0, len(whole), _GROUP))


def parse_code(text: str) -> str:
    """The 27 random characters of a code as a person typed it. Raises `Invalid` for what cannot be one."""
    plain = "".join(text.split()).replace("-", "").upper().translate(_LIKE)
    right = len(plain) == _RANDOM + _CHECK and all(c in _ALPHABET for c in plain)
    if not right or not secrets.compare_digest(_checksum(plain[:_RANDOM]), plain[_RANDOM:]):
        raise Invalid(
            "this is not a recovery code: it has 8 groups of four letters and digits, and the last ones check the others",
            hint="look at each group again; 0 and O, 1, I and L count as the same",
            code="recovery_code_mistyped",
        )
    return plain[:_RANDOM]


def seal(keys: dict[str, bytes], code: str, made_at: str) -> bytes:
    """The bytes of a file with these keys (file name → content)."""
    salt, nonce = secrets.token_bytes(32), secrets.token_bytes(12)
    header = _Header(FORMAT, made_at, public_ids(keys), _text(salt), _text(nonce))
    plain = msgspec.json.encode({name: _text(data) for name, data in keys.items()})
    sealed = AESGCM(_key(parse_code(code), salt)).encrypt(nonce, plain, canonical_json(header))
    return msgspec.json.encode(KeyArchive(header, _text(sealed)))


def unseal(data: bytes, code: str) -> dict[str, bytes]:
    """The keys in a file. Raises `Denied` when the code does not open it, whatever the reason."""
    archive, typed = parse(data), parse_code(code)
    try:
        salt, nonce = base64.b64decode(archive.header.salt), base64.b64decode(archive.header.nonce)
        sealed = base64.b64decode(archive.sealed)
        plain = AESGCM(_key(typed, salt)).decrypt(nonce, sealed, canonical_json(archive.header))
        found = msgspec.json.decode(plain, type=dict[str, str])
        return {name: base64.b64decode(text) for name, text in found.items()}
    except (InvalidTag, ValueError, msgspec.DecodeError) as e:
        raise Denied(
            "the recovery code does not open this file",
            hint="use the code that was shown when this very file was made; each keys backup has its own",
            code="wrong_recovery_code",
        ) from e


def parse(data: bytes) -> KeyArchive:
    """A file as it is, still sealed. Raises `Invalid`."""
    try:
        archive = msgspec.json.decode(data[: _MAX_FILE + 1], type=KeyArchive)
    except (msgspec.DecodeError, UnicodeDecodeError) as e:
        raise _no_archive("it cannot be read") from e
    if archive.header.format != FORMAT:
        raise _no_archive(f"it has form {archive.header.format[:40]!r}")
    return archive


def read_folder(folder: Path) -> dict[str, bytes]:
    """The keys in a home's keys folder: file name → content. Raises `NotFound` without any."""
    found = {p.name: p.read_bytes() for p in sorted(folder.glob("*")) if p.is_file() and not p.name.startswith(".")}
    if not found:
        raise NotFound(
            f"there are no keys in {folder}",
            hint="name the file that `falaj keys backup` wrote, or a home's keys folder",
            code="no_keys",
        )
    return found


def public_ids(keys: dict[str, bytes]) -> dict[str, str]:
    """What each key is called in public: the digest of its public half, or of a secret of 256 random bits.

    Keys go by their file's name without its ending. Raises `Integrity` for bytes that are no key.
    """
    return {Path(name).stem: _public_id(name, data) for name, data in sorted(keys.items())}


def elsewhere(keys: dict[str, bytes]) -> dict[str, str]:
    """Where those of them lie that are not in their files, by name."""
    places = {name: data.partition(b"\n")[0].decode("utf-8", "replace") for name, data in sorted(keys.items())}
    return {Path(n).stem: p.removeprefix(ELSEWHERE) for n, p in places.items() if p.startswith(ELSEWHERE)}


def install(keys: dict[str, bytes], folder: Path) -> list[str]:
    """Write the keys that are missing, readable for their owner only, flushed; returns their names.

    Nothing is overwritten. Raises `Conflict`, and writes nothing, when another key of one of the names is there.
    """
    for name, data in keys.items():
        if Path(name).name != name or name.startswith("."):
            raise _no_archive(f"it names {name[:40]!r}")
        path = folder / name
        if path.exists() and path.read_bytes() != data:
            raise Conflict(
                f"another {name} is in {folder} already",
                hint="these keys are of another home, or the file there is damaged: move it away first, and keep it",
                code="another_key_there",
            )
    missing = [name for name in sorted(keys) if not (folder / name).exists()]
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    for name in missing:
        temporary = folder / f".{name}.{secrets.token_hex(4)}"
        write_private(temporary, keys[name])
        temporary.rename(folder / name)
    flush(folder)
    return missing


def _public_id(name: str, data: bytes) -> str:
    if not name.endswith(".pem"):
        return sha256(b"falaj key id\0" + name.encode() + b"\0" + data)
    return sha256(_public_half(name, data).public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))


def _public_half(name: str, data: bytes) -> PublicKeyTypes:
    """Of a key in a file, or of one that lies elsewhere. Raises `Integrity` for bytes that are neither."""
    try:
        other = referred(data)
    except FalajError as e:
        raise _unreadable(name) from e
    return other[1] if other is not None else _loaded(name, data).public_key()


def _loaded(name: str, data: bytes) -> PrivateKeyTypes:
    try:
        return load_pem_private_key(data, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as e:
        raise _unreadable(name) from e


def _unreadable(name: str) -> Integrity:
    return Integrity(
        f"the key {name} cannot be read",
        hint="bring it back from the keys backup: `falaj keys restore FILE`",
        code="key_missing",
    )


def log_key(keys: dict[str, bytes]) -> Ed25519PublicKey | None:
    """The public half of the key that signs the audit log's checkpoints, if it is among these.

    Raises `Integrity` for bytes that are no key.
    """
    key = _public_half("log.pem", keys["log.pem"]) if "log.pem" in keys else None
    return key if isinstance(key, Ed25519PublicKey) else None


def attestation_key(keys: dict[str, bytes]) -> PublicKey | None:
    """The public half of the key that signs statements and backups, if it is among these.

    Raises `Integrity` for bytes that are no key.
    """
    key = _public_half("attestation.pem", keys["attestation.pem"]) if "attestation.pem" in keys else None
    return key if isinstance(key, (Ed25519PublicKey, EllipticCurvePublicKey)) else None


def _key(code: str, salt: bytes) -> bytes:
    return HKDF(algorithm=hashes.SHA256(), length=32, salt=salt, info=b"falaj/keys-backup/1").derive(code.encode())


def _checksum(random: str) -> str:
    value = int.from_bytes(hashlib.sha256(b"falaj recovery code\0" + random.encode()).digest()[:4], "big")
    return "".join(_ALPHABET[(value >> (5 * i)) & 31] for i in range(_CHECK))


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _no_archive(why: str) -> Invalid:
    return Invalid(
        f"this is not a keys backup: {why}",
        hint="name the file that `falaj keys backup` wrote",
        code="not_a_keys_backup",
    )
