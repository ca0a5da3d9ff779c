"""What monitoring watches."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from falaj.lifecycle.monitoring.model import Arrival, Incident, Label, Scored, Slot, WindowRow
from falaj.lifecycle.monitoring.policy import MonitorPolicy
from falaj.lifecycle.registry.model import ModelVersion
from falaj.lifecycle.serving.model import JournalSegment, LoadReport, PlaneStatus
from falaj.lifecycle.training.model import ModelContract, Run
from falaj.storage.sql.database import Tx


class DataPlane(Protocol):
    """The production data plane, as its watch sees it."""

    def workers(self) -> list[PlaneStatus]:
        """What the live workers say of themselves."""
        ...

    def generation(self) -> int:
        """The newest published generation."""
        ...

    def project(self) -> None:
        """Write the newest bundle where the data plane reads it, unless it lies there already."""
        ...

    def record_refusal(self, report: LoadReport, generation: int, on_behalf_of: str) -> None:
        """Audit that a version was not loaded, once."""
        ...


class Evaluator(Protocol):
    """Whoever looks at what the data plane recorded, as the dead man sees it."""

    looks: int  # how many came to their end
    trouble: str  # why the last one did not; empty when it did

    def silence(self) -> float:
        """Seconds since a look last came to its end."""
        ...


class Alarms(Protocol):
    """Where trouble is reported."""

    def open(self, model: str, kind: str, digest: str, reason: str) -> object:
        """Open an incident, unless one of this kind is open."""
        ...

    def settle(self, model: str, kind: str) -> None:
        """Resolve the open incidents of this kind."""
        ...


class IncidentStore(Protocol):
    """Rows of incidents."""

    def open(self, tx: Tx, model: str) -> list[Incident]:
        """The incidents of a model that are not resolved, oldest first."""
        ...

    def all(self, tx: Tx) -> list[Incident]:
        """Every incident, newest first."""
        ...

    def get(self, tx: Tx, incident_id: str) -> Incident | None:
        """One incident; None when there is none of this id."""
        ...

    def add(self, tx: Tx, incident: Incident) -> None:
        """Write a new incident down."""
        ...

    def close(self, tx: Tx, incident_id: str, state: str, at: str) -> None:
        """Give an incident its next state and the time of it (RFC 3339)."""
        ...


class RecordStore(Protocol):
    """What was answered, what became true of it, and the windows of both. Times are microseconds since 1970, UTC."""

    def create(self, tx: Tx) -> None:
        """Make the tables, if they are missing."""
        ...

    def cursors(self, tx: Tx) -> dict[str, int]:
        """How far each journal segment was read: its name → bytes."""
        ...

    def add_predictions(self, tx: Tx, rows: list[Scored], segment: str, offset: int) -> None:
        """Add scored rows and remember that their segment was read up to `offset` bytes; a row that is there is left
        alone.
        """
        ...

    def add_labels(self, tx: Tx, rows: list[Label]) -> None:
        """Add labels; a later one for the same row replaces an earlier one."""
        ...

    def labels_of(self, tx: Tx, prediction: str) -> list[Label]:
        """The labels of one prediction, by row."""
        ...

    def arrivals(self, tx: Tx, model: str, after: int, limit: int) -> list[Arrival]:
        """The first labels of requests that came after number `after`, in the order in which they came."""
        ...

    def arrived_before(self, tx: Tx, model: str, at_us: int) -> int:
        """The number of the last first label that came before a moment; 0 when none did."""
        ...

    def scored(self, tx: Tx, ids: list[str]) -> dict[tuple[str, int], Scored]:
        """The rows of these predictions, by prediction and row."""
        ...

    def label_rows(self, tx: Tx, model: str) -> Iterator[tuple[str, int, float]]:
        """Every label of a model as it is true now: prediction, row, value; while the transaction lasts."""
        ...

    def known(self, tx: Tx, model: str, rows: list[tuple[str, int]]) -> set[tuple[str, int]]:
        """Which of these rows, by prediction and row, the model was asked."""
        ...

    def labelled(self, tx: Tx, model: str, digest: str, start_us: int, end_us: int) -> list[tuple[float, float]]:
        """(score, label) of the rows that a version answered in [start_us, end_us) and whose label has come; no
        shadows.
        """
        ...

    def slots(self, tx: Tx, model: str, digests: list[str], span_us: tuple[int, int], width_us: int) -> list[Slot]:
        """What these versions did from span_us[0] up to and with span_us[1], shadows included, by slots of
        `width_us` microseconds.
        """
        ...

    def put_window(self, tx: Tx, row: WindowRow) -> None:
        """Write a window down; it replaces the one of the same model, version and start."""
        ...

    def windows(self, tx: Tx, model: str) -> list[WindowRow]:
        """A model's windows, oldest first."""
        ...


class Versions(Protocol):
    """What monitoring asks the registry about a version."""

    def contract(self, digest: str) -> ModelContract:
        """The version's contract."""
        ...

    def profile_of(self, digest: str) -> bytes:
        """The version's frozen reference profile, as JSON."""
        ...


class OwnVersions(Versions, Protocol):
    """The same of the home's own versions, and who made them."""

    def by_digest(self, digest: str) -> ModelVersion:
        """Raises `NotFound`."""
        ...


class Registry(Protocol):
    """What a backtest asks the registry."""

    def version(self, model: str, number: int) -> ModelVersion:
        """Raises `NotFound`."""
        ...

    def by_digest(self, digest: str) -> ModelVersion:
        """Raises `NotFound`."""
        ...

    def versions(self, model: str) -> list[ModelVersion]:
        """All versions of a model."""
        ...

    def contract(self, digest: str) -> ModelContract:
        """The version's contract. Raises `NotFound`, `Integrity`."""
        ...


class Segments(Protocol):
    """The sealed segments of the prediction journal."""

    def segments(self) -> list[JournalSegment]:
        """What was sealed and shipped, newest first."""
        ...


class Runs(Protocol):
    """Training runs, by id."""

    def run(self, run_id: str) -> Run:
        """The training run. Raises `NotFound`."""
        ...


class Policies(Protocol):
    """What the applied project asks of monitoring."""

    def monitor(self, model: str) -> MonitorPolicy | None:
        """What the applied project asks for this model; None when it no longer defines it."""
        ...


class Incidents(Protocol):
    """Opens incidents."""

    def open(self, model: str, kind: str, digest: str, reason: str) -> Incident:
        """The open incident of this kind, new or not."""
        ...
