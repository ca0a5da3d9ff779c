"""What a place of a key-encryption key offers, and which place has which form."""

from __future__ import annotations

from typing import Protocol

KEK_AWAY = "kek_unavailable"


class Wrapper(Protocol):
    """Somewhere outside the home where one key wraps others. `bound` belongs to what was wrapped: it opens with it only."""

    def exact(self) -> str:
        """The place, exact enough to find this very key again.

        Raises `Invalid` for a key of a type that is not used here, `Unavailable` when the place does not answer.
        """
        ...

    def wrap(self, key: bytes, bound: str) -> str:
        """A key as it may lie anywhere: one line. Raises `Unavailable`."""
        ...

    def unwrap(self, wrapped: str, bound: str) -> bytes | None:
        """The key; None for what the key at this place did not wrap with this. Raises `Unavailable`."""
        ...
