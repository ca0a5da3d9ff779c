"""What the control plane hands to the data plane: one signed bundle. Frozen types only.

The bundle travels as a DSSE envelope of payload type `BUNDLE_TYPE`. The data plane trusts its
signature, an admission for each release, and nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from falaj.governance.identity.verify import KnownToken
from falaj.governance.signing.trust import KeyRecord
from falaj.kernel.access import Action
from falaj.kernel.environments import home_of
from falaj.lifecycle.data.model import SourceSpec
from falaj.lifecycle.features.model import ViewSpec
from falaj.lifecycle.rollout.model import TrafficPlan
from falaj.lifecycle.training.model import ModelContract

BUNDLE_PUBLISH = Action("serving.publish", "system", "DataPlane", "hand a signed bundle to the data plane")
LOAD_REFUSED = Action("serving.load", "system", "ModelVersion", "a data plane loads a version")
PREDICTION_READ = Action("serving.read_prediction", "audit", "Prediction", "read the record of one prediction")
PREDICT = Action("serving.predict", "inference", "Model", "ask a model for predictions, and what it wants to be asked")
OBSERVE = Action("serving.observe", "read", "DataPlane", "see a data plane's state and counters")
JOURNAL_READ = Action(
    "serving.read_journal", "read", "Journal", "see which segments of the prediction journal are sealed"
)
JOURNAL_ROTATE = Action(
    "serving.rotate_journal", "engineering", "Journal", "let the data plane end its journal segments"
)
JOURNAL_SEAL = Action(
    "serving.seal_journal", "system", "JournalSegment", "seal and ship a segment of the prediction journal"
)
TABLE_SCORE = Action("serving.score", "inference", "ModelVersion", "score a whole table")
PLANE_ACTIONS = (PREDICT, OBSERVE)
ACTIONS = (
    BUNDLE_PUBLISH, LOAD_REFUSED, PREDICTION_READ, JOURNAL_READ, JOURNAL_ROTATE, JOURNAL_SEAL, TABLE_SCORE,
    *PLANE_ACTIONS,
)  # fmt: skip

SHIP = "ship"
"""The name of the flow that ships a segment of the prediction journal, and of its step."""
SCORE = "score"
"""The name of the flow that scores a table, and of its step."""
TABLE_FORMATS = ("csv", "parquet", "jsonl")
"""What a table may be read from; `SCORE_FORMATS` is what scores may be written as."""
SCORE_FORMATS = ("parquet", "csv")
SCORES, REJECTS = "scores", "rejects.csv"
"""The files that a scoring leaves in its workspace."""
REHEARSE = "rehearse"
"""The name of the step that asks a data plane what production is asked."""

BUNDLE_TYPE = "application/vnd.falaj.bundle+json"
PEPPER = "falaj/pepper"
ONLINE_KEY = "falaj/online-key"
BLOB_KEY = "falaj/blob-key/"  # followed by the blob's digest
LATENCY_SECONDS = (0.0005, 0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
"""Upper bounds of the latency histogram's buckets; one more bucket holds what is slower."""


class TrustFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """`trust.json`: which environment a data plane is, and whose signatures count (PEM).

    `keys` are the environment's own: they sign its bundles and admissions; `model` signs models. `until` says of those that
    have come to an end, by fingerprint, up to when; `revoked` which of them somebody else may hold. `journal` is the X25519 key (32 bytes) that what the data plane
    writes down is sealed to.
    """

    environment: str
    keys: tuple[str, ...]
    model: tuple[str, ...]
    until: dict[str, str] = {}
    revoked: tuple[str, ...] = ()
    journal: bytes = b""


def trust_file(environment: str, records: Sequence[KeyRecord], journal: bytes) -> TrustFile:
    """What a data plane of an environment shall trust, the keys that sign now first; `journal` as in `TrustFile`."""
    home = home_of(environment)
    own = [r for r in records if r.name in (home, "model")]
    return TrustFile(
        environment,
        tuple(r.pem for r in own if r.name == home),
        tuple(r.pem for r in own if r.name == "model"),
        {r.fingerprint: r.until for r in own if r.until},
        tuple(r.fingerprint for r in own if r.revoked),
        journal,
    )


class SealedBlob(msgspec.Struct, frozen=True):
    """One file of a model: where its encrypted bytes are, and their data key,
    sealed to this data plane for the purpose BLOB_KEY + blob (base64)."""

    path: str
    blob: str  # digest of the plain bytes; the name of the encrypted blob
    key: str


