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
    def open(self, model: str, kind: str, digest: str, reason: str) -> object:
        """Open an incident, unless one of this kind is open."""
        ...

    def settle(self, model: str, kind: str) -> None:
        """Resolve the open incidents of this kind."""
        ...


class IncidentStore(Protocol):
    def open(self, tx: Tx, model: str) -> list[Incident]: ...

    def all(self, tx: Tx) -> list[Incident]: ...

    def get(self, tx: Tx, incident_id: str) -> Incident | None: ...

    def add(self, tx: Tx, incident: Incident) -> None: ...

    def close(self, tx: Tx, incident_id: str, state: str, at: str) -> None: ...


class RecordStore(Protocol):
    def create(self, tx: Tx) -> None: ...

    def cursors(self, tx: Tx) -> dict[str, int]: ...

    def add_predictions(self, tx: Tx, rows: list[Scored], segment: str, offset: int) -> None: ...

    def add_labels(self, tx: Tx, rows: list[Label]) -> None: ...

    def labels_of(self, tx: Tx, prediction: str) -> list[Label]: ...

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

    def known(self, tx: Tx, model: str, ids: list[str]) -> set[str]: ...

    def labelled(self, tx: Tx, model: str, digest: str, start_us: int, end_us: int) -> list[tuple[float, float]]: ...

    def slots(self, tx: Tx, model: str, digests: list[str], span_us: tuple[int, int], width_us: int) -> list[Slot]: ...

    def put_window(self, tx: Tx, row: WindowRow) -> None: ...

    def windows(self, tx: Tx, model: str) -> list[WindowRow]: ...


class Versions(Protocol):
    """What monitoring asks the registry about a version."""

    def contract(self, digest: str) -> ModelContract:
        """The version's contract."""
        ...

    def profile_of(self, digest: str) -> bytes:
        """The version's frozen reference profile, as JSON."""
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
    def segments(self) -> list[JournalSegment]:
        """What was sealed and shipped, newest first."""
        ...


class Runs(Protocol):
    def run(self, run_id: str) -> Run:
        """The training run. Raises `NotFound`."""
        ...


class Policies(Protocol):
    def monitor(self, model: str) -> MonitorPolicy | None:
        """What the applied project asks for this model; None when it no longer defines it."""
        ...


class Incidents(Protocol):
    def open(self, model: str, kind: str, digest: str, reason: str) -> Incident:
        """The open incident of this kind, new or not."""
        ...
