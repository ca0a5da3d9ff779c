"""Where statements are kept, and who serves a candidate while it is measured."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any, NamedTuple, Protocol

from falaj.lifecycle.evidence.model import Statement
from falaj.storage.sql.database import Tx


class StatementStore(Protocol):
    """Signed statements by the version that they are about."""

    def add(self, tx: Tx, digest: str, statements: list[Statement]) -> None:
        """Replace the set of statements about a version."""
        ...

    def of(self, tx: Tx, digest: str) -> list[Statement]:
        """The statements about a version, in the order in which they were made."""
        ...


class Blobs(Protocol):
    """Bytes by their digest."""

    def put(self, plain: bytes) -> str:
        """Keep bytes; returns their digest."""
        ...

    def get(self, digest: str) -> bytes:
        """The bytes of a digest. Raises `NotFound`, `Integrity`."""
        ...


class Probe(NamedTuple):
    """A data plane that serves one candidate and nothing else."""

    address: str
    token: str


class ServingProbe(Protocol):
    """A way to have a candidate served before it may take traffic."""

    def serve(self, digest: str, name: str) -> AbstractContextManager[Probe]:
        """Serve an admitted candidate on a private loopback data plane while the context is open.

        Raises `Integrity` when the data plane refuses to load it.
        """
        ...


Envelope = dict[str, Any]
