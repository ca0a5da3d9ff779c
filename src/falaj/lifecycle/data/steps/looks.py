"""What a file is by its bytes, and which of the columns that it has may be the one that it lacks."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence

_FIRST_BYTES: tuple[tuple[bytes, str], ...] = (
    (b"PAR1", "Parquet"),
    (b"ARROW1", "Arrow"),
    (b"\x1f\x8b", "gzip"),
    (b"\x28\xb5\x2f\xfd", "zstd"),
    (b"BZh", "bzip2"),
    (b"\xfd7zXZ\x00", "xz"),
    (b"PK\x03\x04", "a ZIP archive or an Excel workbook"),
    (b"\xd0\xcf\x11\xe0", "an old Excel workbook"),
    (b"%PDF", "PDF"),
    (b"SQLite format 3\x00", "an SQLite database"),
)
_WEB_PAGE = re.compile(rb"\s*<(?:!doctype|html)", re.IGNORECASE)
# The longer marks first: UTF-32's begins with UTF-16's.
_MARKS = (
    (b"\xff\xfe\x00\x00", "utf-32"),
    (b"\x00\x00\xfe\xff", "utf-32"),
    (b"\xff\xfe", "utf-16"),
    (b"\xfe\xff", "utf-16"),
)
_LOOKED_AT = 4096  # bytes
_LONGEST = 60  # characters of a name in a message
PACKED = {"gzip", "zstd", "bzip2", "xz"}
"""The forms that hold one file, packed."""


def form_of(data: bytes) -> str:
    """What the first bytes say that a file is; empty for text and for what nobody knows."""
    if _WEB_PAGE.match(data[:_LOOKED_AT]):
        return "a web page"
    return next((name for first, name in _FIRST_BYTES if data.startswith(first)), "")


def wide_encoding(data: bytes) -> str:
    """`utf-16le` and the like for text whose characters are wider than a byte; empty for other text.

    It says so with a mark at its beginning, or by zeros in every other byte.
    """
    marked = next((name for mark, name in _MARKS if data.startswith(mark)), "")
    if marked:
        return marked
    first = data[:_LOOKED_AT]
    for start, name in ((1, "utf-16le"), (0, "utf-16be")):
        half = first[start::2]
        if len(half) > 4 and half.count(0) > len(half) * 0.8 and first.count(0) < len(first) * 0.6:
            return name
    return ""


def is_text(data: bytes) -> bool:
    """Whether the beginning of a file reads as text."""
    try:
        return data[:_LOOKED_AT].decode("utf-8", "strict").replace("\ufeff", "").translate(_SPACES).isprintable()
    except UnicodeDecodeError as e:
        return e.start > _LOOKED_AT - 4  # the last character may be cut in two


_SPACES = str.maketrans("\n\r\t", "   ")


def nearest(missing: str, have: Sequence[str]) -> str:
    """The column that may be the missing one under another name; empty where none is like it."""
    plain = {_plain(name): name for name in reversed(have)}
    found = plain.get(_plain(missing)) or next(iter(difflib.get_close_matches(missing, have, 1, 0.65)), "")
    if found:
        return found
    return next((plain[p] for p in difflib.get_close_matches(_plain(missing), list(plain), 1, 0.65)), "")


def shown(name: str) -> str:
    """A name that a file gave, as it stands in a message: cut, and quoted where one could misread it."""
    cut = name if len(name) <= _LONGEST else f"{name[: _LONGEST - 1]}…"
    return cut if cut.isprintable() and cut == cut.strip() and cut and "," not in cut else repr(cut)


def listed(names: Sequence[str], most: int = 12) -> str:
    """Names, one after the other."""
    return ", ".join(map(shown, names[:most])) + (f" and {len(names) - most} more" if len(names) > most else "")


def _plain(name: str) -> str:
    return re.sub(r"[\W_]+", "", name.casefold())
