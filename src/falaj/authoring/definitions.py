"""The objects of a project: sources, entities, feature views, models. Frozen; nothing to inherit from."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypedDict, Unpack

from falaj.authoring.fallback import Fallback
from falaj.authoring.gate import Approval
from falaj.authoring.monitor import Monitor, Retrain, Review
from falaj.authoring.rollout import Canary
from falaj.kernel.errors import Invalid
from falaj.kernel.names import check_column, check_name
from falaj.lifecycle.evidence.model import GateSpec
from falaj.lifecycle.features.model import ColumnSpec, EntitySpec, RequestFeature, seconds
from falaj.lifecycle.training.model import FEATURE_TYPES

if TYPE_CHECKING:
    import polars as pl

    from falaj.lifecycle.training.steps.training_set import Estimator, Params, TrainingSet

    Transform = Callable[[pl.LazyFrame], pl.LazyFrame]
    Train = Callable[[TrainingSet, Params], Estimator]


class SourceNeeds(TypedDict):
    """What every source says."""

    event_time: str
    """The column with when a row happened, with a time zone, after `prepare`."""
    known_at: str
    """The column with when it could first have been known."""


class SourceOptions(SourceNeeds, total=False):
    """What a source says beside its name and files."""

    contract: type
    """A pandera model that rows must keep."""
    prepare: Callable[..., Any]
    """Turns the raw LazyFrame into one with the columns above."""
    null_values: Sequence[str]
    """Texts of a CSV field that mean "not known", besides an empty one, such as ("NA",)."""
    max_bad: float
    """The share of rows that may break the contract before a load is refused (0.05)."""
    region: str
    """Where the data may be kept and read."""
    purposes: Sequence[str]
    """What it may be used for; a model's purpose must be among them."""


@dataclass(frozen=True)
class Source:
    """Where rows come from: files below the project, by format."""

    name: str
    format: str
    files: str
    event_time: str
    known_at: str
    contract: type | None = None
    prepare: Callable[..., Any] | None = None
    max_bad: float = 0.05
    region: str = ""
    purposes: Sequence[str] = ()
    null_values: Sequence[str] = ()

    def __post_init__(self) -> None:
        check_name("source", self.name)
        if not 0 <= self.max_bad <= 1:
            raise Invalid(
                f"max_bad of {self.name} is {self.max_bad:g}", hint="give a share from 0 to 1", code="wrong_source"
            )
        if self.files.startswith(("/", "~")) or ".." in self.files.split("/"):
            raise Invalid(
                f"the files of {self.name} are outside the project: {self.files}",
                hint="give a pattern below the project's folder, such as 'data/*.csv'",
                code="wrong_source",
            )
        for option, value in (("purposes", self.purposes), ("null_values", self.null_values)):
            if isinstance(value, str):
                raise Invalid(
                    f"the {option} of {self.name} are one string",
                    hint=f"write {option}=({value!r},)",
                    code="wrong_source",
                )

    @classmethod
    def csv(cls, name: str, files: str, **options: Unpack[SourceOptions]) -> Source:
        """CSV files with a header line."""
        _needs("Source.csv", options, SourceOptions)
        return cls(name, "csv", files, **options)

    @classmethod
    def parquet(cls, name: str, files: str, **options: Unpack[SourceOptions]) -> Source:
        """Parquet files."""
        _needs("Source.parquet", options, SourceOptions)
        return cls(name, "parquet", files, **options)

    @classmethod
    def json(cls, name: str, files: str, **options: Unpack[SourceOptions]) -> Source:
        """JSON files: one array of objects, or one object a line."""
        _needs("Source.json", options, SourceOptions)
        return cls(name, "json", files, **options)


@dataclass(frozen=True)
class Entity:
    """The thing features describe; `key` is the column that names one."""

    name: str
    key: str

    def __post_init__(self) -> None:
        check_name("entity", self.name)
        check_column("key", self.key)

    def spec(self) -> EntitySpec:
        """Its frozen form."""
        return EntitySpec(self.name, self.key)


@dataclass(frozen=True)
class FeatureView:
    """A named group of features of one entity, computed by `transform` from one source. Callable as the function it is."""

    name: str
    entity: Entity
    source: Source
    columns: tuple[ColumnSpec, ...]
    ttl_seconds: int
    event_time: str
    known_at: str
    transform: Transform
    lookback_seconds: int = 0

    def __post_init__(self) -> None:
        check_name("feature view", self.name)

    def __call__(self, rows: pl.LazyFrame) -> pl.LazyFrame:
        """Compute the view from its source's rows."""
        return self.transform(rows)


class ViewNeeds(TypedDict):
    """What every feature view says."""

    entity: Entity
    source: Source
    ttl: str
    """How old a value may be at the row that is enriched: '90s', '15m', '2h', '7d'."""
    features: Mapping[str, str]
    """Its features and their types: float, integer, boolean or category."""


class ViewOptions(ViewNeeds, total=False):
    """What a feature view says of itself."""

    name: str
    """Its name; the function's, if not given."""
    event_time: str
    """The output's event-time column; the source's, if not given."""
    known_at: str
    """The output's known-at column; the source's, if not given."""
    lookback: str
    """How long before a value's time a row of the source may have become known and still matter to it: '24h' for a
    mean over the last 24 hours. Filling the online store then reads no older rows, and fills no key that had none."""


