"""Training runs and the model contract: frozen types and pure rules.

The contract (`signature.json` inside every model) is all that the stages after training know of a
model. Nothing after this stage asks which library trained it.
"""

from __future__ import annotations

import math
from typing import Any

import msgspec

from falaj.kernel.access import Action
from falaj.kernel.digests import FileEntry, canonical_json, digest_of
from falaj.kernel.errors import Invalid
from falaj.statistics.bins import MAX_CATEGORIES, edges_of
from falaj.statistics.distances import LAGS

RUN_READ = Action("training.read", "read", "Run", "see runs, their parameters, metrics and curves")
TRAIN_START = Action("training.start", "engineering", "Model", "train a model")
TRAIN_FINISH = Action("training.finish", "system", "Model", "record what a run came to")
ACTIONS = (RUN_READ, TRAIN_START, TRAIN_FINISH)

TASKS = ("binary", "multiclass", "regression")

FEATURE_TYPES = ("float", "integer", "boolean", "category")

METRICS: dict[str, tuple[str, ...]] = {
    "binary": ("roc_auc", "log_loss", "brier", "accuracy"),
    "multiclass": ("roc_auc", "log_loss", "brier", "accuracy"),
    "regression": ("mae", "rmse", "r2"),
}
"""What can be measured for each task."""

LOWER_IS_BETTER = ("log_loss", "brier", "mae", "rmse")
"""The metrics of an error; of every other one, more is better."""

CONTRACT_FILE = "signature.json"
PROFILE_FILE = "profile.json"
"""The reference profile, beside graph and contract in every model folder."""
PARITY_FILE, HOLDOUT_FILE = "parity.parquet", "holdout.parquet"
"""What a run or an import leaves beside the model folder, for measuring: rows to try, and rows that it never saw."""
TENSOR = "features"
"""How the one tensor is called that a converted graph reads."""
PROFILE_BYTES = 16 << 20
"""A larger profile is none: 500 categories of 30 bytes in each of 1,000 features."""
QUANTILES = tuple(q / 20 for q in range(21))
"""Where a profile cuts a distribution: the smallest value, every twentieth, the largest."""


class Input(msgspec.Struct, frozen=True):
    """One feature as the model reads it: column i of the tensor is `inputs[i]`.

    `source` is "request" or "view". A category is sent as a string and becomes its position in
    `categories`; an unknown one becomes null (NaN). A null stays NaN, unless `null` is "refuse".
    """

    name: str
    type: str  # float | integer | boolean | category
    source: str = "request"
    view: str = ""
    categories: tuple[str, ...] = ()
    null: str = "allow"  # allow | refuse
    unknown: str = "null"  # null | refuse


class JoinKey(msgspec.Struct, frozen=True):
    """An entity's key that a request must bring so that views can be looked up."""

    entity: str
    name: str
    type: str = "category"


class ViewUse(msgspec.Struct, frozen=True):
    """A feature view version that the model reads, and how old its values may be."""

    name: str
    digest: str
    key: str  # the join key's name
    ttl_seconds: int
    columns: tuple[str, ...]


class Output(msgspec.Struct, frozen=True):
    """One answer: which ONNX output it comes from and, for a matrix, which column (-1: the whole vector)."""

    name: str
    datatype: str  # an Open Inference Protocol datatype: FP32, INT64
    tensor: str
    column: int = -1


class ModelContract(msgspec.Struct, frozen=True):
    """`signature.json`: what goes in, what comes out, for which task.

    The ONNX graph reads one float32 tensor `tensor` of shape [rows, len(inputs)].
    `score` names the output that gates and monitoring judge: the probability of `positive` for
    binary, the class probabilities for multiclass, the value for regression.
    """

    model: str
    task: str
    inputs: tuple[Input, ...]
    keys: tuple[JoinKey, ...]
    views: tuple[ViewUse, ...]
    outputs: tuple[Output, ...]
    score: str
    classes: tuple[str, ...] = ()
    tensor: str = TENSOR
    label: str = ""
    purpose: str = ""