class Release(msgspec.Struct, frozen=True):
    """A version that this data plane shall load."""

    digest: str
    alias: str
    model: str
    files: tuple[SealedBlob, ...]
    signature: dict[str, Any]  # the OpenSSF signature: a Sigstore bundle
    admission: dict[str, Any]  # DSSE envelope of an in-toto statement
    waiver: dict[str, Any] | None = None  # that of the waiver which the admission names, if it names one
    signed_at: str = ""  # when the model was signed, which its signature does not say (RFC 3339)


class Access(msgspec.Struct, frozen=True):
    """Who may do what on this data plane: a snapshot of tokens and policy.

    `policy` is all that holds, as Cedar; `platform` that part of it by which the platform itself is judged.
    """

    tokens: tuple[KnownToken, ...]
    policy: str
    pepper: str  # base64, sealed for the purpose PEPPER
    platform: str = ""  # empty in bundles of 0.1: everyone is judged by `policy`
    online: tuple[str, ...] = ()  # the online store's keys, each sealed for the purpose ONLINE_KEY; none in 0.1
    projects: dict[str, str] = {}  # model → the project that it belongs to; of others nobody knows it


class Constant(msgspec.Struct, frozen=True):
    """One output of a constant answer: its Open Inference Protocol datatype and its value for every row."""

    name: str
    datatype: str
    value: Any


class Killed(msgspec.Struct, frozen=True):
    """A model that was killed, and what answers in its place: the version of its plan (`version`, with that version's
    digest), a constant `answer`, or nobody (`refuse`). Nothing else of the model may answer, whatever happens."""

    model: str
    kind: str  # version | answer | refuse
    digest: str = ""
    answer: tuple[Constant, ...] = ()


class Bundle(msgspec.Struct, frozen=True):
    """The signed instruction. `generation` only grows; a smaller one is refused."""

    generation: int
    environment: str
    issued_at: str
    plans: tuple[TrafficPlan, ...]
    releases: tuple[Release, ...]
    access: Access
    killed: tuple[Killed, ...] = ()


class LoadReport(msgspec.Struct, frozen=True):
    """What happened to one release: loaded, or refused with the reason and the next step."""

    digest: str
    alias: str
    state: str  # loaded | refused
    code: str = ""
    reason: str = ""
    hint: str = ""
    seconds: float = 0.0


class VersionCounts(msgspec.Struct, frozen=True):
    """What one worker has counted for one version since it loaded it.

    `errors` counts requests that the model itself failed: it raised, or its answer was not a finite number.
    `latency` counts requests by bucket of `LATENCY_SECONDS`, `seconds` is their sum;
    `features` counts looked-up view values by status: present, expired, missing.
    `role` and `weight` are what holds now: the weight of a challenger that the guard stopped is 0.
    `fallbacks` counts requests that the stable version answered in this one's place, `dropped` the
    requests that were to be mirrored to it and were not, because it did not keep up.
    """

    model: str
    alias: str
    digest: str
    requests: int
    errors: int
    rows: int
    seconds: float
    latency: tuple[int, ...]
    features: dict[str, int]
    role: str = "stable"
    weight: int = 0
    fallbacks: int = 0
    dropped: int = 0


class GuardReport(msgspec.Struct, frozen=True):
    """A challenger that the guard stopped (also an entry of `guard.json`). Times are RFC 3339 by the platform's clock.

    `reason` is errors, non_finite, slow, score_shift or memory_unreadable; `observed` broke `limit` on
    `count` requests in one worker. `generation` is that of the plan it was stopped in.

    `bad_answers` went out to callers: none for errors and non_finite (the stable version answered), each
    late one for slow, each of the challenger's within the window for score_shift, none of a shadow. It is
    the sum of the workers, each of which adds its part when it sends the challenger nothing any more;
    `zero_traffic_at` is when the last of them did, empty before the first has.
    """

    digest: str
    alias: str
    tripped_at: str
    reason: str
    observed: float
    limit: float
    count: int
    bad_answers: int
    first_bad_at: str
    verdict_at: str
    zero_traffic_at: str
    model: str = ""
    generation: int = 0
    role: str = "canary"


class Judged(msgspec.Struct, frozen=True):
    """Which bundle file a worker judged last, by which trust root: the digests of both files."""

    trust: str = ""
    bundle: str = ""


class PlaneStatus(msgspec.Struct, frozen=True):
    """What a data plane worker says of itself (`status/<worker>.json` in its folder, and over HTTP)."""

    worker: str
    pid: int
    generation: int  # of the last good bundle; 0 without one
    environment: str
    bundle_issued_at: str
    refused_bundle: str  # why the newest bundle file was not taken; empty when it was
    releases: tuple[LoadReport, ...]
    address: str
    started_at: str
    updated_at: str
    requests: int = 0
    errors: int = 0
    ready: bool = False
    versions: tuple[VersionCounts, ...] = ()
    responses: dict[str, int] = {}  # HTTP status → answers
    guards: tuple[GuardReport, ...] = ()  # of the planned models, oldest first, at most the last 20
    killed: tuple[str, ...] = ()  # the models that were killed
    judged: Judged = Judged()

    def has(self, generation: int, lying: Judged) -> bool:
        """Whether it has a generation, or a later one, by the trust root that lies there: another's number says nothing."""
        return self.generation >= generation and self.judged.trust == lying.trust

    def answered(self, generation: int, lying: Judged) -> bool:
        """Whether it has a generation, or refuses what lies there now. That it refused something before says nothing."""
        return self.has(generation, lying) or (bool(self.refused_bundle) and self.judged == lying)


