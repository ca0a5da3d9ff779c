"""Who signed in with `falaj login` on this home's command line: their token lies with the others, and a note names them."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from falaj.kernel.settings import Settings

_NOTE = ".signed-in"


class SignedIn(msgspec.Struct, frozen=True):
    """The note. `server` is the one that was signed in to, as it was named; empty for this home's own."""

    principal: str
    token: str
    server: str
    expires_at: str


def signed_in(settings: Settings) -> SignedIn | None:
    """Who signed in last, here and to this server; a token is never sent to another one."""
    try:
        note = msgspec.json.decode((settings.home / "tokens" / _NOTE).read_bytes(), type=SignedIn)
    except (OSError, msgspec.DecodeError, UnicodeDecodeError):
        return None
    return note if note.server == settings.server else None


def remember(home: Path, note: SignedIn, token: str) -> None:
    """Keep a sign-in; its token first, so that the note never names one that is not there."""
    write_secret(home / "tokens" / note.principal, token.encode() + b"\n")
    write_secret(home / "tokens" / _NOTE, msgspec.json.encode(note))


def forget(home: Path, note: SignedIn) -> None:
    """Leave nothing of a sign-in behind."""
    (home / "tokens" / _NOTE).unlink(missing_ok=True)
    (home / "tokens" / note.principal).unlink(missing_ok=True)


def write_secret(path: Path, content: bytes) -> None:
    """Write what only the home's owner may read, whatever was there before."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as f:
        os.fchmod(descriptor, 0o600)  # one that was there may have had other rights
        f.write(content)
