"""Names that try to be paths: every spelling of a way out that servers, unpackers and file systems have fallen for.

`CANARY` stands in each: a call of the operating system that names it was made of what a client sent.
"""

from __future__ import annotations

import io
import re
import tarfile
from collections.abc import Callable, Iterator
from typing import NamedTuple
from urllib.parse import quote

CANARY, SECRET = "zqcanary", b"the canary sings"

REQUESTS, FILES = "/requests-begin-here", "/files-begin-here"
"""Looked at by the served process when a part of the proof begins."""

UP = "../"
LOOKALIKES = {
    "one dot leader": ("\u2024", "/"),
    "two dot leader": ("\u2025", "/"),
    "ellipsis": ("\u2026", "/"),
    "full-width dot": ("\uff0e", "/"),
    "full-width slash": (".", "\uff0f"),
    "fraction slash": (".", "\u2044"),
    "division slash": (".", "\u2215"),
    "full-width backslash": (".", "\uff3c"),
    "big reverse solidus": (".", "\u29f9"),
    "small full stop": ("\ufe52", "/"),
}
"""Signs that some normalisation turns into a dot or a slash: (dot, slash)."""


SHAPES = (
    "{target}", "/{target}", "//{target}", "./{own}", ".//{own}", "{up}{tail}", "{up3}{tail}", "{up8}{tail}", "{up16}{tail}",
    "{up}{own}", "{up}{up}{own}", "/{up12}{tail}", "x/{up12}{up}{tail}", "./{up12}{tail}", "x{target}/..//{up12}{tail}", "tile/{up12}{tail}",
    "{12*..//}{tail}", "{12*....//}{tail}", "{12*..././}{tail}", "{12*.../}{tail}", "{12*/..}{target}",
    "{12*..\\}{back}", "{12*..\\}{tail}", "{12*..\\/}{tail}", "{12*..\\\\}{own}", "{12*....\\\\}{own}", "\\{own}", "\\\\host\\share\\{own}",
    "//host/share/{own}", "x\\..\\..\\{own}", "C:\\{own}", "C:{own}", "C:/{own}", "c:..\\..\\{own}", "\\\\?\\C:\\{own}", "\\\\.\\{own}",
    "\\??\\C:\\{own}", "CON.{own}", "NUL/{own}", "aux.{own}", "COM1:{own}", "LPT1.{own}", "{own}::$DATA", "{own}:x", "{own}. ", "{own}...",
    "/dev/fd/../..{target}", "/proc/self/root{target}", "/proc/self/cwd/{up12}{tail}", "/dev/{own}", "/run/{own}", "file://{target}",
    "file:{target}", "FILE:///{up}{tail}", "~/{own}", "~root/{own}", "$HOME/{own}", "${HOME}/{own}", "%HOME%/{own}",
    "{12*..;/}{tail}", "{12*..;a=b/}{tail}", "x;/{up12}{tail}", ";/{up}{own}", "{own};.json", "{up12}{tail};x",
    "{up12}{tail}\0", "{up12}{tail}\0.json", "x\0/{up12}{tail}", "\0{target}", "{own}\0", "{up12}{tail}?x", "{up12}{tail}#x", "{up12}{tail}%",
    "{up12}{tail}\n", "{up12}{tail}\r\nx: y", " {up}{own}", "{up} {own}", "sha256:{up12}{tail}", "sha256:{zeros}00/{up12}{tail}",
    "sha256:{target}", "{zeros}{up}{own}", "x@{up}{own}", "1/{up}{own}", "\u202e{up}{own}", "\ufeff{up}{own}",
)  # fmt: skip
"""The ways out: `target` whole, its `tail` without the first slash, its `own` name, `up` for as many folders as it says."""


