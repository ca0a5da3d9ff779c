"""A private key in a file, readable by its owner only; or where it lies instead, with its public half:

elsewhere: pkcs11:token=falaj;object=model?module-path=…&pin-source=…
-----BEGIN PUBLIC KEY-----
…
"""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from falaj.governance.signing.dsse import PublicKey, load_public_key
from falaj.kernel.errors import Denied, Integrity
from falaj.kernel.files import write_private

K = TypeVar("K")
_MARK = b"elsewhere: "
PrivateKey = Ed25519PrivateKey | ec.EllipticCurvePrivateKey | X25519PrivateKey
_OTHERS = 0o077  # rights of the group and of everybody


def plane_key(folder: Path) -> X25519PrivateKey:
    """A data plane's own key, made on first use."""
    path = folder / "key.pem"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_private(path, encoded(X25519PrivateKey.generate()))
    return load(path, X25519PrivateKey)


def encoded(key: PrivateKey) -> bytes:
    """PEM (PKCS#8), without a password."""
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def reference(place: str, public: PublicKey) -> bytes:
    """The file of a key that lies elsewhere."""
    pem = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return _MARK + place.encode() + b"\n" + pem


def referred(data: bytes) -> tuple[str, PublicKey] | None:
    """Where the key of a file lies, and its public half; None for a file that holds its key. Raises `Integrity`."""
    if not data.startswith(_MARK):
        return None
    place, _, pem = data.removeprefix(_MARK).partition(b"\n")
    return place.decode("utf-8", "replace"), load_public_key(pem.decode("ascii", "replace"))


def load(path: Path, kind: type[K]) -> K:
    """A key of a type. Raises `Integrity` for anything else, `Denied` when others could read it."""
    try:
        key = load_pem_private_key(secret_of(path), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as e:
        raise broken(path) from e
    if not isinstance(key, kind):
        raise broken(path)
    check_private(path)
    return key


def secret_of(path: Path) -> bytes:
    """A file's bytes. Raises `Integrity` when it cannot be read."""
    try:
        return path.read_bytes()
    except OSError as e:
        raise broken(path) from e


def check_private(path: Path) -> None:
    """Raises `Denied` for a file that others could read."""
    if path.stat().st_mode & _OTHERS:
        raise Denied(
            f"the key {path.name} could be read by others: it is used no more until it is private again",
            hint=f"find out who may have read it, then `chmod 600 {path}`; a key that was copied must be replaced",
            code="key_exposed",
        )


def broken(path: Path) -> Integrity:
    """The refusal of a key file."""
    return Integrity(
        f"the key {path.name} is missing or cannot be read",
        hint="restore the home's keys folder from a backup; a new key cannot open what the old one protects",
        code="key_missing",
    )
