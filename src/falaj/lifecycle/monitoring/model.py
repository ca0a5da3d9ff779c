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
VERSION_BACKTEST = Action(
    "monitoring.backtest",
    "engineering",
    "ModelVersion",
    "work out what a version would have answered on recorded traffic",
)
ACTIONS = (
    HEALTH_READ, LABELS_PUSH, DRIFT_READ, INCIDENT_READ, INCIDENT_OPEN, INCIDENT_CLOSE, INCIDENT_RESOLVE, VERSION_BACKTEST,
)  # fmt: skip

BACKTEST = "backtest"
"""The name of the flow that works out what another version would have answered, and of its step."""


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
    """One answered row, as quality needs it. `score` is None when the model gave no finite number; `vector` is an
    answer of several numbers, such as the probability of each class."""

    prediction: str
    row: int
    model: str
    digest: str
    role: str
    at_us: int
    score: float | None
    vector: tuple[float, ...] | None = None


class Slot(msgspec.Struct, frozen=True):
    """What one version did in one slot of time: requests, and the mean score of their rows (None without a finite one).

    `number` counts slots of equal length since 1970.
    """

    digest: str
    number: int
    requests: int
    score: float | None


class Label(msgspec.Struct, frozen=True):
    """What became true of one row: 1.0 or 0.0 for a binary label, the class's position in the contract's `classes`
    for several, the value for a regression."""

    prediction: str
    row: int
    model: str
    value: float
    at_us: int


class Arrival(msgspec.Struct, frozen=True):
    """The first label that came of a request, whichever row it is of. `number` grows in the order in which they came."""

    number: int
    label: Label


class WindowRow(msgspec.Struct, frozen=True):
    """A window as it is kept; `window` is its JSON. What was judged is not judged again, also after a restart."""

    model: str
    digest: str
    start_us: int
    window: str
    judged: bool = False


class WindowView(msgspec.Struct, frozen=True):
    """A window as people see it. `features` is the PSI of each; `quality` is None until labels have come.

    `errors` counts requests that the version failed; `p50_ms` and `p99_ms` are None without an answer.
    """

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
    errors: int = 0
    p50_ms: float | None = None
    p99_ms: float | None = None


BACKTEST_METRICS: dict[str, tuple[str, ...]] = {
    "binary": ("roc_auc", "log_loss", "brier"),
    "multiclass": ("roc_auc", "log_loss", "brier", "accuracy"),
    "regression": ("mae", "rmse"),
}
"""What a backtest measures for each task."""
PERIODS = ("day", "week", "month")
"""How a backtest divides time: days, weeks from Monday on, months, each in UTC."""


class BacktestAsk(msgspec.Struct, frozen=True):
    """What somebody wants to know: which version, on what was answered from `start_us` up to, not with, `end_us`
    (µs since 1970; None: without that end), in periods of `by`."""

    model: str
    alias: str
    digest: str
    by: str
    start_us: int | None = None
    end_us: int | None = None


class Answerer(msgspec.Struct, frozen=True):
    """What a backtest has to know of a version that may have answered; `views` are digests by name."""

    alias: str
    task: str
    label: str
    classes: tuple[str, ...]
    score: str
    views: dict[str, str]


class Recorded(msgspec.Struct, frozen=True):
    """Where a model's predictions are: in version `version` of the Delta table `table` (-1: in none) those of the
    segments `shipped`, and in the folder `journal` all others."""

    model: str
    journal: str
    table: str
    version: int
    shipped: tuple[str, ...]


class BacktestTask(msgspec.Struct, frozen=True):
    """What a step process needs to let a version answer recorded requests.

    `folder` holds the version's files; `labels` is a CSV file without a head: prediction, row, value. `answerers`
    are the model's versions by digest. `as_of_us` is the moment that the version was trained as of (None: not known).
    """

    ask: BacktestAsk
    folder: str
    recorded: Recorded
    labels: str
    answerers: dict[str, Answerer]
    as_of_us: int | None = None


class Figure(msgspec.Struct, frozen=True):
    """One metric on the same rows: of the answers that callers got, and of the version's.

    `difference` is the version's less the served one, `better` whether that is an improvement (None: no difference).
    Where it cannot be measured the figures are None and `problem` says why.
    """

    metric: str
    served: float | None = None
    version: float | None = None
    difference: float | None = None
    better: bool | None = None
    problem: str = ""


class BacktestPeriod(msgspec.Struct, frozen=True):
    """A period, or all of them together (`start` is empty).

    `rows` are those that callers got an answer to, `labelled` those whose label has come. `refused` are rows that
    the version has no answer to: its contract does not take them, or the answer is not finite. Figures rest on the
    `compared` rows: labelled and not refused. `seen` are rows from before the moment that the version was trained
    as of: it may have learnt from them. `answered_by` counts rows by alias.
    """

    start: str
    rows: int
    labelled: int
    compared: int
    refused: int
    seen: int
    answered_by: dict[str, int]
    figures: tuple[Figure, ...]


class Reproduced(msgspec.Struct, frozen=True):
    """Where the version itself answered: the largest difference between its recorded and its recomputed scores.

    None when it answered nothing of the range. Relative to the value for a regression above 1.
    """

    rows: int
    largest_difference: float | None
    tolerance: float


class BacktestOutcome(msgspec.Struct, frozen=True):
    """What came out. `unanswered` rows were asked and got no answer; they are in no figure.

    `views_changed` names feature views of which other versions were recorded than this one reads.
    """

    version: str
    digest: str
    task: str
    by: str
    first_at: str
    last_at: str
    unanswered: int
    periods: tuple[BacktestPeriod, ...]
    total: BacktestPeriod
    reproduced: Reproduced
    views_changed: tuple[str, ...]
    as_of: str = ""
