"""The key-encryption key: what wraps the keys of the stores, and nothing else.

`KeyEncryptionKey` is the port. It is a file, or lies elsewhere (`wrapping`), where it is asked only when a home is opened and
when it is replaced. Its file in the keys folder holds 32 bytes then, or where it lies and something that it wrapped, by which it
is known again:

    elsewhere: pkcs11:token=falaj;object=kek?module-path=…&pin-source=…
    check: …
"""

from __future__ import annotations

import re
import secrets
from pathlib import Path
from typing import Protocol

from falaj.governance.signing.keyfile import broken, check_private, secret_of
from falaj.governance.signing.recovery import public_ids
from falaj.governance.signing.wrapping import local, token, variable, vault
from falaj.governance.signing.wrapping.wrapper import Wrapper
from falaj.kernel.errors import Conflict, FalajError, Integrity, Invalid
from falaj.kernel.files import flush, write_private

NAME, FILE = "kek", "kek.bin"
NEXT = ".kek.next"
ALGORITHM = "AES-256-GCM"
_BYTES = local.BYTES
_CHECK = "check"
_REFERENCE = re.compile(rb"elsewhere: ([ -~]{1,1000})\ncheck: ([!-~]{1,4000})\n\Z")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")


class KeyEncryptionKey(Protocol):
    """Wraps keys for a place; what was wrapped for one opens for no other."""

    @property
    def id(self) -> str:
        """A public name, of its file: the same file, the same id."""
        ...

    @property
    def at(self) -> str:
        """Where it lies; empty for the home."""
        ...

    def wrap(self, key: bytes, place: str) -> str:
        """A key as it may lie anywhere. Raises `Unavailable` and `Integrity` like `unwrap`."""
        ...

    def unwrap(self, wrapped: str, place: str) -> bytes:
        """The key. Raises `Integrity` for what this did not wrap for this place, `Unavailable` when it is away."""
        ...


class KeyEncryptionKeys(Protocol):
    """Where the key-encryption key comes from, and its successor."""

    @property
    def asked(self) -> str:
        """Where a successor would come from; empty for the home."""
        ...

    def current(self) -> KeyEncryptionKey:
        """The one that holds."""
        ...

    def prepare(self) -> KeyEncryptionKey:
        """A successor that survives a crash and does not hold yet. Raises `Conflict`, `Invalid`, `Unavailable`."""
        ...

    def take_over(self) -> None:
        """Let the successor hold. The old one is gone from the home then."""
        ...

    def settle(self, kek: str) -> None:
        """Finish what a crash cut short: a successor of this id takes over, any other goes."""
        ...


class FileKey:
    """A key-encryption key of 32 bytes that this process knows."""

    at = ""

    def __init__(self, secret: bytes) -> None:
        self.id = _id(secret)
        self.secret = secret

    def wrap(self, key: bytes, place: str) -> str:
        """See `KeyEncryptionKey`."""
        return local.wrap(self.secret, key, place)

    def unwrap(self, wrapped: str, place: str) -> bytes:
        """See `KeyEncryptionKey`."""
        return _key(local.unwrap(self.secret, wrapped, place), place)


class KeptKey:
    """A key-encryption key that lies elsewhere. Nothing is asked of its place before something is to be wrapped or opened."""

    def __init__(self, data: bytes) -> None:
        """`data` is its file. Raises `Invalid` for one that says nothing that is understood."""
        named = _REFERENCE.match(data)
        if named is None:
            raise _no_place("what its file says")
        self.id = _id(data)
        self.at, self._check = named[1].decode(), named[2].decode()
        self.secret = b""
        self._wrapper = wrapper_of(self.at)
        self._known = False

    def wrap(self, key: bytes, place: str) -> str:
        """See `KeyEncryptionKey`."""
        if not self._known:
            self._recognise()
        return self._wrapper.wrap(key, place)

    def unwrap(self, wrapped: str, place: str) -> bytes:
        """See `KeyEncryptionKey`."""
        found = self._wrapper.unwrap(wrapped, place)
        if found is None:
            self._recognise()  # a key that was exchanged is another fault than a row that was
        return _key(found, place)

    def is_at(self, other: Wrapper) -> bool:
        """Whether this is the very key that is at a place."""
        return other.unwrap(self._check, _CHECK) is not None

    def _recognise(self) -> None:
        if not self.is_at(self._wrapper):
            raise Integrity(
                f"another key than this home's answers at {self.at}",
                hint="bring the key back to its place: nothing else opens what this home holds",
                code="kek_other_key",
            )
        self._known = True


