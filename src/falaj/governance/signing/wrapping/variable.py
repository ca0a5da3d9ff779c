"""`env:NAME`: a key-encryption key in an environment variable, 256 bits as base64."""

from __future__ import annotations

import base64
import binascii
import os

from falaj.governance.signing.wrapping import local
from falaj.governance.signing.wrapping.wrapper import KEK_AWAY
from falaj.kernel.errors import Unavailable

SCHEME = "env"


class Variable:
    """A key in a variable of this process, read anew each time: it is kept nowhere else."""

    def __init__(self, name: str) -> None:
        self._name = name

    def exact(self) -> str:
        """See `Wrapper.exact`."""
        self._secret()
        return f"{SCHEME}:{self._name}"

    def wrap(self, key: bytes, bound: str) -> str:
        """See `Wrapper.wrap`."""
        return local.wrap(self._secret(), key, bound)

    def unwrap(self, wrapped: str, bound: str) -> bytes | None:
        """See `Wrapper.unwrap`."""
        return local.unwrap(self._secret(), wrapped, bound)

    def _secret(self) -> bytes:
        try:
            secret = base64.b64decode(os.environ.get(self._name, "").strip(), validate=True)
        except (ValueError, binascii.Error):
            secret = b""
        if len(secret) != local.BYTES:
            raise Unavailable(
                f"the variable {self._name} holds no key-encryption key",
                hint=f"set {self._name} to the base64 of 32 random bytes (openssl rand -base64 32): the very ones that it held"
                " before, where it is this home's already",
                code=KEK_AWAY,
            )
        return secret
