"""How a step process says how far it is."""

from __future__ import annotations

from typing import Protocol


class Reporter(Protocol):
    """What a step tells while it works."""

    def progress(self, text: str, done: int = 0, total: int = 0) -> None:
        """Say what is going on; `total` 0 means that the end is not known."""
        ...

    def metric(self, key: str, value: float, step: int) -> None:
        """Report one point of a learning curve."""
        ...
