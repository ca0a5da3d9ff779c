"""Where a lake can lie: the library that writes Delta tables (delta-rs) reads a folder's name as an address."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote

from falaj.kernel.errors import Invalid

_UNUSABLE = "[]\\^|"
"""Characters that delta-rs turns into another folder's name, or ends the process at."""


def check_place(home: Path) -> Path:
    """Return a home's folder if a lake can be written below it. Raises `Invalid`.

    A name such as `a%20b` would be read as `a b`, which is another folder.
    """
    text = str(home)
    taken = next((c for c in text if c in _UNUSABLE or not c.isprintable()), "")
    if not taken and unquote(text, errors="replace") != text:
        at = next(
            i
            for i in range(len(text))
            if text[i] == "%" and unquote(text[i : i + 3], errors="replace") != text[i : i + 3]
        )
        taken = text[at : at + 3]
    if taken:
        raise Invalid(
            f"a home cannot lie in {text!r}: {taken!r} in the name of a folder is not understood by the lake",
            hint="choose a folder whose name has no %XX and none of [ ] \\ ^ |: `--home FOLDER`, or rename it",
            code="bad_home_path",
        )
    return home
