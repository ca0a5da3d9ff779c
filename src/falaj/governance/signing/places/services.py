"""Key services, through securesystemslib's signers; credentials and regions are theirs, from the environment.

    awskms:KEY-ID | awskms:ARN | awskms:alias/NAME      gcpkms:projects/…/cryptoKeyVersions/N
    azurekms://VAULT.vault.azure.net/keys/NAME          hashivault:NAME  (transit engine)

The first three hold ECDSA P-256 keys for us, Vault holds Ed25519 ones.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar
from urllib.parse import urlsplit

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from securesystemslib.exceptions import UnsupportedLibraryError
from securesystemslib.signer import AWSSigner, AzureSigner, GCPSigner, Signer, SSlibKey, VaultSigner

from falaj.governance.signing.dsse import PublicKey, load_public_key
from falaj.governance.signing.vault import vault_address
from falaj.kernel.errors import Invalid, Unavailable

_P256 = "ecdsa-sha2-nistp256"
_EXTRAS = {"awskms": "aws", "gcpkms": "gcp", "azurekms": "azure", "hashivault": "vault"}
_SIGNERS: dict[str, type[Signer]] = {
    "awskms": AWSSigner, "gcpkms": GCPSigner, "azurekms": AzureSigner, "hashivault": VaultSigner,
}  # fmt: skip
SCHEMES = tuple(_EXTRAS)
_AWAY = "signer_unavailable"
T = TypeVar("T")


class Service:
    """One key of a key service."""

    def __init__(self, place: str, public: PublicKey | None = None) -> None:
        """`public` is needed to sign. Raises `Invalid` for a place that names no key."""
        self._place = place
        self._scheme, _, self._name = place.partition(":")
        self._key = None if public is None else SSlibKey.from_crypto(public)
        self._signer: Signer | None = None
        if not self._name.strip("/") or (self._scheme == "azurekms" and not _azure(self._name)):
            raise Invalid(
                f"{place[:80]!r} names no key", hint="see `falaj errors bad_signer` for the forms", code="bad_signer"
            )

    def public(self) -> tuple[str, PublicKey]:
        """See `Place.public`."""
        uri, key = self._asked(self._import)
        place = f"hashivault:{uri.partition(':')[2]}" if self._scheme == "hashivault" else uri
        versioned = self._scheme == "hashivault" and "/" in self._name
        versioned |= self._scheme == "azurekms" and len(_azure(self._name)) > 2
        if versioned and place != self._place:
            raise Invalid(
                f"{self._place} is not the newest version of its key, which is {place}",
                hint="name the newest version, or none",
                code="bad_signer",
            )
        if key.keytype == "ed25519":
            return place, Ed25519PublicKey.from_public_bytes(bytes.fromhex(key.keyval["public"]))
        return place, load_public_key(key.keyval["public"])

    def sign(self, data: bytes) -> bytes:
        """See `Place.sign`."""
        return self._asked(lambda: bytes.fromhex(self._opened().sign(data).signature))

    def _opened(self) -> Signer:
        if self._key is None:
            raise ValueError("its public half is not known")
        if self._signer is None:
            uri = self._place.replace("hashivault:", "hv:", 1)
            self._signer = _SIGNERS[self._scheme].from_priv_key_uri(uri, self._key)
        return self._signer

    def _import(self) -> tuple[str, SSlibKey]:
        if self._scheme == "awskms":
            return AWSSigner.import_(self._name, _P256)
        if self._scheme == "gcpkms":
            return GCPSigner.import_(self._name)
        if self._scheme == "azurekms":
            return AzureSigner.import_(*_azure(self._name)[:2])
        return VaultSigner.import_(self._name.partition("/")[0])

    def _asked(self, ask: Callable[[], T]) -> T:
        if self._scheme == "hashivault":
            vault_address(_AWAY)
        try:
            return ask()
        except UnsupportedLibraryError as e:
            raise Unavailable(
                f"keys at {self._scheme}: need a library that is not installed: {e}",
                hint=f"pip install 'falaj[{_EXTRAS[self._scheme]}]'",
                code="signer_library_missing",
            ) from e
        except Exception as e:  # each service's client has its own tree of errors, and none may pass for a signature
            raise Unavailable(
                f"{self._place} does not sign: {type(e).__name__}: {str(e)[:200]}",
                hint="see to the service, the key and this process's credentials; nothing was signed, and it can be tried again",
                code=_AWAY,
            ) from e


def _azure(name: str) -> list[str]:
    """Vault, key, and version if it is named, of `//VAULT.vault.azure.net/keys/NAME/VERSION`; nothing of another form."""
    parts = urlsplit(name)
    found = [p for p in parts.path.split("/") if p]
    vault, _, domain = parts.netloc.partition(".")
    fits = domain == "vault.azure.net" and vault and found[:1] == ["keys"] and 2 <= len(found) <= 3
    return [vault, *found[1:]] if fits else []