class FileKeys:
    """The key-encryption key of a keys folder, which may lie elsewhere; `asked` says where its successor comes from."""

    def __init__(self, folder: Path, asked: str = "") -> None:
        self.asked = asked
        self._folder = folder
        self._current = key_in(folder)

    def current(self) -> FileKey | KeptKey:
        """See `KeyEncryptionKeys`."""
        return self._current

    def prepare(self) -> FileKey | KeptKey:
        """See `KeyEncryptionKeys`."""
        path, data = self._folder / NEXT, new_file(self.asked, self._current)
        path.unlink(missing_ok=True)
        write_private(path, data)
        flush(self._folder)
        return key_of(data)

    def take_over(self) -> None:
        """See `KeyEncryptionKeys`."""
        (self._folder / NEXT).replace(self._folder / FILE)
        flush(self._folder)
        self._current = key_in(self._folder)

    def settle(self, kek: str) -> None:
        """See `KeyEncryptionKeys`."""
        path = self._folder / NEXT
        if not path.exists():
            return
        if kek != self._current.id and _id(path.read_bytes()) == kek:
            self.take_over()
        else:
            path.unlink()


def key_in(folder: Path) -> FileKey | KeptKey:
    """The key-encryption key of a keys folder. Raises `Integrity` for a file that is missing or none, `Denied` for an open one."""
    path = folder / FILE
    try:
        key = key_of(secret_of(path))
    except Invalid as e:
        raise broken(path) from e
    check_private(path)
    return key


def key_of(data: bytes) -> FileKey | KeptKey:
    """The key-encryption key of a file. Raises `Invalid` for bytes that are none."""
    return FileKey(data) if len(data) == _BYTES else KeptKey(data)


def new_file(place: str, current: FileKey | KeptKey | None = None) -> bytes:
    """The file of a new key-encryption key: made here, or found at a place.

    Raises `Conflict` when that is the current one, `Invalid` for a key of another type or that does not bind what it wraps,
    `Unavailable`.
    """
    if not place:
        return secrets.token_bytes(_BYTES)
    wrapper = wrapper_of(place)
    exact = wrapper.exact()
    if isinstance(current, KeptKey) and current.is_at(wrapper):
        raise Conflict(
            f"the key at {exact} is the one that wraps already",
            hint="make a new key there and name it in FALAJ_KEK, or unset that for one in the home; then start again",
            code="kek_same_key",
        )
    known = secrets.token_bytes(_BYTES)
    check = wrapper.wrap(known, _CHECK)
    if wrapper.unwrap(check, _CHECK) != known or wrapper.unwrap(check, _CHECK + "?") is not None:
        raise Invalid(
            f"the key at {exact} does not bind what it wraps to its place",
            hint="an old Vault does not know associated data: use a newer one, or let the key lie somewhere else",
            code="kek_key_type",
        )
    return f"elsewhere: {exact}\ncheck: {check}\n".encode()


def wrapper_of(place: str) -> Wrapper:
    """What wraps at a place. Raises `Invalid` for one of no known form."""
    scheme, _, rest = place.partition(":")
    if place.isascii() and place.isprintable() and len(place) <= 1000:
        if scheme == variable.SCHEME and _VARIABLE.match(rest):
            return variable.Variable(rest)
        if scheme == token.SCHEME:
            return token.Token(place)
        if scheme == vault.SCHEME:
            return vault.Vault(place)
    raise _no_place(repr(place[:40]))


def _id(data: bytes) -> str:
    return public_ids({FILE: data})[Path(FILE).stem]


def _key(found: bytes | None, place: str) -> bytes:
    if found is None or len(found) != _BYTES:
        raise Integrity(
            f"the key of {place.partition('/')[0]} does not open with this home's key-encryption key",
            hint="bring back the key that belongs to this home: `falaj keys restore FILE`, with the newest keys backup",
            code="store_key_broken",
        )
    return found


def _no_place(what: str) -> FalajError:
    return Invalid(
        f"{what} is no place of a key-encryption key",
        hint="env:NAME, pkcs11:… or hashivault:NAME; unset FALAJ_KEK for a key in the home",
        code="bad_signer",
    )
