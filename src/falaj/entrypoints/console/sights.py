"""What the pages on rollout, drift, incidents and reviews show. Frozen types only; times as in `views`."""

from __future__ import annotations

import msgspec

from falaj.entrypoints.console.views import Curve, Watched
from falaj.lifecycle.evidence.model import Verdict


class Named(msgspec.Struct, frozen=True):
    """A version as other pages name it; `reference` is empty when it is not known any more."""

    alias: str
    digest: str
    reference: str = ""
    state: str = ""


class Reach(msgspec.Struct, frozen=True):
    """One step of a rollout. `stage` is shadow, canary, promoted or aborted; `weight` the challenger's percent of
    the answers, `before` that of the step before.

    state: passed · here: it stands here now · ahead: not reached yet · skipped: it ended before.
    `reason` says how the step was judged, on `requests` of the challenger.
    """

    stage: str
    weight: int
    before: int
    state: str
    needed: int = 0
    requests: int | None = None
    reason: str = ""
    began_at: str = ""


class Figure(msgspec.Struct, frozen=True):
    """One metric, both versions side by side; higher is worse.

    `metric` is that of the analysis without its column. `worse` and `fine` are e-values, and the metric is decided
    when one reaches what is needed. Shares from 0 to 1; a score is a mean rank. None: nothing measured.
    """

    metric: str
    column: int | None
    verdict: Verdict
    margin: float
    stable: float | None
    challenger: float | None
    pairs: int
    worse: float
    worse_needed: float
    fine: float
    fine_needed: float


class Trip(msgspec.Struct, frozen=True):
    """What the data plane's guard did by itself. The two times are in ms; None where one of their ends is not known."""

    alias: str
    reason: str
    observed: float
    limit: float
    count: int
    bad_answers: int
    tripped_at: str
    generation: int
    to_verdict_ms: float | None
    to_zero_ms: float | None


class Ride(msgspec.Struct, frozen=True):
    """One rollout with everything that is known of it. `every` is the width of the curves' slots and `unit` what their
    iterations count, as keys of the words. `problem` says why there are no figures."""

    id: str
    stage: str
    ended: bool
    order: str
    challenger: Named
    stable: Named
    actor: str
    reason: str
    started_at: str
    updated_at: str
    weight: int
    reaches: tuple[Reach, ...]
    latency_ms: float = 0.0
    requests: int = 0
    verdict: Verdict = Verdict.INCONCLUSIVE
    judged: str = ""
    figures: tuple[Figure, ...] = ()
    curves: tuple[Curve, ...] = ()
    every: str = ""
    unit: str = ""
    problem: str = ""


class Past(msgspec.Struct, frozen=True):
    """A rollout in the history, and how it stands or ended."""

    id: str
    stage: str
    challenger: Named
    stable: Named
    actor: str
    started_at: str
    ended_at: str
    reason: str


class RolloutPage(msgspec.Struct, frozen=True):
    """`/models/{name}/rollout`: the running rollout or the last, the guard's trips (newest first), the history.

    `may_steer` says whether the viewer may promote or abort.
    """

    model: str
    ride: Ride | None = None
    trips: tuple[Trip, ...] = ()
    history: tuple[Past, ...] = ()
    may_steer: bool = False


class Bars(msgspec.Struct, frozen=True):
    """One feature, or one column of the score, in one window: the shares of each bin in the reference and in the window.

    `limit` is the policy's, `floor` what chance alone exceeds hardly ever, `threshold` what holds of the two.
    state: drifted | steady | unresolved.
    """

    name: str
    state: str
    psi: float
    limit: float
    floor: float
    threshold: float
    rows: int
    labels: tuple[str, ...]
    reference: tuple[float, ...]
    current: tuple[float, ...]
    score: bool = False


class Pane(msgspec.Struct, frozen=True):
    """A window in the list. `key` selects it; `open` while its time is not over."""

    key: str
    version: Named
    start: str
    end: str
    rows: int
    verdict: str
    reason: str
    score_psi: float
    drifted: tuple[str, ...]
    labels: int
    metric: str
    quality: float | None
    open: bool = False
    errors: int = 0
    p99_ms: float | None = None


class DriftPage(msgspec.Struct, frozen=True):
    """`/models/{name}/drift`: windows newest first, one of them in pictures, and how PSI and quality went.

    The curves count `unit`s, a key of the words, from `since`.
    """

    model: str
    windows: tuple[Pane, ...] = ()
    selected: Pane | None = None
    bars: tuple[Bars, ...] = ()
    trends: tuple[Curve, ...] = ()
    since: str = ""
    unit: str = ""
    watched: Watched | None = None  # for a model that somebody else serves


class Followed(msgspec.Struct, frozen=True):
    """What the platform started because of an incident: a flow, its training run, the version it became."""

    flow: str
    state: str
    run: str = ""
    version: Named | None = None
    reason: str = ""


class Trouble(msgspec.Struct, frozen=True):
    """An incident and what followed. `may_resolve`: the viewer may, and it is open."""

    id: str
    model: str
    kind: str
    state: str
    reason: str
    opened_at: str
    closed_at: str = ""
    version: Named | None = None
    followed: Followed | None = None
    may_resolve: bool = False
    has_page: bool = True


class IncidentsPage(msgspec.Struct, frozen=True):
    """`/incidents`: open ones first, then resolved ones, each newest first."""

    open: tuple[Trouble, ...] = ()
    resolved: tuple[Trouble, ...] = ()


class Case(msgspec.Struct, frozen=True):
    """An answer before people. `answer` and `override` are texts, numbers shortened; `late`: it waits longer than it may."""

    id: str
    model: str
    prediction: str
    answer: str
    because: str
    asked_by: str
    at: str
    due_at: str
    state: str
    late: bool = False
    version: Named | None = None
    decided_by: str = ""
    decided_at: str = ""
    code: str = ""
    override: str = ""


class Went(msgspec.Struct, frozen=True):
    """Something that went into an answer: its name, its value, and the feature view that it came from (empty: the caller)."""

    name: str
    value: str
    view: str = ""


class ReviewsPage(msgspec.Struct, frozen=True):
    """`/reviews`: those that wait, the one that is due first at the top; then the newest decisions. `number` counts
    all that wait, also those that are not shown."""

    number: int = 0
    waiting: tuple[Case, ...] = ()
    decided: tuple[Case, ...] = ()


class ReviewPage(msgspec.Struct, frozen=True):
    """`/reviews/{id}`: one answer, what went into it, and what may be said of it. Without `choices` a number is."""

    case: Case
    went_in: tuple[Went, ...] = ()
    choices: tuple[str, ...] = ()
    codes: tuple[str, ...] = ()
    may_decide: bool = False
