"""What a person typed as a name, before it becomes part of an address."""

from __future__ import annotations

import re
from urllib.parse import quote

from falaj.kernel.errors import Invalid

LONGEST = 300  # characters; what a person may call something is shorter, an entity's key may need them
_REFERENCE = re.compile(r"(?P<model>[^@]+)@(?P<rest>[1-9][0-9]*|[0-9a-f]{8,64})\Z", re.ASCII)


def named(text: str, *, slashes: bool = False) -> str:
    """A name as a part of an address, escaped; with `slashes` it may be several parts (a prediction's row, a key).

    Raises `Invalid` for what can name nothing: it would be taken for another address.
    """
    if not text.strip():
        raise Invalid("a name is missing: it is empty", hint="write the name of the thing", code="bad_name")
    parts = text.split("/")
    if (
        len(text) > LONGEST
        or not text.isprintable()
        or {".", "..", ""} & set(parts)
        or (len(parts) > 1 and not slashes)
    ):
        raise Invalid(
            f"{shown(text)!r} cannot be a name",
            hint=f"names have no '/', no control characters and at most {LONGEST} characters",
            code="bad_name",
        )
    return quote(text, safe="/")


def reference(text: str) -> tuple[str, str]:
    """`MODEL@N`, or MODEL@ and at least eight hex digits of the digest, as its two halves. Raises `Invalid`."""
    match = _REFERENCE.match(text)
    if match is None:
        model = text.partition("@")[0].strip()
        raise Invalid(
            f"{shown(text)!r} does not name a version",
            hint=f"write MODEL@NUMBER, such as {model or 'flight-delay'}@1"
            + (f"; `falaj versions {shown(model)}` lists them" if model else ""),
            code="bad_version_name",
        )
    named(match["model"])
    return match["model"], match["rest"]


def shown(text: str) -> str:
    """A name as it stands in a message: cut, if it is long."""
    return text if len(text) <= 80 else f"{text[:79]}…"
