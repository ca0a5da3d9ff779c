"""Numbers of entries as a project sees them.

An entry's number is its place in the common log, so the numbers of two entries tell how much everybody did between them. Whoever
sees a part of the log only gets other numbers for its entries: a permutation of all numbers, its own for each project, under a
secret of the home (four Feistel rounds over HMAC-SHA-256, after Luby and Rackoff). They name entries and say nothing else.
"""

from __future__ import annotations

import hashlib
import hmac

_HALF = 26  # bits: 52 in all, which every reader of JSON takes for a whole number
_MASK = (1 << _HALF) - 1
_ROUNDS = range(4)


class Veil:
    """Entry ↔ number, for each project."""

    def __init__(self, secret: bytes) -> None:
        self._secret = hmac.digest(secret, b"falaj: numbers of entries", hashlib.sha256)

    def number(self, project: str, index: int) -> int:
        """The number that a project knows an entry by."""
        left, right = (index >> _HALF) & _MASK, index & _MASK
        for turn in _ROUNDS:
            left, right = right, left ^ self._mixed(project, turn, right)
        return left << _HALF | right

    def index(self, project: str, number: int) -> int:
        """The entry that a project's number names; of a number that names none, a place that no log reaches (but by chance)."""
        left, right = (number >> _HALF) & _MASK, number & _MASK
        for turn in reversed(_ROUNDS):
            left, right = right ^ self._mixed(project, turn, left), left
        return left << _HALF | right

    def _mixed(self, project: str, turn: int, half: int) -> int:
        told = f"{turn} {half} {project}".encode()
        return int.from_bytes(hmac.digest(self._secret, told, hashlib.sha256)[:8], "big") & _MASK
