"""Files on their way between a caller and a step process: tables to work on, and what came of them.

A parcel belongs to whoever handed it over and is gone after a day, or when its owner takes it away. It lies below
the home, sealed under the key of parcels and its name (`storage.sealed`), and survives a crash of the process. A step opens
it into its own folder, which is in memory.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import msgspec

from falaj.kernel.clock import Clock
from falaj.kernel.digests import sha256_file
from falaj.kernel.errors import NotFound, Unavailable
from falaj.kernel.ids import new_id
from falaj.storage import sealed
from falaj.storage.keychain import keys_of, not_held

_NAME = re.compile(r"[a-z]{3}_[0-9a-z]{26}(?:\.[a-z]{1,10})?\Z")
_OWNERS = ".owner"
_KEPT_SECONDS = 86_400.0


class Parcel(msgspec.Struct, frozen=True):
    """A file that was handed over: its name, the digest of its bytes, how many they are."""

    name: str
    sha256: str
    bytes: int


class Parcels:
    """A folder of parcels. `clock` is the machine's: a parcel's age has nothing to do with replayed days."""

    def __init__(self, folder: Path, clock: Clock) -> None:
        self._folder = folder
        self._clock = clock

    async def receive(self, owner: str, chunks: AsyncIterator[bytes]) -> Parcel:
        """Keep what comes in. Raises `Unavailable` when there is no room; then nothing is kept."""
        self.sweep()
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        name = new_id("tab", self._clock.now())
        hidden, digest, size = self._folder / f".{name}", hashlib.sha256(), 0
        try:
            sealer = sealed.Sealer(self._key(), _identity(name))
            with os.fdopen(os.open(hidden, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as f:
                f.write(sealer.head)
                async for chunk in chunks:
                    digest.update(chunk)
                    size += len(chunk)
                    f.write(sealer.feed(chunk))
                f.write(sealer.end())
            self._own(name, owner)
            hidden.replace(self._folder / name)
        except OSError as e:
            raise Unavailable(
                f"the table cannot be taken: {e.strerror or e}",
                hint="make room on the disk of the home, then send it again",
                code="no_room",
            ) from e
        finally:
            hidden.unlink(missing_ok=True)
        return Parcel(name, "sha256:" + digest.hexdigest(), size)

    def keep(self, owner: str, name: str, file: Path) -> Parcel:
        """Make a file a parcel; one of this name is replaced. The file is gone then."""
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        parcel = Parcel(_checked(name), sha256_file(file), file.stat().st_size)
        hidden = self._folder / f".{name}"
        hidden.unlink(missing_ok=True)
        try:
            with (
                file.open("rb") as plain,
                os.fdopen(os.open(hidden, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as f,
            ):
                f.writelines(sealed.sealing(iter(lambda: plain.read(sealed.CHUNK), b""), self._key(), _identity(name)))
            self._own(name, owner)
            hidden.replace(self._folder / name)
        finally:
            hidden.unlink(missing_ok=True)
        file.unlink()
        return parcel

    def read(self, owner: str, name: str) -> tuple[int, Iterator[bytes]]:
        """How many bytes a parcel has, and they. Raises `NotFound`, `Integrity`."""
        path = self.path(owner, name)
        return sealed.plain_size(path.stat().st_size), _opened(path)

    def path(self, owner: str, name: str) -> Path:
        """Where a parcel lies, sealed. Raises `NotFound`, also for somebody else's: whose it is, is nobody's business."""
        path = self._folder / _checked(name)
        try:
            if (self._folder / f"{name}{_OWNERS}").read_text("utf-8") == owner and path.is_file():
                return path
        except OSError:
            pass  # there is none, which is said below
        raise _missing(name)

    def remove(self, owner: str, name: str) -> None:
        """Take a parcel away. Raises `NotFound`."""
        self.path(owner, name).unlink(missing_ok=True)
        (self._folder / f"{name}{_OWNERS}").unlink(missing_ok=True)

    def sweep(self) -> None:
        """Remove what was left for longer than a day."""
        oldest = self._clock.now().timestamp() - _KEPT_SECONDS
        for path in self._folder.glob("*") if self._folder.is_dir() else ():
            with contextlib.suppress(OSError):
                if path.stat().st_mtime < oldest:
                    path.unlink()

    def _key(self) -> bytes:
        keys = keys_of(self._folder).parcels
        if not keys:
            raise not_held("a table on its way")
        return keys[0]

    def _own(self, name: str, owner: str) -> None:
        (self._folder / f"{name}{_OWNERS}").write_text(owner, "utf-8")


def unpack(parcel: Path, folder: Path) -> Path:
    """The plain file of a parcel, below `folder`; what is no parcel stays where it is. Raises `Integrity`."""
    with parcel.open("rb") as f:
        if not sealed.is_sealed(f.read(len(sealed.MAGIC))):
            return parcel
    plain = folder / f"plain-{parcel.name}"
    with os.fdopen(os.open(plain, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as f:
        f.writelines(_opened(parcel))
    return plain


def _opened(path: Path) -> Iterator[bytes]:
    with path.open("rb") as f:
        yield from sealed.opening(f.read, keys_of(path).parcels, _identity(path.name))


def _identity(name: str) -> str:
    return f"parcels/{name}"


def _checked(name: str) -> str:
    if not _NAME.match(name):
        raise _missing(name)
    return name


def _missing(name: str) -> NotFound:
    return NotFound(
        f"there is no table {name[:60]!r} here",
        hint="it was taken away, or a day has passed: send it again",
        code="no_such_parcel",
    )
