"""Where statements are kept, and who serves a candidate while it is measured."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any, NamedTuple, Protocol

from falaj.lifecycle.evidence.model import Statement
from falaj.storage.sql.database import Tx


class StatementStore(Protocol):
    def add(self, tx: Tx, digest: str, statements: list[Statement]) -> None:
        """Replace the set of statements about a version."""
        ...

    def of(self, tx: Tx, digest: str) -> list[Statement]: ...


class Blobs(Protocol):
    def put(self, plain: bytes) -> str: ...

    def get(self, digest: str) -> bytes: ...


class Probe(NamedTuple):
    """A data plane that serves one candidate and nothing else."""

    address: str
    token: str


class ServingProbe(Protocol):
    def serve(self, digest: str, name: str) -> AbstractContextManager[Probe]:
        """Serve an admitted candidate on a private loopback data plane while the context is open.

        Raises `Integrity` when the data plane refuses to load it.
        """
        ...


Envelope = dict[str, Any]
