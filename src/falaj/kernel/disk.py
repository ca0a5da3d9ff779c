"""When a disk refuses: what a failure of the system or of a library means, in one place.

SQLite, Polars and Delta each have their own words for "no space left", so the words are looked at where there is no
error number.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from falaj.kernel.errors import FalajError, Unavailable

_FULL = ("no space left on device", "disk is full", "disk quota exceeded", "not enough space", "no room for")
_READ_ONLY = ("read-only file system", "readonly database", "permission denied", "operation not permitted")
_FULL_NUMBERS = {errno.ENOSPC, errno.EDQUOT}
_READ_ONLY_NUMBERS = {errno.EROFS, errno.EACCES, errno.EPERM}
_VAGUE = ("disk i/o error", "unable to open database file")  # what SQLite says when it cannot make its side files
_LEAST = 1 << 20  # bytes free, under which a vague failure is taken for a full disk


def refusal(error: BaseException, where: Path) -> FalajError | None:
    """What to tell a person of a failure to write below `where`, if it is the disk's: `disk_full` or `not_writable`.

    None for any other failure. What was acknowledged before stays; what failed was not done.
    """
    for e in _causes(error):
        number = e.errno if isinstance(e, OSError) else None
        said = str(e).lower()
        if number in _FULL_NUMBERS or any(words in said for words in _FULL):
            return disk_full(where)
        if number in _READ_ONLY_NUMBERS or (number is None and any(words in said for words in _READ_ONLY)):
            return not_writable(Path(os.fsdecode(e.filename)) if isinstance(e, OSError) and e.filename else where)
        if any(words in said for words in _VAGUE):
            if free_bytes(where) < _LEAST:
                return disk_full(where)
            if not os.access(_there(where), os.W_OK):
                return not_writable(where)
    return None


def disk_full(where: Path) -> Unavailable:
    """Why nothing more is written: the disk of `where` has no room."""
    return Unavailable(
        f"the disk is full: {free_bytes(where) >> 10:,} KiB are left where {where} lies",
        hint="free some room there, or move the home to a larger disk, and do it again; what was confirmed before is kept",
        code="disk_full",
        details={"path": str(where), "free_bytes": free_bytes(where)},
    )


def not_writable(where: Path) -> Unavailable:
    """Why nothing is written: the file system is read-only, or the rights do not allow it."""
    return Unavailable(
        f"{where} cannot be written",
        hint="the home has to be writable by whoever runs the command: see its owner and rights (`ls -ld`), and whether "
        "the disk is mounted read-only; to look only, copy the home elsewhere",
        code="not_writable",
        details={"path": str(where)},
    )


def free_bytes(where: Path) -> int:
    """Bytes free for this user on the disk of a folder, or of the nearest parent that is there."""
    return shutil.disk_usage(_there(where)).free


def _there(where: Path) -> Path:
    return next((p for p in (where, *where.parents) if p.exists()), Path("/"))


def _causes(error: BaseException) -> Iterator[BaseException]:
    """An error and those that it came from, the outermost first; a chain that turns in a circle ends."""
    seen: set[int] = set()
    found: BaseException | None = error
    while found is not None and id(found) not in seen:
        seen.add(id(found))
        yield found
        original = getattr(found, "orig", None)  # SQLAlchemy's
        found = original if isinstance(original, BaseException) else found.__cause__ or found.__context__