class Numbers(msgspec.Struct, frozen=True, omit_defaults=True):
    """How numbers are distributed: mean, standard deviation, and the value at each of `QUANTILES`.

    `binned` counts them between `statistics.bins.edges_of(quantiles)`. `spread`, `directions` and `within` say how unlike
    each other the days are, see `statistics.distances.Days`; they are left out where there is no second day.
    """

    mean: float
    deviation: float
    quantiles: tuple[float, ...]
    binned: tuple[int, ...] = ()
    spread: tuple[float, ...] = ()
    directions: float = 0.0
    within: float = 0.0


class FeatureProfile(msgspec.Struct, frozen=True, omit_defaults=True):
    """One feature in the training part: `counts` by value for a category or a boolean, else as `Numbers`.

    A number that was null in every row has neither mean nor quantiles.
    """

    type: str
    nulls: int
    counts: dict[str, int] | None = None
    mean: float | None = None
    deviation: float | None = None
    quantiles: tuple[float, ...] = ()
    binned: tuple[int, ...] = ()
    spread: tuple[float, ...] = ()
    directions: float = 0.0
    within: float = 0.0


class Profile(msgspec.Struct, frozen=True, omit_defaults=True):
    """`profile.json`: what the training part looked like, frozen with the model; live data is compared with it.

    `rows` are those of the training part. `score` has one entry a column of the score, over the rows
    that the contract accepts; none when it accepts no row. `days` are the distinct UTC days of the rows' time; 0 where
    nothing is known of days.
    """

    rows: int
    features: dict[str, FeatureProfile]
    score: tuple[Numbers, ...]
    days: int = 0


def read_profile(data: bytes, contract: ModelContract) -> Profile:
    """`profile.json` of the model with this contract. Raises `Invalid` (bad_profile) for anything else.

    Only the canonical form is taken, so nothing can stand in the file that the profile does not say.
    """
    if len(data) > PROFILE_BYTES:
        raise _bad_profile(f"has more than {PROFILE_BYTES:,} bytes")
    try:
        profile = msgspec.json.decode(data, type=Profile)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as e:
        raise _bad_profile(f"is not a profile: {str(e)[:200]}") from e
    if canonical_json(profile) != data:
        raise _bad_profile("is not in its canonical form")
    if profile.features.keys() != {i.name for i in contract.inputs}:
        raise _bad_profile("is not about the features that the contract lists")
    if not 0 <= profile.days <= profile.rows:
        raise _bad_profile(f"speaks of {profile.days:,} days in {profile.rows:,} rows")
    for i in contract.inputs:
        feature = profile.features[i.name]
        if not _describes(feature, i, profile.rows) or not _spreads(feature, profile.days):
            raise _bad_profile(f"does not describe the {i.type} {i.name}")
    for s in profile.score:
        whole = len(s.quantiles) == len(QUANTILES) and sum(s.binned) <= profile.rows
        if not whole or not _bins(s, sum(s.binned)) or not _spreads(s, profile.days):
            raise _bad_profile("does not describe the score")
    return profile


def _describes(feature: FeatureProfile, spec: Input, rows: int) -> bool:
    if feature.type != spec.type or not 0 <= feature.nulls <= rows:
        return False
    if spec.type not in ("category", "boolean"):
        known = rows - feature.nulls
        numbers = [feature.mean is not None, feature.deviation is not None, len(feature.quantiles) == len(QUANTILES)]
        told = all(numbers) if known else not any(numbers) and not feature.quantiles
        return told and feature.counts is None and _bins(feature, known)
    values = set(spec.categories) if spec.type == "category" else {"false", "true"}
    counts = feature.counts or {}
    whole = sum(counts.values()) + feature.nulls == rows and min(counts.values(), default=0) >= 0
    plain = feature.mean is None and feature.deviation is None and not feature.quantiles and not feature.binned
    return whole and counts.keys() <= values and plain


