"""What serving needs from others."""

from __future__ import annotations

from typing import Any, Protocol

from falaj.governance.identity.verify import KnownToken
from falaj.lifecycle.registry.model import Admission
from falaj.lifecycle.rollout.model import TrafficPlan
from falaj.lifecycle.serving.model import JournalSegment, Killed
from falaj.storage.sql.database import Tx


class BundleStore(Protocol):
    """Which bundles were published."""

    def add(self, tx: Tx, environment: str, generation: int, digest: str, at: str) -> None:
        """Remember a published bundle: its generation and its envelope's blob digest."""
        ...

    def newest(self, tx: Tx, environment: str) -> int:
        """The newest generation; 0 before the first."""
        ...

    def envelope(self, tx: Tx, environment: str) -> str:
        """The blob digest of the newest bundle's envelope; empty before the first."""
        ...


class Plans(Protocol):
    """Who gets which traffic."""

    def plans(self) -> list[TrafficPlan]:
        """The newest plan of each model in this environment."""
        ...


class Admissions(Protocol):
    """What was admitted, with the signatures that prove it."""

    def admission(self, digest: str, environment: str) -> tuple[Admission, dict[str, Any]] | None:
        """The newest admission of a version in an environment with its envelope; None when there is none."""
        ...

    def signature_of(self, digest: str) -> tuple[dict[str, Any], str]:
        """The version's OpenSSF model signature (a Sigstore bundle). Raises `NotFound`."""
        ...

    def waiver_of(self, admission: Admission) -> dict[str, Any] | None:
        """The signed waiver that an admission rests on; None when it needs none. Raises `Integrity` for a revoked one."""
        ...


class Kills(Protocol):
    """Which models are killed."""

    def killed(self) -> dict[str, Killed]:
        """What answers in place of each killed model of this environment."""
        ...


class NoKills:
    """Where no model is ever killed: staging, and where one measures."""

    def killed(self) -> dict[str, Killed]:
        """None."""
        return {}


class Blobs(Protocol):
    """Encrypted bytes by the digest of what is in them."""

    def put(self, plain: bytes) -> str:
        """Keep bytes; returns their digest."""
        ...

    def get(self, digest: str) -> bytes:
        """The bytes of a digest. Raises `NotFound`, `Integrity`."""
        ...

    def data_key(self, digest: str) -> bytes:
        """The key (32 bytes) that one blob is encrypted with, for whoever may read that blob only."""
        ...


class Tokens(Protocol):
    """Who may call the data plane."""

    def known_tokens(self) -> list[KnownToken]:
        """Tokens that are not revoked, as keyed hashes with their principals."""
        ...


class SegmentStore(Protocol):
    """Sealed segments of the prediction journal."""

    def add(self, tx: Tx, segment: JournalSegment) -> None:
        """Write a sealed segment down."""
        ...

    def all(self, tx: Tx) -> list[JournalSegment]:
        """Newest first."""
        ...

    def names(self, tx: Tx) -> list[str]:
        """The names of all sealed segments."""
        ...


class Alarms(Protocol):
    """Where trouble is reported; implemented by monitoring."""

    def open(self, model: str, kind: str, digest: str, reason: str) -> object:
        """Open an incident, unless one of this kind is open."""
        ...

    def settle(self, model: str, kind: str) -> None:
        """The trouble is gone: resolve the open incidents of this kind."""
        ...
