"""What the registry needs from others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from falaj.governance.changes.inventory import Governed
from falaj.governance.changes.model import Approval, Subject
from falaj.lifecycle.evidence.model import Proven
from falaj.lifecycle.registry.model import Admission, ModelVersion, Rehearsal
from falaj.lifecycle.registry.waiver import NOTHING, Revocation, Signature, Standing, Waiver, refused
from falaj.storage.sql.database import Tx


class VersionStore(Protocol):
    """Rows of versions, admissions and rehearsals."""

    def by_digest(self, tx: Tx, digest: str) -> ModelVersion | None:
        """The version of this digest; None when there is none."""
        ...

    def by_number(self, tx: Tx, model: str, number: int) -> ModelVersion | None:
        """`model@number`; None when there is none."""
        ...

    def of_model(self, tx: Tx, model: str) -> list[ModelVersion]:
        """All versions of a model, candidates and refused ones too, oldest first."""
        ...

    def models(self, tx: Tx) -> list[str]:
        """The names of all models that have a version."""
        ...

    def add(self, tx: Tx, version: ModelVersion) -> None:
        """Write a new version down."""
        ...

    def package_again(self, tx: Tx, version: ModelVersion) -> None:
        """Give a version the author, run, signature, gates and approvers of its newest packaging."""
        ...

    def next_number(self, tx: Tx, model: str) -> int:
        """The number that the model's next registered version gets, from 1."""
        ...

    def move(self, tx: Tx, digest: str, **values: Any) -> None:
        """Change a version's state, and what goes with it (`number`, `evidence`, `reason`)."""
        ...

    def add_admission(self, tx: Tx, admission: Admission, envelope: str) -> None:
        """Add an admission with its envelope's blob digest."""
        ...

    def admission(self, tx: Tx, digest: str, environment: str) -> tuple[Admission, str] | None:
        """The newest admission with its envelope's blob digest."""
        ...

    def admissions(self, tx: Tx, digest: str) -> list[tuple[Admission, str]]:
        """All admissions of a version, newest first, each with its envelope's blob digest."""
        ...

    def admitted(self, tx: Tx, environment: str) -> list[str]:
        """The digests that an environment has admitted, each once, the newest admission last."""
        ...

    def add_rehearsal(self, tx: Tx, rehearsal: Rehearsal, envelope: str) -> None:
        """Add a rehearsal with its envelope's blob digest."""
        ...

    def rehearsal(self, tx: Tx, digest: str, environment: str) -> tuple[Rehearsal, str] | None:
        """The newest rehearsal with its envelope's blob digest."""
        ...


class Blobs(Protocol):
    """Bytes by their digest."""

    def put(self, plain: bytes) -> str:
        """Keep bytes; returns their digest."""
        ...

    def get(self, digest: str) -> bytes:
        """The bytes of a digest. Raises `NotFound`, `Integrity`."""
        ...

    def exists(self, digest: str) -> bool:
        """Whether they are kept."""
        ...


class VerifiedEvidence(Protocol):
    """Evidence whose signatures are verified at the moment of asking."""

    def proven(self, digest: str) -> Proven:
        """What the statements about a version say whose signatures were verified now."""
        ...


class Champions(Protocol):
    """Who serves; implemented by rollout, which is downstream."""

    def champion(self, model: str, environment: str) -> str:
        """The digest that serves a model in an environment now, beside any challenger; empty when none does."""
        ...


class WaiverStore(Protocol):
    """Rows of waivers and their signatures; none is ever removed."""

    def add(self, tx: Tx, waiver: Waiver) -> None:
        """Write a proposed waiver down, without its signatures."""
        ...

    def sign(self, tx: Tx, waiver: str, signature: Signature) -> None:
        """Add a signature; one a person, or the database refuses it."""
        ...

    def complete(self, tx: Tx, waiver: str, statement: str) -> None:
        """Write down the blob digest of the signed statement."""
        ...

    def revoke(self, tx: Tx, waiver: str, revocation: Revocation) -> None:
        """Write down who took it back."""
        ...

    def of(self, tx: Tx, digest: str) -> list[Waiver]:
        """All of a version, newest first."""
        ...

    def all(self, tx: Tx) -> list[Waiver]:
        """All, newest first."""
        ...


class Waivers(Protocol):
    """What covers the missing gates of imported versions."""

    def standing(self, digest: str, evidence: str, lacking: Sequence[str]) -> Standing:
        """What covers these gates of a version on this evidence now, or why nothing does."""
        ...

    def envelope(self, statement: str) -> dict[str, Any]:
        """The signed statement of a waiver that holds, by its digest."""
        ...


class NoWaivers:
    """Where nobody can waive anything."""

    def standing(self, digest: str, evidence: str, lacking: Sequence[str]) -> Standing:  # noqa: ARG002  # the port's
        """Nothing."""
        return NOTHING

    def envelope(self, statement: str) -> dict[str, Any]:
        """Raises `Integrity`: there is none."""
        raise refused(f"{statement[:20]} is not filed here", "waiver_revoked")


class Approvals(Protocol):
    """The approvals that people gave."""

    def counting(self, subject: Subject) -> list[Approval]:
        """Those that count for a subject now: bound to its evidence, not the author's, one a person."""
        ...


class Oversight(Protocol):
    """The model inventory."""

    def governed(self, model: str) -> Governed:
        """What follows for a model from its inventory now."""
        ...