def _bins(numbers: Numbers | FeatureProfile, known: int) -> bool:
    """Whether the counts in bins, where there are any, fit the quantiles and are those of so many numbers."""
    if not numbers.binned:
        return True
    size = len(edges_of(numbers.quantiles)) + 1
    return len(numbers.binned) == size and min(numbers.binned) >= 0 and sum(numbers.binned) == known > 0


def _spreads(of: Numbers | FeatureProfile, days: int) -> bool:
    """Whether what is said about days, where anything is, can be said of so many."""
    if not of.spread:
        return of.directions == 0 and of.within == 0
    most = max(2 * len(QUANTILES), MAX_CATEGORIES) + 2
    possible = len(of.spread) == LAGS and of.spread[0] >= 0 and all(map(math.isfinite, of.spread))
    return possible and 1 <= of.directions <= most and math.isfinite(of.within) and of.within >= 0 and days >= 2


def _bad_profile(why: str) -> Invalid:
    return Invalid(f"{PROFILE_FILE} {why}", hint="train the model again", code="bad_profile")


class TrainingSpec(msgspec.Struct, frozen=True):
    """What training needs to know of a model: its contract before the categories are known.

    `holdout` is the share of the labelled rows, the last by `at`, that training never sees;
    `validation` is the last share of the rest. `positive` names the class that a binary model's
    probability is of. `slices` are columns that evidence will look at one value at a time.
    """

    model: str
    task: str
    label: str
    at: str
    inputs: tuple[Input, ...]
    keys: tuple[JoinKey, ...] = ()
    views: tuple[ViewUse, ...] = ()
    positive: str = "true"
    purpose: str = ""
    holdout: float = 0.2
    validation: float = 0.15
    slices: tuple[str, ...] = ()
    history_seconds: int = 0  # only rows that are no older than this, by `at`; 0: all


class DatasetUse(msgspec.Struct, frozen=True):
    """A dataset version that was read: its Delta version and the digest of its file manifest."""

    name: str
    version: int
    digest: str


class TrainTask(msgspec.Struct, frozen=True):
    """One training execution, as a step process is told. Everything that can change the result is in it."""

    spec: TrainingSpec
    workspace: str  # a folder of this run alone
    params: dict[str, Any] = {}
    datasets: tuple[DatasetUse, ...] = ()
    as_of: str = ""
    seed: int = 0


class TrainOutcome(msgspec.Struct, frozen=True):
    """What a training step leaves behind.

    `files` and `digest` name the model folder (`<workspace>/model`); `artifacts` are the other files
    of the workspace with their digests. `rows` counts what became of every row; `metrics` has a
    `train_` and a `validation_` value for each metric of the task.
    """

    files: tuple[FileEntry, ...]
    digest: str
    artifacts: dict[str, str]
    rows: dict[str, int]
    metrics: dict[str, float]
    training_set: str
    contract: ModelContract
    library: str  # what trained it, such as 'lightgbm 4.7.0'
    seconds: float


def training_set_digest(task: TrainTask, consent: str = "") -> str:
    """The name of a training set: dataset versions, view versions, as-of time, consent, split and parameters."""
    spec = task.spec
    return digest_of(
        {
            "datasets": sorted([d.name, d.version, d.digest] for d in task.datasets),
            "views": sorted([v.name, v.digest] for v in spec.views),
            "inputs": [[i.name, i.type, i.source, i.view] for i in spec.inputs],
            "label": [spec.task, spec.label, spec.positive],
            "split": [spec.at, spec.holdout, spec.validation, spec.history_seconds],
            "as_of": task.as_of,
            "consent": consent,
            "params": task.params,
            "seed": task.seed,
        }
    )


class Run(msgspec.Struct, frozen=True):
    """One training execution."""

    id: str
    model: str
    state: str  # running | finished | failed
    author: str
    params: dict[str, Any]
    training_set: str  # digest; see `training_set_digest`
    datasets: dict[str, int]
    views: dict[str, str]
    project: str  # digest of the project's code
    runtime: str  # digest of the locked dependencies
    as_of: str
    metrics: dict[str, float]
    artifacts: dict[str, str]  # name → blob digest
    started_at: str
    finished_at: str = ""
    reason: str = ""
