"""What serving needs from others."""

from __future__ import annotations

from typing import Any, Protocol

from falaj.governance.identity.verify import KnownToken
from falaj.lifecycle.registry.model import Admission
from falaj.lifecycle.rollout.model import TrafficPlan
from falaj.storage.sql.database import Tx


class BundleStore(Protocol):
    def next_generation(self, tx: Tx, environment: str) -> int: ...

    def add(self, tx: Tx, environment: str, generation: int, digest: str, at: str) -> None: ...

    def newest(self, tx: Tx, environment: str) -> int: ...


class Plans(Protocol):
    def plans(self) -> list[TrafficPlan]: ...


class Admissions(Protocol):
    def admission(self, digest: str, environment: str) -> tuple[Admission, dict[str, Any]] | None: ...

    def signature_of(self, digest: str) -> dict[str, Any]: ...


class DataKeys(Protocol):
    def data_key(self, digest: str) -> bytes: ...


class Tokens(Protocol):
    def known_tokens(self) -> list[KnownToken]: ...
