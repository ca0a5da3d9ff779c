"""The home's keys, one file each, readable by their owner only.

`attestation`  Ed25519     statements of evidence
`dev`, `staging`, `production`
               Ed25519     each environment's own: its admissions, bundles and rehearsals
`model`        ECDSA P-256 OpenSSF model signatures (the format knows no Ed25519 keys)
`log`          Ed25519     checkpoints of the audit log
`kek`          256 bits    wraps the data keys of blobs
`pepper`       256 bits    keys the hashes of tokens
"""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Container
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

from falaj.governance.signing.trust import SIGNING, KeyRecord
from falaj.kernel.digests import sha256
from falaj.kernel.environments import ENVIRONMENTS, home_of
from falaj.kernel.errors import Denied, Integrity
from falaj.kernel.files import flush, write_private

K = TypeVar("K")
_SYMMETRIC = 32  # bytes
_OTHERS = 0o077  # rights of the group and of everybody
PrivateKey = Ed25519PrivateKey | ec.EllipticCurvePrivateKey | X25519PrivateKey


class KeyRing:
    """The keys below one folder. Opening makes those that are missing only when the folder is new."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        if not folder.exists():
            _create(folder)
        self.attestation = _load(folder / "attestation.pem", Ed25519PrivateKey)
        self.model = _load(folder / "model.pem", ec.EllipticCurvePrivateKey)
        self.log = _load(folder / "log.pem", Ed25519PrivateKey)
        self._environments = {name: _load(folder / f"{name}.pem", Ed25519PrivateKey) for name in ENVIRONMENTS}
        self.kek = _symmetric(folder / "kek.bin")
        self.pepper = _symmetric(folder / "pepper.bin")

    def of(self, environment: str) -> Ed25519PrivateKey:
        """The key that signs what holds in an environment only; where one measures, dev's. KeyError for another name."""
        return self._environments[home_of(environment)]

    def records(self) -> tuple[KeyRecord, ...]:
        """The public halves of the keys that sign what others check."""
        return tuple(record_of(name, self._named(name)) for name in SIGNING)

    def _named(self, name: str) -> Ed25519PrivateKey | ec.EllipticCurvePrivateKey:
        if name in self._environments:
            return self._environments[name]
        return self.model if name == "model" else self.attestation

    def prepare(self, name: str) -> str:
        """Lay a successor of a signing key beside it; returns its fingerprint. It signs nothing before `take_over`."""
        path = self._successor(name)
        path.unlink(missing_ok=True)
        old = self._named(name)
        new = (
            Ed25519PrivateKey.generate()
            if isinstance(old, Ed25519PrivateKey)
            else ec.generate_private_key(ec.SECP256R1())
        )
        write_private(path, _pem(new))
        flush(self.folder)
        return fingerprint(new)

    def take_over(self, name: str) -> None:
        """Let the successor take the key's place, in the folder and here. The old private key is gone then."""
        path = self.folder / f"{name}.pem"
        self._successor(name).replace(path)
        flush(self.folder)
        if name == "model":
            self.model = _load(path, ec.EllipticCurvePrivateKey)
        elif name == "attestation":
            self.attestation = _load(path, Ed25519PrivateKey)
        else:
            self._environments[name] = _load(path, Ed25519PrivateKey)

    def settle(self, ended: Container[str]) -> None:
        """Finish what a crash cut short: a successor whose predecessor is among `ended` takes over, any other goes."""
        for name in SIGNING:
            if not self._successor(name).exists():
                continue
            if fingerprint(self._named(name)) in ended:
                self.take_over(name)
            else:
                self._successor(name).unlink()

    def _successor(self, name: str) -> Path:
        return self.folder / f".{name}.next"

    @property
    def model_path(self) -> Path:
        """Where the model key is, for the step process that signs models."""
        return self.folder / "model.pem"


def plane_key(folder: Path) -> X25519PrivateKey:
    """A data plane's own key, made on first use."""
    path = folder / "key.pem"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_private(path, _pem(X25519PrivateKey.generate()))
    return _load(path, X25519PrivateKey)


def public_pem(key: PrivateKey) -> str:
    """The public half, as PEM."""
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


def fingerprint(key: PrivateKey) -> str:
    """The name of a key: the SHA-256 of its public half (SubjectPublicKeyInfo, DER), as `sha256:…`."""
    return sha256(key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))


def record_of(name: str, key: Ed25519PrivateKey | ec.EllipticCurvePrivateKey) -> KeyRecord:
    """What may be told of a key that signs now."""
    algorithm = "Ed25519" if isinstance(key, Ed25519PrivateKey) else "ECDSA P-256"
    return KeyRecord(name, public_pem(key), fingerprint(key), algorithm)


def _create(folder: Path) -> None:
    """All keys or none: they are written beside the folder's place, which then gets its name."""
    making = folder.with_name(folder.name + ".new")
    shutil.rmtree(making, ignore_errors=True)  # left by a start that was interrupted; nothing used its keys
    making.mkdir(parents=True, mode=0o700)
    write_private(making / "attestation.pem", _pem(Ed25519PrivateKey.generate()))
    write_private(making / "model.pem", _pem(ec.generate_private_key(ec.SECP256R1())))
    write_private(making / "log.pem", _pem(Ed25519PrivateKey.generate()))
    for name in ENVIRONMENTS:
        write_private(making / f"{name}.pem", _pem(Ed25519PrivateKey.generate()))
    write_private(making / "kek.bin", secrets.token_bytes(_SYMMETRIC))
    write_private(making / "pepper.bin", secrets.token_bytes(_SYMMETRIC))
    flush(making)
    making.rename(folder)
    flush(folder.parent)


def _pem(key: PrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _load(path: Path, kind: type[K]) -> K:
    try:
        key = load_pem_private_key(_secret(path), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as e:
        raise _broken(path) from e
    if not isinstance(key, kind):
        raise _broken(path)
    _check_private(path)
    return key


def _symmetric(path: Path) -> bytes:
    key = _secret(path)
    if len(key) != _SYMMETRIC:
        raise _broken(path)
    _check_private(path)
    return key


def _secret(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as e:
        raise _broken(path) from e


def _check_private(path: Path) -> None:
    if path.stat().st_mode & _OTHERS:
        raise Denied(
            f"the key {path.name} could be read by others: it is used no more until it is private again",
            hint=f"find out who may have read it, then `chmod 600 {path}`; a key that was copied must be replaced",
            code="key_exposed",
        )


def _broken(path: Path) -> Integrity:
    return Integrity(
        f"the key {path.name} is missing or cannot be read",
        hint="restore the home's keys folder from a backup; a new key cannot open what the old one protects",
        code="key_missing",
    )
