"""Windows, labels, incidents, backtests, models of somebody else: frozen types; the data plane's health in one word."""

from __future__ import annotations

from typing import Any

import msgspec

from falaj.kernel.access import Action
from falaj.kernel.errors import Invalid
from falaj.lifecycle.monitoring.policy import MonitorPolicy
from falaj.lifecycle.registry.model import check_name
from falaj.lifecycle.serving.model import PlaneStatus
from falaj.lifecycle.training.model import FEATURE_TYPES, TASKS

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
EXTERNAL_READ = Action("monitoring.read_external", "read", "ExternalModel", "see models that somebody else serves")
EXTERNAL_DECLARE = Action(
    "monitoring.declare_external", "engineering", "ExternalModel", "declare a model that somebody else serves"
)
PREDICTIONS_PUSH = Action("monitoring.push_predictions", "inference", "ExternalModel", "send what an endpoint answered")
ACTIONS = (
    EXTERNAL_READ, EXTERNAL_DECLARE, PREDICTIONS_PUSH,
    HEALTH_READ, LABELS_PUSH, DRIFT_READ, INCIDENT_READ, INCIDENT_OPEN, INCIDENT_CLOSE, INCIDENT_RESOLVE, VERSION_BACKTEST,
)  # fmt: skip

BACKTEST = "backtest"
"""The name of the flow that works out what another version would have answered, and of its step."""
EVALUATOR = "evaluator"
"""The kind of incident when nobody looks at what the data plane answers."""
BUNDLE = "bundle"
"""The kind of incident when no bundle can be made for a data plane."""
WITNESS = "witness"
"""The kind of incident when a witness of the audit log refuses the log's history."""
POLICY = "policy"
"""The kind of incident when the home's own policy cannot hold in this release."""
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
    """Something that is not as it should be, from its opening to its end.

    kind: drift | waiver | silent, of a model; evaluator | journal | bundle | witness, which concern every model (`*`) and no version.
    """

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
    claims: str | None = None  # what an endpoint of somebody else calls its version; None for a version of this home


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


EXTERNAL = "external"
"""The role of answers that somebody else's endpoint gave, and the name of the flow and step that freeze its reference."""
SILENT = "silent"
"""The kind of incident when nothing comes from a watched endpoint any more."""


class ExternalModel(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A model that Falaj neither built nor serves, as it was declared: it is watched, not governed.

    `inputs` are names and types (float, integer, boolean, category); `score` is the output that is judged: the
    probability of the positive class, the value, or for multiclass the probabilities of `classes`. `at` is the
    reference's column with each row's moment, for how unlike days are. An incident opens when nothing came for
    `silent_after` windows.
    """

    name: str
    task: str
    score: str
    inputs: dict[str, str]
    classes: tuple[str, ...] = ()
    label: str = ""
    at: str = ""
    served_by: str = ""
    silent_after: int = 3
    monitor: MonitorPolicy = MonitorPolicy()

    @property
    def columns(self) -> tuple[str, ...]:
        """The reference's columns with the score: one, or one for each class."""
        if self.task == "multiclass":
            return tuple(f"{self.score}_{name}" for name in self.classes)
        return (self.score,)


def check_external(model: ExternalModel) -> ExternalModel:
    """Return a declaration that can be followed. Raises `Invalid`."""
    check_name(model.name)
    wrong = ""
    if model.task not in TASKS:
        wrong = f"the task {model.task[:40]!r} does not exist; there is {', '.join(TASKS)}"
    elif not model.inputs:
        wrong = "it has no inputs"
    elif odd := next((n for n, t in model.inputs.items() if t not in FEATURE_TYPES), ""):
        wrong = f"{odd} has a type that does not exist; there is {', '.join(FEATURE_TYPES)}"
    elif not model.score or model.score in model.inputs:
        wrong = "it does not say which output is judged, or it is one of the inputs"
    elif (model.task == "multiclass") != (len(model.classes) >= 2):
        wrong = "multiclass needs its classes, two at least; no other task has any"
    elif model.silent_after < 1 or model.monitor.window_seconds < 60:
        wrong = "a window has a minute at least, and silent_after is 1 or more"
    if wrong:
        raise Invalid(
            f"{model.name} cannot be watched: {wrong}",
            hint="see docs/how-to/watch-somebody-elses-model.md",
            code="wrong_external_model",
        )
    return model


class ReferenceTask(msgspec.Struct, frozen=True):
    """What a step process needs to freeze the reference of an external model: its table, and a folder to write to."""

    model: ExternalModel
    table: str
    format: str
    workspace: str


class ReferenceOutcome(msgspec.Struct, frozen=True):
    """A frozen reference: the table's digest and rows; contract and profile lie in the workspace."""

    table: str
    rows: int
    days: int
    contract: str
    profile: str


class Declared(msgspec.Struct, frozen=True):
    """A declaration that holds or held, with its frozen reference; `digest` names both."""

    model: ExternalModel
    number: int
    digest: str
    contract: str  # blob digests
    profile: str
    table: str
    rows: int
    author: str
    at: str


class Claimed(msgspec.Struct, frozen=True):
    """A version label that an endpoint's records carry: claimed, and nothing that anybody could verify.

    `digest` stands for it among windows: of the declaration and the label, not of a model.
    """

    digest: str
    name: str
    number: int
    claims: str
    at: str


class Pushed(msgspec.Struct, frozen=True):
    """One answer of an endpoint, as it was sent."""

    id: str
    at: str
    inputs: dict[str, Any]
    outputs: dict[str, Any] = {}
    latency_ms: float | None = None
    error: str = ""
    version: str = ""