def plain(target: str) -> list[str]:
    """Ways to `target`, an absolute path, as text that nothing has encoded yet."""
    tail = target.lstrip("/")
    words = {
        "target": target,
        "tail": tail,
        "own": target.rpartition("/")[2],
        "back": tail.replace("/", "\\"),
        "zeros": "0" * 62,
    }
    words |= {"up": UP} | {f"up{n}": UP * n for n in (3, 8, 12, 16)}

    def word(found: re.Match[str]) -> str:
        text = found[1]
        return text[3:] * 12 if text.startswith("12*") else words.get(text, found[0])

    found = [re.sub(r"{([^{}]+)}", word, shape) for shape in SHAPES]
    found += [f"{dot * 2}{slash}" * 12 + tail.replace("/", slash) for dot, slash in LOOKALIKES.values()]
    found.append(UP * 12 + tail.replace(CANARY, CANARY[:4] + "\u200b" + CANARY[4:]))
    return list(dict.fromkeys(found))


class Slot(NamedTuple):
    """One place of one route that takes a name."""

    plane: str
    method: str
    path: str
    where: str
    name: str


def _every(text: str) -> str:
    return "".join(f"%{b:02x}" for b in text.encode("utf-8", "surrogatepass"))


def _dots(two: str, three: str) -> Callable[[str], str]:
    """An encoding that spells dots and slashes so, and leaves the rest."""
    return lambda text: quote(text, safe="./").replace(".", two).replace("/", three)


ENCODINGS: dict[str, Callable[[str], str]] = {
    "as it is": lambda t: "".join(c if " " < c <= "~" and c not in "?#%" else quote(c) for c in t),
    "once": lambda t: quote(t, safe=""),
    "once, every byte": _every,
    "twice": lambda t: quote(quote(t, safe=""), safe=""),
    "three times": lambda t: quote(quote(quote(t, safe=""), safe=""), safe=""),
    "dots only": _dots("%2e", "/"),
    "slashes only": _dots(".", "%2f"),
    "capital": _dots("%2E", "%2F"),
    "overlong, 2 bytes": _dots("%c0%ae", "%c0%af"),
    "overlong, 3 bytes": _dots("%e0%80%ae", "%e0%80%af"),
    "overlong, 4 bytes": _dots("%f0%80%80%ae", "%f0%80%80%af"),
    "overlong, bad": _dots("%c0%2e", "%c0%2f"),
    "%u": _dots("%u002e", "%u2215"),
    "entities": _dots("&#46;", "&sol;"),
    "twice, overlong": _dots("%25c0%25ae", "%25c0%25af"),
}
"""How the text is written in an address."""

_FEW = ("once", "as it is")


def in_address(target: str) -> list[tuple[str, str]]:
    """(encoding, text) for an address: the ways out in each encoding that changes them."""
    found: dict[str, str] = {}
    for number, text in enumerate(plain(target)):
        names = ENCODINGS if number < 20 else _FEW
        for name in names:
            found.setdefault(ENCODINGS[name](text), name)
    return [(name, text) for text, name in found.items()]


def in_body(target: str) -> list[str]:
    """The same for a member of a body: as text, and as text that somebody might decode again."""
    once = [ENCODINGS[name](plain(target)[5]) for name in ENCODINGS]
    return list(dict.fromkeys([*plain(target), *once]))


def tars(target: str) -> Iterator[tuple[str, bytes]]:
    """(what it is, an archive) for each way out as a member's name, and as what a link points to."""
    kinds = {"file": tarfile.REGTYPE, "link": tarfile.SYMTYPE, "hard link": tarfile.LNKTYPE, "folder": tarfile.DIRTYPE,
             "pipe": tarfile.FIFOTYPE, "device": tarfile.CHRTYPE}  # fmt: skip
    for text in plain(target):
        if "\0" in text:
            continue  # a tar's name ends there
        for name, kind in kinds.items():
            about = tarfile.TarInfo(text if kind not in (tarfile.SYMTYPE, tarfile.LNKTYPE) else "checkpoint")
            about.type, about.linkname, about.mode = kind, text, 0o777
            about.size = 4 if kind == tarfile.REGTYPE else 0
            yield f"{name} {text!r}", _tar((about, b"over"))
    inner = tarfile.TarInfo("tile/0/x")
    inner.size = 4
    link = tarfile.TarInfo("tile")
    link.type, link.linkname = tarfile.SYMTYPE, target.rpartition("/")[0]
    yield "a link, then a file behind it", _tar((link, b""), (inner, b"over"))


def _tar(*members: tuple[tarfile.TarInfo, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for about, data in members:
            tar.addfile(about, io.BytesIO(data))
    return out.getvalue()
