"""What each page shows. Frozen types only; times are RFC 3339 texts in UTC as `falaj.kernel.clock.iso` writes them."""

from __future__ import annotations

from typing import Any

import msgspec

from falaj.kernel.digests import FileEntry
from falaj.lifecycle.evidence.model import Finding, Verdict
from falaj.lifecycle.registry.waiver import Lacking
from falaj.lifecycle.training.model import ModelContract, Run


class Replay(msgspec.Struct, frozen=True):
    """A home whose clock was moved: what it showed when it was moved, and how fast it runs."""

    shows: str
    rate: float = 1.0


class Frame(msgspec.Struct, frozen=True):
    """What stands around every page: which home this is, what time it has, and who may do more than
    their roles allow."""

    home: str
    environment: str
    now: str
    replay: Replay | None = None
    glass: tuple[str, ...] = ()


class Served(msgspec.Struct, frozen=True):
    """One model in the overview.

    `alias` and `digest` name the serving version and are empty while nothing serves. `state` is the
    state of its newest version. `requests` and `errors` count since the plane started; the
    percentiles are milliseconds, None when not known. `change` says in words what happened last.
    `incidents` counts those that are open. Of a killed model nothing serves: `instead` says what answers.
    """

    model: str
    health: str  # well | attention | down | idle
    health_reason: str = ""
    alias: str = ""
    digest: str = ""
    state: str = ""
    task: str = ""
    requests: int = 0
    errors: int = 0
    p50_ms: float | None = None
    p99_ms: float | None = None
    change: str = ""
    changed_at: str = ""
    incidents: int = 0
    instead: str = ""


class Plane(msgspec.Struct, frozen=True):
    """The data plane as last heard: the generation it runs and the one that was published.

    current: runs the published bundle · behind: still an older one · refusing: refused the newest, `reason` says why ·
    silent: has not reported for too long · absent: none runs.
    """

    state: str  # current | behind | refusing | silent | absent
    generation: int
    published: int
    bundle_issued_at: str = ""
    heard_at: str = ""
    workers: int = 0
    reason: str = ""


class Dataset(msgspec.Struct, frozen=True):
    """A dataset's newest version. `reasons` is contract rule → quarantined rows, over all its versions."""

    name: str
    version: int
    versions: int
    digest: str
    rows: int
    quarantined: int
    reasons: dict[str, int] = {}
    created_at: str = ""
    region: str = ""


class Refusal(msgspec.Struct, frozen=True):
    """Something that was not let through: what, why, and what to do next.

    `subject` is shown as it is. `model` links to the model's page; with `reference` (a number or the
    start of a digest) to that version's evidence.
    """

    at: str
    subject: str
    reason: str
    hint: str
    code: str = ""
    action: str = ""
    principal: str = ""
    model: str = ""
    reference: str = ""


class Checkpoint(msgspec.Struct, frozen=True):
    """The newest signed checkpoint of the audit log."""

    origin: str
    size: int
    root: str
    signed_at: str


class Watched(msgspec.Struct, frozen=True):
    """A model that somebody else serves: watched, not governed. `claims` is what its endpoint calls its versions."""

    model: str
    task: str
    served_by: str
    heard_at: str
    silent: bool
    claims: tuple[str, ...]
    windows: int = 0
    verdict: str = ""
    incidents: int = 0


class Overview(msgspec.Struct, frozen=True):
    """`/`: what is in production and is it well. `incidents` counts all that are open, `reviews` the answers that wait for a
    person."""

    models: tuple[Served, ...] = ()
    plane: Plane | None = None
    datasets: tuple[Dataset, ...] = ()
    refusals: tuple[Refusal, ...] = ()
    checkpoint: Checkpoint | None = None
    incidents: int = 0
    reviews: int = 0
    watched: tuple[Watched, ...] = ()


class Approval(msgspec.Struct, frozen=True):
    """One person's decision on a version, bound to its digest."""

    principal: str
    decision: str  # approved | rejected
    at: str
    reason: str = ""
    environment: str = "production"


class RehearsalFact(msgspec.Struct, frozen=True):
    """How a version answered real requests in staging; `statement` is the digest of what was signed about it."""

    passed: bool
    requests: int
    failures: int
    at: str
    p99_ms: float | None = None
    reason: str = ""
    statement: str = ""


class Version(msgspec.Struct, frozen=True):
    """A model version in the channel and in the list.

    `reference` is what stands after the @ of `alias`. `role` (stable, canary, shadow) and `weight`
    (percent of the traffic) come from the traffic plan; they are empty and None outside it. Of a killed model the state is
    `killed` where the plan had a share for it, or `in its place` for the version that answers. `environments` have let it in.
    """

    alias: str
    reference: str
    digest: str
    state: str
    author: str
    created_at: str
    run: str = ""
    approvals: tuple[Approval, ...] = ()
    reason: str = ""
    hint: str = ""
    role: str = ""
    weight: int | None = None
    environments: tuple[str, ...] = ()
    rehearsal: RehearsalFact | None = None
    lacking: Lacking | None = None  # of an imported version: what is not known of it
    marks: tuple[str, ...] = ()  # how it was let in, for good


