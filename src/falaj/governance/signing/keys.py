"""The home's keys, one file each, readable by their owner only. One that signs may lie elsewhere; the file says where then.

`attestation`  Ed25519     statements of evidence (elsewhere also ECDSA P-256)
`dev`, `staging`, `production`
               Ed25519     each environment's own: its admissions, bundles and rehearsals (elsewhere also ECDSA P-256)
`model`        ECDSA P-256 OpenSSF model signatures (the format knows no Ed25519 keys)
`log`          Ed25519     checkpoints of the audit log (their format knows no other)
`kek`          256 bits    wraps the keys of the stores (`kek`); it may lie elsewhere too
`pepper`       256 bits    keys the hashes of tokens
"""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Container, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TypeVar

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
)

from falaj.governance.signing import elsewhere, kek
from falaj.governance.signing.elsewhere import Elsewhere
from falaj.governance.signing.keyfile import PrivateKey, broken, check_private, encoded, load, secret_of
from falaj.governance.signing.keyfile import plane_key as plane_key
from falaj.governance.signing.trust import SIGNING, KeyRecord
from falaj.kernel.digests import sha256
from falaj.kernel.environments import ENVIRONMENTS, home_of
from falaj.kernel.errors import Conflict, FalajError, Invalid, Unavailable
from falaj.kernel.files import flush, write_private

K = TypeVar("K")
_SYMMETRIC = 32  # bytes
SigningKey = Ed25519PrivateKey | ec.EllipticCurvePrivateKey | Elsewhere
"""What signs: a private key here, or one elsewhere."""
_P256, _ED25519 = "ECDSA P-256", "Ed25519"
_KINDS = {"model": (_P256,), "log": (_ED25519,)}  # any other key may be of either
LOG = "log"


class KeyRing:
    """The keys below one folder. Opening makes those that are missing only when the folder is new.

    `places` says where a new key of a name comes from, if not from here: what `prepare` and a new folder ask.
    """

    def __init__(self, folder: Path, places: Mapping[str, str] = MappingProxyType({})) -> None:
        self.folder = folder
        self._places = {name: place for name, place in places.items() if place}
        if not folder.exists():
            _create(folder, self._places)
        self.attestation = _signing(folder, "attestation", Ed25519PrivateKey)
        self._unfinished: set[str] = set()  # keys whose successor could not take their place
        self.model = _signing(folder, "model", ec.EllipticCurvePrivateKey)
        self.log = _signing(folder, LOG, Ed25519PrivateKey)
        self._environments = {name: _signing(folder, name, Ed25519PrivateKey) for name in ENVIRONMENTS}
        self.wraps = kek.key_in(folder)
        self.kek = self.wraps.secret  # nothing where it lies elsewhere
        self.pepper = _symmetric(folder / "pepper.bin")

    def of(self, environment: str) -> Ed25519PrivateKey | Elsewhere:
        """The key that signs what holds in an environment only; where one measures, dev's. KeyError for another name."""
        return self._environments[home_of(environment)]

    def records(self) -> tuple[KeyRecord, ...]:
        """The public halves of the keys that sign what others check."""
        return tuple(record_of(name, self._named(name)) for name in SIGNING)

    def place(self, name: str) -> str:
        """Where a signing key lies; empty for one in the folder."""
        key = self._named(name)
        return key.place if isinstance(key, Elsewhere) else ""

    def asked(self, name: str) -> str:
        """Where the successor of a key would come from; empty for the folder."""
        return self._places.get(name, "")

    def _named(self, name: str) -> SigningKey:
        if name in self._environments:
            return self._environments[name]
        return {"model": self.model, LOG: self.log}.get(name, self.attestation)

    def prepare(self, name: str) -> str:
        """Lay a successor of a signing key beside it; returns its fingerprint. It signs nothing before `take_over`.

        It is made here, or found where `places` say. Raises `Conflict` when that is the very key that signs now,
        `Invalid` for one of another type, `Unavailable`.
        """
        if name in self._unfinished:
            raise Unavailable(
                f"the last change of the key {name} is not finished: its successor could not take its place",
                hint="see to the disk and the rights of the keys folder, then restart: the start finishes it",
                code="rotation_unfinished",
            )
        path = self._successor(name)
        path.unlink(missing_ok=True)
        if name in self._places:
            found = _found(name, self._places[name])
            if fingerprint(found) == fingerprint(self._named(name)):
                raise Conflict(
                    f"the key at {found.place} is the one that signs already",
                    hint=f"make a new key there and name it in FALAJ_SIGNER_{name.upper()}, or unset that for one in the home; "
                    "then start again",
                    code="signer_same_key",
                )
            write_private(path, found.encoded())
            flush(self.folder)
            return fingerprint(found)
        new = ec.generate_private_key(ec.SECP256R1()) if name == "model" else Ed25519PrivateKey.generate()
        write_private(path, encoded(new))
        flush(self.folder)
        return fingerprint(new)

    def log_successor(self) -> Ed25519PrivateKey | Elsewhere | None:
        """The successor that lies beside the log's key, or None."""
        path = self._successor(LOG)
        return _read_signing(path, LOG, Ed25519PrivateKey) if path.exists() else None

    def record(self, name: str) -> KeyRecord:
        """The public half of the key that signs as `name`."""
        return record_of(name, self._named(name))

    def take_over(self, name: str) -> None:
        """Let the successor take the key's place, in the folder and here. The old private key is gone then."""
        self._unfinished.add(
            name
        )  # what a failure leaves there signs already, or is promised to: it must not be replaced
        self._successor(name).replace(self.folder / f"{name}.pem")
        flush(self.folder)
        self._unfinished.discard(name)
        if name == "model":
            self.model = _signing(self.folder, name, ec.EllipticCurvePrivateKey)
        elif name == "attestation":
            self.attestation = _signing(self.folder, name, Ed25519PrivateKey)
        elif name == LOG:
            self.log = _signing(self.folder, name, Ed25519PrivateKey)
        else:
            self._environments[name] = _signing(self.folder, name, Ed25519PrivateKey)

    def settle(self, ended: Container[str]) -> None:
        """Finish what a crash cut short: a successor whose predecessor is among `ended` takes over, any other goes."""
        for name in SIGNING:
            if not self._successor(name).exists():
                continue
            if fingerprint(self._named(name)) in ended:
                self.take_over(name)
            else:
                self.discard(name)

    def discard(self, name: str) -> None:
        """Remove a successor that did not take the key's place."""
        self._successor(name).unlink()
        flush(self.folder)

    def _successor(self, name: str) -> Path:
        return self.folder / f".{name}.next"

    @property
    def model_path(self) -> Path:
        """Where the model key is, for the step process that signs models, unless it lies elsewhere."""
        return self.folder / "model.pem"