class Target(msgspec.Struct, frozen=True):
    """A data plane that bundles are made for: its folder, its environment, its public key (PEM)."""

    folder: str
    environment: str
    key: str


class ShipTask(msgspec.Struct, frozen=True):
    """What a step process needs to ship a sealed segment: its file, and the folder of the tables, one a model."""

    segment: str
    tables: str


class Shipped(msgspec.Struct, frozen=True):
    """A segment's rows of one model: the Delta version that holds them, and how many they are."""

    model: str
    version: int
    rows: int


class ShipOutcome(msgspec.Struct, frozen=True):
    """What a segment held. `digest` is that of the file's bytes, `root` that of the salted commitments to its
    records (see `serving.seals`): it stays valid when records are erased. Times are RFC 3339, empty without a record."""

    segment: str
    records: int
    rows: int
    bytes: int
    digest: str
    root: str
    tables: tuple[Shipped, ...]
    first_at: str
    last_at: str


class RehearseTask(msgspec.Struct, frozen=True):
    """What a step process needs for a rehearsal: production's journal, the version's holdout (Parquet; empty for none),
    and the address of the data plane that serves the version `digest`. Its token is handed over apart."""

    contract: ModelContract
    digest: str
    journal: str
    holdout: str
    plane: str
    requests: int = 200
    tls: str = ""  # beyond loopback: the folder with the control plane's certificate
    trust_domain: str = ""


class RehearseOutcome(msgspec.Struct, frozen=True):
    """How it went; `reason` says why it did not pass, and is empty when it did. See `registry.model.Rehearsal`."""

    source: str  # journal | holdout | empty: there was nothing to ask
    requests: int
    failures: int
    p50_ms: float | None
    p99_ms: float | None
    statuses: dict[str, int]
    reason: str


class JournalSegment(ShipOutcome, frozen=True):
    """A segment that was sealed: what it held, and when its leaf was written to the audit log."""

    sealed_at: str


class ScoreAsk(msgspec.Struct, frozen=True):
    """Which table somebody wants to have scored, by which version, and how.

    `table` is a parcel of format `format`. `at` is the column with each row's moment; without that column every row is of
    the moment `as_of`, and nothing that became known later is used. With `raw` the rows are as in the files of the
    model's source, whose contract and `prepare` come first. `keep` are columns that stand beside the scores. With
    `record` the answers go into the prediction journal.
    """

    model: str
    alias: str
    digest: str
    environment: str
    table: str
    format: str
    to: str
    as_of: str
    at: str = ""
    raw: bool = False
    keep: tuple[str, ...] = ()
    record: bool = False


class ScoreTask(msgspec.Struct, frozen=True):
    """What a step process needs to score a table. The key that opens the release's files is handed over apart.

    `trust` is the trust root of the environment, `blobs` the folder of the encrypted files, `now`
    the platform's moment (RFC 3339). `views` are joined from versions `versions` of `tables`, both by source name,
    unless the table has all their columns; `source` is that of raw rows. `workspace` gets the scores, the rejected
    rows and, to be recorded, segments of the journal.
    """

    ask: ScoreAsk
    release: Release
    trust: TrustFile
    blobs: str
    now: str
    table: str
    views: tuple[ViewSpec, ...]
    tables: dict[str, str]
    versions: dict[str, int]
    workspace: str
    principal: str
    source: SourceSpec | None = None
    unjoinable: dict[str, Any] = {}  # why the views cannot be joined, as an error; empty when they can be


class ScoreOutcome(msgspec.Struct, frozen=True):
    """What came of a table. `scores` and `rejects` are digests of files in the workspace; `reasons` counts rejected
    rows by code. `features` says where the views' values are from: `lake`, `table`, or nothing where the model reads
    no view. `moment` is the column with each row's moment, empty where all are of the moment of asking.
    """

    version: str
    digest: str
    table: str
    rows: int
    scored: int
    rejected: int
    reasons: dict[str, int]
    features: str
    moment: str
    scores: str
    rejects: str
    segments: tuple[str, ...] = ()
    first: str = ""  # the first rejected row and why, in words
