"""What a place of a key offers."""

from __future__ import annotations

from typing import Protocol

from falaj.governance.signing.dsse import PublicKey


class Place(Protocol):
    """Somewhere outside the home where one private key lies."""

    def public(self) -> tuple[str, PublicKey]:
        """The place, exact enough to find this very key again, and the key's public half.

        Raises `Invalid` for a key of a type that is not used here, `Unavailable` when the place does not answer.
        """
        ...

    def sign(self, data: bytes) -> bytes:
        """Ed25519 over the bytes, or ECDSA over their SHA-256 in DER. Raises `Unavailable`."""
        ...
