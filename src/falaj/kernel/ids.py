"""Identifiers: a prefix that says what it names, then 26 characters that sort by time."""

from __future__ import annotations

import secrets
from datetime import datetime

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"  # Crockford's base 32


def new_id(prefix: str, now: datetime) -> str:
    """`prefix_` and 48 bits of milliseconds followed by 80 random bits (the layout of a ULID)."""
    value = (int(now.timestamp() * 1000) & ((1 << 48) - 1)) << 80 | secrets.randbits(80)
    return prefix + "_" + "".join(_ALPHABET[(value >> shift) & 31] for shift in range(125, -1, -5))