class StageFact(msgspec.Struct, frozen=True):
    """What one stage of `falaj.lifecycle.STAGES` has for a model, in a few words.

    flowing: it has passed here · waiting: it waits for someone or something · stopped: refused here · dry: nothing yet.
    """

    stage: str
    headline: str
    detail: str = ""
    state: str = "flowing"


class Line(msgspec.Struct, frozen=True):
    """One measured line: (iteration, value), in order."""

    name: str
    points: tuple[tuple[int, float], ...]


class Curve(msgspec.Struct, frozen=True):
    """A metric by iteration: one line for each part of the data."""

    metric: str
    lines: tuple[Line, ...]


class LatestRun(msgspec.Struct, frozen=True):
    """The newest training run of a model, with its main learning curve."""

    id: str
    state: str
    started_at: str
    metrics: dict[str, float] = {}
    curve: Curve | None = None


class Overseen(msgspec.Struct, frozen=True):
    """What the inventory says of a model, and what follows. `killed_by` is empty while it is not killed, `answers` says what
    answers then; `frozen` are the reasons why nothing new of it enters production."""

    tier: str
    tier_from: str = ""
    regulated: bool = False
    owner: str = ""
    intended_use: str = ""
    impact: str = ""
    fallback: str = ""
    validate_by: str = ""
    killed_by: str = ""
    killed_at: str = ""
    killed_why: str = ""
    answers: str = ""
    retired: bool = False
    frozen: tuple[str, ...] = ()


class ModelPage(msgspec.Struct, frozen=True):
    """`/models/{name}`: the channel, the versions (newest first), the refusals, the newest run."""

    name: str
    task: str
    label: str
    purpose: str = ""
    stages: tuple[StageFact, ...] = ()
    versions: tuple[Version, ...] = ()
    refusals: tuple[Refusal, ...] = ()
    run: LatestRun | None = None
    overseen: Overseen | None = None


class Slice(msgspec.Struct, frozen=True):
    """One slice of a slice gate. Too few rows to judge: `judged` is False and `verdict` None."""

    name: str
    rows: int
    value: float | None
    judged: bool = True
    verdict: Verdict | None = None


class Gate(msgspec.Struct, frozen=True):
    """A gate with its finding and the digest of the signed statement that says so (empty: none was signed)."""

    finding: Finding
    statement: str = ""
    predicate_type: str = ""
    created_at: str = ""
    mandatory: bool = False
    slices: tuple[Slice, ...] = ()


class Signature(msgspec.Struct, frozen=True):
    """Who signed the model's files, with which key, and whether it verifies now (None: not checked)."""

    method: str
    key: str
    digest: str
    verified: bool | None = None
    problem: str = ""


class AdmissionFact(msgspec.Struct, frozen=True):
    """An admission to an environment, with its expiry."""

    environment: str
    issued_at: str
    expires_at: str
    statement: str = ""


class EvidencePage(msgspec.Struct, frozen=True):
    """`/models/{name}/{reference}/evidence`: everything that speaks for or against one version.

    `verdict` is the worst of the gates; why it was refused, if it was, its `version` says.
    """

    model: str
    version: Version
    verdict: Verdict
    gates: tuple[Gate, ...] = ()
    evidence: str = ""
    signature: Signature | None = None
    admissions: tuple[AdmissionFact, ...] = ()
    files: tuple[FileEntry, ...] = ()
    contract: ModelContract | None = None


class Input(msgspec.Struct, frozen=True):
    """A dataset or a feature view version that a run has read."""

    name: str
    kind: str  # dataset | view
    digest: str
    version: int | None = None


class RunPage(msgspec.Struct, frozen=True):
    """`/runs/{id}`: one training run, its curves, what it read and the versions it became."""

    run: Run
    curves: tuple[Curve, ...] = ()
    inputs: tuple[Input, ...] = ()
    versions: tuple[Version, ...] = ()


class AuditQuery(msgspec.Struct, frozen=True):
    """Which entries to show. A text matches the whole field, letter for letter; empty matches all.

    `before` shows only entries with a smaller index; 0 starts at the newest.
    """

    principal: str = ""
    action: str = ""
    subject: str = ""
    outcome: str = ""
    before: int = 0
    limit: int = 50


class AuditEntry(msgspec.Struct, frozen=True):
    """One entry of the log: who did what to which thing, with which outcome."""

    index: int
    at: str
    principal: str
    action: str
    resource_type: str
    resource_id: str
    outcome: str  # done | denied | refused
    operation_id: str = ""
    leaf: str = ""
    detail: dict[str, Any] = {}


class AuditPage(msgspec.Struct, frozen=True):
    """`/audit`: entries, newest first. `older` is the `before` of the next page, 0 when there is none.

    `principals` and `actions` are offered as one types.
    """

    query: AuditQuery
    entries: tuple[AuditEntry, ...] = ()
    size: int = 0
    older: int = 0
    checkpoint: Checkpoint | None = None
    principals: tuple[str, ...] = ()
    actions: tuple[str, ...] = ()


class Check(msgspec.Struct, frozen=True):
    """One thing that was checked about the log, in words."""

    name: str
    passed: bool
    reason: str


class VerifyReport(msgspec.Struct, frozen=True):
    """The log checked from its first entry. `hint` says what to do when it does not hold."""

    passed: bool
    size: int
    root: str
    checks: tuple[Check, ...]
    at: str
    seconds: float = 0.0
    hint: str = ""
