"""`hashivault:NAME`: a key of HashiCorp Vault's transit engine, mounted at `transit`; `VAULT_ADDR` and `VAULT_TOKEN` are Vault's own.

    wrapped = vault:vVERSION:…  as Vault's `encrypt` answers, the key's place as its associated data

A place is pinned to a version of the key: `hashivault:NAME/VERSION`. Rotating the key over there changes nothing here.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable
from typing import Any, TypeVar

from falaj.governance.signing.vault import vault_address
from falaj.governance.signing.wrapping.wrapper import KEK_AWAY
from falaj.kernel.errors import FalajError, Invalid, Unavailable

try:
    import hvac
    from hvac import exceptions
except ImportError:  # an extra
    hvac = exceptions = None

SCHEME = "hashivault"
T = TypeVar("T")
_NAME = re.compile(r"([A-Za-z0-9_][A-Za-z0-9_.-]*)(?:/([1-9][0-9]*))?\Z")
_TYPES = ("aes256-gcm96", "chacha20-poly1305")
_SECONDS = 10.0
_NOT_ITS_OWN = ("message authentication failed", "invalid ciphertext")


class Vault:
    """One version of one key."""

    def __init__(self, place: str) -> None:
        """`place` without a version is its newest. Raises `Invalid` for a place that names no key."""
        named = _NAME.match(place.partition(":")[2])
        if not named:
            raise Invalid(
                f"{place[:80]!r} names no key of Vault's transit engine",
                hint="hashivault:NAME, or hashivault:NAME/VERSION",
                code="bad_signer",
            )
        self._name, self._version = named[1], int(named[2] or 0)
        self._client: Any = None

    @property
    def _place(self) -> str:
        return f"{SCHEME}:{self._name}" + (f"/{self._version}" if self._version else "")

    def exact(self) -> str:
        """See `Wrapper.exact`."""
        told = self._asked(lambda transit: dict(transit.read_key(self._name)["data"]))
        if told.get("type") not in _TYPES or told.get("derived"):
            raise Invalid(
                f"the key at {self._place} is {told.get('type')}{', derived' if told.get('derived') else ''}",
                hint=f"make one of type {_TYPES[0]}: vault write -f transit/keys/{self._name}",
                code="kek_key_type",
            )
        newest = int(told["latest_version"])
        if self._version > newest:
            raise Unavailable(
                f"{self._place} does not exist: the newest version is {newest}",
                hint="name another version, or none for the newest",
                code=KEK_AWAY,
            )
        self._version = self._version or newest
        return self._place

    def wrap(self, key: bytes, bound: str) -> str:
        """See `Wrapper.wrap`."""
        told = self._asked(
            lambda transit: transit.encrypt_data(
                self._name, plaintext=_text(key), key_version=self._version, associated_data=_text(bound.encode())
            )
        )
        wrapped = str(told["data"]["ciphertext"])
        if not wrapped.startswith(self._prefix):
            raise Unavailable(
                f"{self._place} wrapped with another version of the key",
                hint="see to the key's versions in Vault; nothing was changed",
                code=KEK_AWAY,
            )
        return wrapped

    def unwrap(self, wrapped: str, bound: str) -> bytes | None:
        """See `Wrapper.unwrap`."""
        if not wrapped.startswith(self._prefix):
            return None
        return self._asked(lambda transit: _opened(transit, self._name, wrapped, bound))

    @property
    def _prefix(self) -> str:
        return f"vault:v{self._version}:"

    def _asked(self, ask: Callable[[Any], T]) -> T:
        if hvac is None:
            raise Unavailable(
                "keys in Vault need hvac, which is not installed",
                hint="pip install 'falaj[vault]'",
                code="signer_library_missing",
            )
        try:
            self._client = self._client or hvac.Client(
                url=vault_address(KEK_AWAY), timeout=_SECONDS, allow_redirects=False
            )
            return ask(self._client.secrets.transit)
        except FalajError:
            raise
        except Exception as e:  # Vault's client and the HTTP library below it have a tree of errors each
            raise Unavailable(
                f"{self._place} does not answer as it should: {type(e).__name__}: {str(e)[:200]}",
                hint="see to Vault, the key, and this process's VAULT_ADDR and VAULT_TOKEN; it can be tried again",
                code=KEK_AWAY,
            ) from e


def _opened(transit: Any, name: str, wrapped: str, bound: str) -> bytes | None:
    try:
        told = transit.decrypt_data(name, ciphertext=wrapped, associated_data=_text(bound.encode()))
    except exceptions.VaultError as e:
        if any(words in str(e) for words in _NOT_ITS_OWN):  # of status 400 or 500, by release
            return None
        raise
    return base64.b64decode(told["data"]["plaintext"], validate=True)


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()
