"""The port to SQL: one way to read, one way to change."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeVar

from sqlalchemy import Connection

T = TypeVar("T")
Tx = Connection
"""An open transaction. Stores take it as their first argument; nobody commits it but the database."""


class Database(Protocol):
    """One database with one writer."""

    def read(self, query: Callable[[Tx], T]) -> T:
        """Run `query` in a read-only snapshot."""
        ...

    def change(self, work: Callable[[Tx], T]) -> T:
        """Run `work` in a transaction and return after the commit; an exception undoes this work alone."""
        ...

    def close(self) -> None:
        """Finish what is under way and let go of the files."""
        ...