def feature_view(**options: Unpack[ViewOptions]) -> Callable[[Transform], FeatureView]:
    """Make a function of a LazyFrame a feature view.

    The function gets the source's rows and returns the entity's key, the event-time and known-at
    columns, and the features.
    """

    def make(transform: Transform) -> FeatureView:
        source = options["source"]
        return FeatureView(
            name=options.get("name") or transform.__name__,
            entity=options["entity"],
            source=source,
            columns=tuple(ColumnSpec(n, t) for n, t in _typed(options["features"]).items()),
            ttl_seconds=seconds(options["ttl"]),
            event_time=options.get("event_time") or source.event_time,
            known_at=options.get("known_at") or source.known_at,
            transform=transform,
            lookback_seconds=span(f"lookback of {transform.__name__}", options.get("lookback", "")),
        )

    _needs("feature_view", options, ViewOptions)
    return make


@dataclass(frozen=True)
class RequestFeatures:
    """Features that the caller sends, in order; in training they are columns of the spine."""

    features: tuple[RequestFeature, ...]


def request_features(**types: str) -> RequestFeatures:
    """`fj.request_features(distance="float", dest="category")`; a join key may be among them."""
    return RequestFeatures(tuple(RequestFeature(n, t) for n, t in _typed(types).items()))


class ModelNeeds(TypedDict):
    """What every model says."""

    name: str
    task: str
    """binary, multiclass or regression."""
    label: str
    """The column of the spine that is predicted; rows without it are not trained on."""
    spine: Source
    """The source whose rows are the decisions."""
    at: str
    """The column of the spine with the moment of decision; features are as known then."""
    features: Sequence[FeatureView | RequestFeatures]


class ModelOptions(ModelNeeds, total=False):
    """What a model says of itself."""

    positive: str
    """binary: the class whose probability is given ("true")."""
    gates: Sequence[GateSpec | Approval]
    purpose: str
    params: Mapping[str, Any]
    holdout: float
    """The share of rows, the last by `at`, that training never sees (0.2)."""
    validation: float
    """The last share of the rest (0.15)."""
    history: str
    """How far back rows are learnt from, from the moment of training: '120d'. Without it, from the beginning."""
    seed: int
    """What chance starts from in training, splits and measuring (0)."""
    slices: Sequence[str]
    """Columns that evidence keeps beside the ones its slice gates name."""
    rollout: Canary
    """How a challenger takes over from the version that serves; without it, at once on approval."""
    monitor: Monitor
    """What is watched while it serves."""
    retrain: Retrain
    """When it is trained again by itself."""
    review: Review
    """Which answers people look at, and within what time; without it, those that somebody asks for."""
    owner: str
    """Who answers for it."""
    intended_use: str
    """What it is for, and what it is not for."""
    impact: str
    """What its decisions do to whom."""
    risk: str
    """Its risk tier: one-person, minimal, limited, high or critical. Code can make it stricter; a person confirms less."""
    regulated: bool
    """Whether its use is regulated (False)."""
    fallback: Fallback
    """What answers when it is killed; without it, nobody does."""


@dataclass(frozen=True)
class Model:
    """A model: what it predicts, from what, under which gates, and the function that trains it."""

    train: Train
    name: str
    task: str
    label: str
    spine: Source
    at: str
    features: Sequence[FeatureView | RequestFeatures]
    positive: str = "true"
    gates: Sequence[GateSpec | Approval] = ()
    purpose: str = ""
    params: Mapping[str, Any] = field(default_factory=dict)
    holdout: float = 0.2
    validation: float = 0.15
    history: str = ""
    seed: int = 0
    slices: Sequence[str] = ()
    rollout: Canary | None = None
    monitor: Monitor = field(default_factory=Monitor)
    retrain: Retrain = field(default_factory=lambda: Retrain(on_drift=False))
    review: Review | None = None
    owner: str = ""
    intended_use: str = ""
    impact: str = ""
    risk: str = ""
    regulated: bool = False
    fallback: Fallback | None = None

    def __post_init__(self) -> None:
        check_name("model", self.name)

    def __call__(self, data: TrainingSet, params: Params) -> Estimator:
        """Train, as the function does."""
        return self.train(data, params)


def model(**options: Unpack[ModelOptions]) -> Callable[[Train], Model]:
    """Make a function of (TrainingSet, Params) → Estimator a model."""
    _needs("model", options, ModelOptions)
    return lambda train: Model(train, **options)


def span(what: str, text: str) -> int:
    """A duration in seconds, 0 where none is given. Raises `Invalid` for one of no length: nobody means that."""
    length = seconds(text) if text else 0
    if text and not length:
        raise Invalid(
            f"the {what} is {text}",
            hint="give it some length, such as '120d', or leave it out for no limit",
            code="wrong_definition",
        )
    return length


def _needs(what: str, options: Mapping[str, Any], declared: Any) -> None:
    missing = sorted(declared.__required_keys__ - options.keys())
    unknown = sorted(options.keys() - declared.__required_keys__ - declared.__optional_keys__)
    if missing or unknown:
        said = f"is missing {', '.join(missing)}" if missing else f"does not know {', '.join(unknown)}"
        known = ", ".join(sorted({*declared.__required_keys__, *declared.__optional_keys__}))
        raise Invalid(f"fj.{what} {said}", hint=f"fj.{what} takes {known}", code="wrong_definition")


def _typed(types: Mapping[str, str]) -> Mapping[str, str]:
    for name, kind in types.items():
        check_column("feature", name)
        if kind not in FEATURE_TYPES:
            raise Invalid(
                f"{name} has the type {kind!r}, which does not exist",
                hint=f"use one of {', '.join(FEATURE_TYPES)}",
                code="unknown_feature_type",
            )
    if not types:
        raise Invalid("there are no features", hint="name at least one with its type", code="wrong_definition")
    return types
