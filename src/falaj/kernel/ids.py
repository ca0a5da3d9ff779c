"""Identifiers: a prefix that says what it names, then 26 characters that sort by time."""

from __future__ import annotations

import secrets
from datetime import datetime

from falaj.kernel.digests import digest_of

ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
"""Crockford's base 32: five bits a character, and none that is read for another."""


def new_id(prefix: str, now: datetime) -> str:
    """`prefix_` and 48 bits of milliseconds followed by 80 random bits (the layout of a ULID)."""
    return _written(prefix, (int(now.timestamp() * 1000) & ((1 << 48) - 1)) << 80 | secrets.randbits(80))


def id_of(prefix: str, *parts: str) -> str:
    """As `new_id`, but the same for the same parts: 128 bits of their digest. It does not sort by time."""
    return _written(prefix, int(digest_of(parts).removeprefix("sha256:"), 16) >> 128)


def _written(prefix: str, value: int) -> str:
    return prefix + "_" + "".join(ALPHABET[(value >> shift) & 31] for shift in range(125, -1, -5))