def signature(key: SigningKey, data: bytes) -> bytes:
    """A key's signature of some bytes: Ed25519, or ECDSA over SHA-256 in DER. Raises `Unavailable` where it lies elsewhere."""
    return key.sign(data, ec.ECDSA(hashes.SHA256())) if isinstance(key, ec.EllipticCurvePrivateKey) else key.sign(data)


def public_pem(key: PrivateKey | Elsewhere) -> str:
    """The public half, as PEM."""
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


def fingerprint(key: PrivateKey | Elsewhere) -> str:
    """The name of a key: the SHA-256 of its public half (SubjectPublicKeyInfo, DER), as `sha256:…`."""
    return sha256(key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))


def record_of(name: str, key: SigningKey) -> KeyRecord:
    """What may be told of a key that signs now."""
    return KeyRecord(name, public_pem(key), fingerprint(key), _algorithm(key))


def _algorithm(key: SigningKey) -> str:
    return _ED25519 if isinstance(key.public_key(), Ed25519PublicKey) else _P256


def _found(name: str, place: str) -> Elsewhere:
    """The key at a place, of a type that may sign as `name`. Raises `Invalid`, `Unavailable`."""
    key = elsewhere.find(place)
    kinds = _KINDS.get(name, (_ED25519, _P256))
    if _algorithm(key) not in kinds:
        raise Invalid(
            f"the key at {key.place} is {_algorithm(key)}, and {name} signs with {' or '.join(kinds)}",
            hint=f"make a key of that type there, or let {name} sign with one in the home",
            code="signer_key_type",
        )
    return key


def _create(folder: Path, places: Mapping[str, str]) -> None:
    """All keys or none: they are written beside the folder's place, which then gets its name."""
    making = folder.with_name(folder.name + ".new")
    shutil.rmtree(making, ignore_errors=True)  # left by a start that was interrupted; nothing used its keys
    making.mkdir(parents=True, mode=0o700)
    for name in (*SIGNING, LOG):
        if name in places:
            write_private(making / f"{name}.pem", _found(name, places[name]).encoded())
        else:
            new = ec.generate_private_key(ec.SECP256R1()) if name == "model" else Ed25519PrivateKey.generate()
            write_private(making / f"{name}.pem", encoded(new))
    write_private(making / kek.FILE, kek.new_file(places.get(kek.NAME, "")))
    write_private(making / "pepper.bin", secrets.token_bytes(_SYMMETRIC))
    flush(making)
    making.rename(folder)
    flush(folder.parent)


def _signing(folder: Path, name: str, kind: type[K]) -> K | Elsewhere:
    """A key that signs, from its file or from where this says that it lies."""
    return _read_signing(folder / f"{name}.pem", name, kind)


def _read_signing(path: Path, name: str, kind: type[K]) -> K | Elsewhere:
    try:
        other = elsewhere.parse(secret_of(path))
    except FalajError as e:
        raise broken(path) from e
    if other is None:
        return load(path, kind)
    if _algorithm(other) not in _KINDS.get(name, (_ED25519, _P256)):
        raise broken(path)
    check_private(path)
    return other


def _symmetric(path: Path) -> bytes:
    key = secret_of(path)
    if len(key) != _SYMMETRIC:
        raise broken(path)
    check_private(path)
    return key
