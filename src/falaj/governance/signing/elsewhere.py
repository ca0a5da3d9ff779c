"""A signing key that lies elsewhere: the home keeps its place and its public half, in the file where the key would be.

The public half is what the home trusts. What comes back from the place is verified with it before anybody sees it, so another
key at the same place signs nothing here.
"""

from __future__ import annotations

import re

from falaj.governance.signing.dsse import PublicKey, verifies
from falaj.governance.signing.keyfile import reference, referred
from falaj.governance.signing.places import services, token, variable
from falaj.governance.signing.places.place import Place
from falaj.kernel.errors import Integrity, Invalid

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")


class Elsewhere:
    """A private key at a place. Nothing is asked of the place before something is to be signed."""

    def __init__(self, place: str, public: PublicKey) -> None:
        self.place = place
        self._public = public
        self._opened = opened(place, public)

    def public_key(self) -> PublicKey:
        """The public half, as the home knows it."""
        return self._public

    def sign(self, data: bytes) -> bytes:
        """Sign: Ed25519, or ECDSA over SHA-256 in DER. Raises `Unavailable`, and `Integrity` when another key answers."""
        signature = self._opened.sign(data)
        if not verifies(self._public, signature, data):
            raise Integrity(
                f"another key than this home's answers at {self.place}",
                hint="bring the key back to its place; a new one is introduced by `falaj keys rotate`",
                code="signer_other_key",
            )
        return signature

    def encoded(self) -> bytes:
        """The file."""
        return reference(self.place, self._public)


def find(place: str) -> Elsewhere:
    """The key that is at a place now. Raises `Invalid`, `Unavailable`."""
    try:
        exact, public = opened(place).public()
        referred(reference(exact, public))  # what nobody could verify with shall not sign
    except Integrity as e:
        raise Invalid(
            f"the key at {place} is neither Ed25519 nor ECDSA P-256",
            hint="make a key of one of these types there",
            code="signer_key_type",
        ) from e
    return Elsewhere(exact, public)


def parse(data: bytes) -> Elsewhere | None:
    """The key that a key file refers to; None for a file that holds its key. Raises `Integrity`, `Invalid`."""
    found = referred(data)
    return None if found is None else Elsewhere(*found)


def opened(place: str, public: PublicKey | None = None) -> Place:
    """What knows a place; `public` is needed where it shall sign. Raises `Invalid` for one of no known form."""
    scheme, _, rest = place.partition(":")
    printable = place.isascii() and place.isprintable() and len(place) <= 1000
    if printable and scheme == variable.SCHEME and _VARIABLE.match(rest):
        return variable.Variable(rest)
    if printable and scheme == token.SCHEME:
        return token.Token(place)
    if printable and scheme in services.SCHEMES:
        return services.Service(place, public)
    raise Invalid(
        f"{place[:40]!r} is no place of a key" if rest else "a place of a key is written as SCHEME:…",
        hint="env:NAME, pkcs11:…, awskms:…, gcpkms:…, azurekms:…, hashivault:…; unset it for a key in the home",
        code="bad_signer",
    )
