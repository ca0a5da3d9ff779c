"""What the registry needs from others."""

from __future__ import annotations

from typing import Any, Protocol

from falaj.governance.changes.model import Approval, Subject
from falaj.lifecycle.evidence.model import Proven
from falaj.lifecycle.registry.model import Admission, ModelVersion, Rehearsal
from falaj.storage.sql.database import Tx


class VersionStore(Protocol):
    def by_digest(self, tx: Tx, digest: str) -> ModelVersion | None: ...

    def by_number(self, tx: Tx, model: str, number: int) -> ModelVersion | None: ...

    def of_model(self, tx: Tx, model: str) -> list[ModelVersion]: ...

    def models(self, tx: Tx) -> list[str]: ...

    def add(self, tx: Tx, version: ModelVersion) -> None: ...

    def package_again(self, tx: Tx, version: ModelVersion) -> None:
        """Give a version the author, run, signature, gates and approvers of its newest packaging."""
        ...

    def next_number(self, tx: Tx, model: str) -> int: ...

    def move(self, tx: Tx, digest: str, **values: Any) -> None: ...

    def add_admission(self, tx: Tx, admission: Admission, envelope: str) -> None: ...

    def admission(self, tx: Tx, digest: str, environment: str) -> tuple[Admission, str] | None:
        """The newest admission with its envelope's blob digest."""
        ...

    def admissions(self, tx: Tx, digest: str) -> list[tuple[Admission, str]]:
        """All admissions of a version, newest first, each with its envelope's blob digest."""
        ...

    def admitted(self, tx: Tx, environment: str) -> list[str]:
        """The digests that an environment has admitted, each once, the newest admission last."""
        ...

    def add_rehearsal(self, tx: Tx, rehearsal: Rehearsal, envelope: str) -> None: ...

    def rehearsal(self, tx: Tx, digest: str, environment: str) -> tuple[Rehearsal, str] | None:
        """The newest rehearsal with its envelope's blob digest."""
        ...


class Blobs(Protocol):
    def put(self, plain: bytes) -> str: ...

    def get(self, digest: str) -> bytes: ...

    def exists(self, digest: str) -> bool: ...


class VerifiedEvidence(Protocol):
    def proven(self, digest: str) -> Proven:
        """What the statements about a version say whose signatures were verified now."""
        ...


class Champions(Protocol):
    """Who serves; implemented by rollout, which is downstream."""

    def champion(self, model: str, environment: str) -> str:
        """The digest that serves a model in an environment now, beside any challenger; empty when none does."""
        ...


class Approvals(Protocol):
    def counting(self, subject: Subject) -> list[Approval]: ...
