"""Health: pure rules."""

from __future__ import annotations

import msgspec

from falaj.kernel.access import Action
from falaj.lifecycle.serving.model import PlaneStatus

HEALTH_READ = Action("monitoring.read", "read", "DataPlane", "see how what serves is doing")
LABELS_PUSH = Action("monitoring.push_labels", "inference", "Model", "send what became true of predictions")
DRIFT_READ = Action("monitoring.read_drift", "read", "Model", "see windows, drift and quality")
INCIDENT_READ = Action("monitoring.read_incidents", "read", "Incident", "see incidents")
INCIDENT_OPEN = Action("monitoring.open_incident", "system", "Incident", "open an incident")
INCIDENT_CLOSE = Action("monitoring.close_incident", "system", "Incident", "close an incident whose cause is gone")
INCIDENT_RESOLVE = Action("monitoring.resolve_incident", "engineering", "Incident", "resolve an incident")
ACTIONS = (HEALTH_READ, LABELS_PUSH, DRIFT_READ, INCIDENT_READ, INCIDENT_OPEN, INCIDENT_CLOSE, INCIDENT_RESOLVE)


EVALUATOR = "evaluator"
"""The kind of incident when nobody looks at what the data plane answers."""
EVERY_MODEL = "*"
"""The model of an incident that concerns all of them."""


class PlaneHealth(msgspec.Struct, frozen=True):
    """A data plane in one word and why.

    current: runs the published bundle · behind: an older one · refusing: it refused the newest · absent: none runs.
    """

    state: str
    reason: str
    generation: int
    published: int
    workers: tuple[PlaneStatus, ...]


def health(published: int, workers: tuple[PlaneStatus, ...]) -> PlaneHealth:
    """Judge a data plane by its slowest worker."""
    if not workers:
        return PlaneHealth("absent", "no data plane runs for this home", 0, published, workers)
    generation = min(w.generation for w in workers)
    refused = next((w.refused_bundle for w in workers if w.refused_bundle), "")
    if refused:
        return PlaneHealth("refusing", refused, generation, published, workers)
    if generation < published:
        return PlaneHealth(
            "behind", f"it serves generation {generation} of {published}", generation, published, workers
        )
    return PlaneHealth("current", f"it serves generation {generation}", generation, published, workers)


class Incident(msgspec.Struct, frozen=True):
    """Something that is not as it should be, from its opening to its end. kind: drift | evaluator | journal; the last two concern
    every model (`*`) and no version."""

    id: str
    model: str
    kind: str
    state: str  # open | resolved
    digest: str
    reason: str
    opened_at: str
    closed_at: str = ""


class Scored(msgspec.Struct, frozen=True):
    """One answered row, as quality needs it. `score` is None when the model gave no finite answer."""

    prediction: str
    row: int
    model: str
    digest: str
    role: str
    at_us: int
    score: float | None


class Slot(msgspec.Struct, frozen=True):
    """What one version did in one slot of time: requests, and the mean score of their rows (None without a finite one).

    `number` counts slots of equal length since 1970.
    """

    digest: str
    number: int
    requests: int
    score: float | None


class Label(msgspec.Struct, frozen=True):
    """What became true of one row: 1.0 or 0.0 for a binary label, the value for a regression."""

    prediction: str
    row: int
    model: str
    value: float
    at_us: int


class WindowRow(msgspec.Struct, frozen=True):
    """A window as it is kept; `window` is its JSON."""

    model: str
    digest: str
    start_us: int
    window: str


class WindowView(msgspec.Struct, frozen=True):
    """A window as people see it. `features` is the PSI of each; `quality` is None until labels have come."""

    model: str
    digest: str
    start: str
    end: str
    rows: int
    verdict: str
    reason: str
    score_psi: float
    drifted: tuple[str, ...]
    features: dict[str, float]
    labels: int
    metric: str
    quality: float | None
