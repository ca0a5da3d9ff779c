"""What serving needs from others."""

from __future__ import annotations

from typing import Any, Protocol

from falaj.governance.identity.verify import KnownToken
from falaj.lifecycle.registry.model import Admission
from falaj.lifecycle.rollout.model import TrafficPlan
from falaj.lifecycle.serving.model import JournalSegment
from falaj.storage.sql.database import Tx


class BundleStore(Protocol):
    def add(self, tx: Tx, environment: str, generation: int, digest: str, at: str) -> None: ...

    def newest(self, tx: Tx, environment: str) -> int:
        """The newest generation; 0 before the first."""
        ...

    def envelope(self, tx: Tx, environment: str) -> str:
        """The blob digest of the newest bundle's envelope; empty before the first."""
        ...


class Plans(Protocol):
    def plans(self) -> list[TrafficPlan]: ...


class Admissions(Protocol):
    def admission(self, digest: str, environment: str) -> tuple[Admission, dict[str, Any]] | None: ...

    def signature_of(self, digest: str) -> dict[str, Any]: ...


class Blobs(Protocol):
    def put(self, plain: bytes) -> str: ...

    def get(self, digest: str) -> bytes: ...

    def data_key(self, digest: str) -> bytes: ...


class Tokens(Protocol):
    def known_tokens(self) -> list[KnownToken]: ...


class SegmentStore(Protocol):
    def add(self, tx: Tx, segment: JournalSegment) -> None: ...

    def all(self, tx: Tx) -> list[JournalSegment]:
        """Newest first."""
        ...

    def names(self, tx: Tx) -> list[str]: ...


class Alarms(Protocol):
    """Where trouble is reported; implemented by monitoring."""

    def open(self, model: str, kind: str, digest: str, reason: str) -> object:
        """Open an incident, unless one of this kind is open."""
        ...

    def settle(self, model: str, kind: str) -> None:
        """The trouble is gone: resolve the open incidents of this kind."""
        ...
