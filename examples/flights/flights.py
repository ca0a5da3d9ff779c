"""Will a flight from New York be more than 15 minutes late at its gate? Asked one hour before departure.

Sources are files as recorded (see prepare_data.py). Every time is in UTC. A flight's row is complete
when it has landed, so nothing here uses a flight before `arrived_at`.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any

import lightgbm
import pandera.polars as pa
import polars as pl

import falaj as fj

UtcTime = Annotated[pl.Datetime, "us", "UTC"]

LATE_MINUTES = 15
"""From how many minutes on a flight is late, as the US Department of Transportation counts."""
BETTER_BY = 0.0
"""By how much of the area under the curve a version must beat the one that serves."""
SEED = 0

ZONES = {
    "America/Anchorage": "ANC",
    "America/Chicago": "AUS BHM BNA DFW DSM HOU IAH MCI MDW MEM MKE MSN MSP MSY OKC OMA ORD SAT STL TUL XNA",
    "America/Denver": "ABQ BZN DEN EGE HDN JAC MTJ SLC",
    "America/Los_Angeles": "BUR LAS LAX LGB OAK PDX PSP SAN SEA SFO SJC SMF SNA",
    "America/New_York": (
        "ACK ALB ATL AVL BDL BGR BOS BTV BUF BWI CAE CAK CHO CHS CLE CLT CMH CRW CVG DAY DCA DTW EYW FLL GRR GSO GSP "
        "IAD ILM IND JAX LEX LGA MCO MHT MIA MVY MYR ORF PBI PHL PIT PVD PWM RDU RIC ROC RSW SAV SBN SDF SRQ SYR TPA "
        "TVC TYS"
    ),
    "America/Phoenix": "PHX",
    "America/Puerto_Rico": "BQN PSE SJU",
    "America/St_Thomas": "STT",
    "Pacific/Honolulu": "HNL",
}
"""Time zone of every destination; the three Puerto Rican airports and St Thomas are in no register of the package."""

DESTINATIONS = sorted(code for codes in ZONES.values() for code in codes.split())


# ── What rows must be ────────────────────────────────────────────────────────────────────────────


class FlightContract(pa.DataFrameModel):
    """A departure as recorded. A cancelled flight has no times and is a good row."""

    year: int = pa.Field(in_range={"min_value": 2000, "max_value": 2100})
    month: int = pa.Field(in_range={"min_value": 1, "max_value": 12})
    day: int = pa.Field(in_range={"min_value": 1, "max_value": 31})
    dep_time: int = pa.Field(nullable=True, in_range={"min_value": 1, "max_value": 2400})
    sched_dep_time: int = pa.Field(in_range={"min_value": 0, "max_value": 2359})
    dep_delay: float = pa.Field(nullable=True, in_range={"min_value": -120, "max_value": 2880})
    arr_time: int = pa.Field(nullable=True, in_range={"min_value": 1, "max_value": 2400})
    sched_arr_time: int = pa.Field(in_range={"min_value": 0, "max_value": 2400})
    arr_delay: float = pa.Field(nullable=True, in_range={"min_value": -180, "max_value": 2880})
    carrier: str = pa.Field(str_matches="^[A-Z0-9]{2}$")
    flight: int = pa.Field(ge=1)
    tailnum: str
    origin: str = pa.Field(isin=["EWR", "JFK", "LGA"])
    dest: str
    air_time: float = pa.Field(nullable=True, in_range={"min_value": 1, "max_value": 1440})
    distance: float = pa.Field(in_range={"min_value": 1, "max_value": 6000})
    hour: int = pa.Field(in_range={"min_value": 0, "max_value": 23})
    minute: int = pa.Field(in_range={"min_value": 0, "max_value": 59})
    time_hour: UtcTime

    @pa.check("dest", error="has_known_time_zone")
    def has_known_time_zone(cls, data: pa.PolarsData) -> pl.LazyFrame:
        return data.lazyframe.select(pl.col(data.key).is_in(DESTINATIONS))

    @pa.dataframe_check(error="departed_then_arrived")
    def departed_then_arrived(cls, data: pa.PolarsData) -> pl.LazyFrame:
        return data.lazyframe.select(pl.col("dep_time").is_null() | pl.col("arr_delay").is_not_null())


class WeatherContract(pa.DataFrameModel):
    """An hour of weather at an airport. Pressure and wind direction are often not measured."""

    origin: str = pa.Field(isin=["EWR", "JFK", "LGA"])
    temp: float = pa.Field(in_range={"min_value": -60, "max_value": 140})
    dewp: float = pa.Field(in_range={"min_value": -60, "max_value": 140})
    humid: float = pa.Field(in_range={"min_value": 0, "max_value": 100})
    wind_dir: float = pa.Field(nullable=True, in_range={"min_value": 0, "max_value": 360})
    wind_speed: float = pa.Field(in_range={"min_value": 0, "max_value": 200})
    wind_gust: float = pa.Field(nullable=True, in_range={"min_value": 0, "max_value": 300})
    precip: float = pa.Field(in_range={"min_value": 0, "max_value": 20})
    pressure: float = pa.Field(nullable=True, in_range={"min_value": 850, "max_value": 1100})
    visib: float = pa.Field(in_range={"min_value": 0, "max_value": 10})
    time_hour: UtcTime

    class Config:
        strict = "filter"


class PlaneContract(pa.DataFrameModel):
    """An aircraft in the register."""

    tailnum: str = pa.Field(unique=True)
    year: float = pa.Field(nullable=True, in_range={"min_value": 1930, "max_value": 2013})
    manufacturer: str
    engines: int = pa.Field(in_range={"min_value": 1, "max_value": 8})
    seats: int = pa.Field(in_range={"min_value": 1, "max_value": 900})

    class Config:
        strict = "filter"


# ── Times ────────────────────────────────────────────────────────────────────────────────────────


def flight_times(rows: pl.LazyFrame) -> pl.LazyFrame:
    """Add when a flight was scheduled, decided upon and landed, all in UTC, and whether it was late.

    `time_hour` is the scheduled hour of departure in UTC. The scheduled time in the air is the difference of
    the two scheduled clock times, the arrival read in the destination's zone at the time of arrival.
    """
    scheduled = pl.col("time_hour") + pl.duration(minutes="minute")
    local = pl.duration(minutes=pl.col("sched_arr_time") // 100 * 60 + pl.col("sched_arr_time") % 100)
    return (
        rows.with_columns(
            scheduled_at=scheduled,
            decided_at=scheduled - pl.duration(hours=1),
            sched_hour=pl.col("hour") + pl.col("minute") / 60,
            weekday=pl.date("year", "month", "day").dt.weekday().cast(pl.Int64),
            late=pl.col("arr_delay") > LATE_MINUTES,
        )
        .with_columns(due_at=_due("scheduled_at", local, offset_at="scheduled_at"))
        .with_columns(due_at=_due("scheduled_at", local, offset_at="due_at"))  # once more: clocks may change on the way
        .with_columns(arrived_at=pl.col("due_at") + pl.duration(minutes="arr_delay"))
    )


def _due(departure: str, local: pl.Expr, *, offset_at: str) -> pl.Expr:
    day = pl.duration(days=1)
    midnight = pl.col(departure).dt.truncate("1d")
    due = midnight + local - _offset(offset_at)
    late_by_days = (pl.col(departure) - due).dt.total_seconds() / 86400
    return due + day * late_by_days.ceil().cast(pl.Int64)


def _offset(column: str) -> pl.Expr:
    """How far the destination's clocks are ahead of UTC at that time."""
    offsets = []
    for zone, codes in ZONES.items():
        there = pl.col(column).dt.convert_time_zone(zone)
        offsets.append(
            pl.when(pl.col("dest").is_in(codes.split())).then(there.dt.base_utc_offset() + there.dt.dst_offset())
        )
    return pl.coalesce(offsets)


def weather_times(rows: pl.LazyFrame) -> pl.LazyFrame:
    """An observation is published when its hour is over."""
    return rows.with_columns(published_at=pl.col("time_hour") + pl.duration(hours=1))


def plane_times(rows: pl.LazyFrame) -> pl.LazyFrame:
    """The register as it stood when 2013 began."""
    return rows.with_columns(listed_at=pl.lit(datetime(2013, 1, 1, tzinfo=UTC), pl.Datetime("us", "UTC")))


# ── Sources and what they describe ───────────────────────────────────────────────────────────────

flights = fj.Source.csv(
    "flights",
    "data/flights-*.csv",
    event_time="scheduled_at",
    known_at="arrived_at",
    contract=FlightContract,
    prepare=flight_times,
    null_values=("NA",),
    max_bad=0.25,  # a day of snow cancels hundreds of flights, and those often have no aircraft yet
    region="us",
    purposes=("operations",),
)
weather = fj.Source.csv(
    "weather",
    "data/weather-*.csv",
    event_time="time_hour",
    known_at="published_at",
    contract=WeatherContract,
    prepare=weather_times,
    null_values=("NA",),
    max_bad=0.05,
    region="us",
    purposes=("operations",),
)
planes = fj.Source.csv(
    "planes",
    "data/planes.csv",
    event_time="listed_at",
    known_at="listed_at",
    contract=PlaneContract,
    prepare=plane_times,
    null_values=("NA",),
    max_bad=0.05,
    region="us",
    purposes=("operations",),
)

carrier = fj.Entity("carrier", key="carrier")
airport = fj.Entity("airport", key="origin")
aircraft = fj.Entity("aircraft", key="tailnum")


# ── Features ─────────────────────────────────────────────────────────────────────────────────────


@fj.feature_view(
    entity=airport,
    source=weather,
    ttl="24h",
    lookback="24h",
    features={
        "temp": "float",
        "humid": "float",
        "wind_speed": "float",
        "wind_gust": "float",
        "precip": "float",
        "visib": "float",
        "pressure": "float",
    },
)
def airport_weather(weather: pl.LazyFrame) -> pl.LazyFrame:
    """The last published hour of weather at the airport of departure."""
    return weather.select(
        "origin", "time_hour", "published_at", "temp", "humid", "wind_speed", "wind_gust", "precip", "visib", "pressure"
    )


@fj.feature_view(
    entity=carrier,
    source=flights,
    ttl="24h",
    lookback="24h",
    event_time="arrived_at",
    features={"carrier_mean_delay": "float", "carrier_share_late": "float"},
)
def carrier_delay(flights: pl.LazyFrame) -> pl.LazyFrame:
    """How late a carrier's flights of the last 24 hours were, of those that have landed."""
    landed = flights.filter(pl.col("arrived_at").is_not_null())
    return landed.select(
        "carrier",
        "arrived_at",
        carrier_mean_delay=_over_last("24h", pl.col("arr_delay"), "carrier"),
        carrier_share_late=_over_last("24h", pl.col("late").cast(pl.Float64), "carrier"),
    )


@fj.feature_view(
    entity=airport,
    source=flights,
    ttl="24h",
    lookback="24h",
    event_time="arrived_at",
    features={"airport_mean_delay": "float", "airport_share_late": "float"},
)
def airport_delay(flights: pl.LazyFrame) -> pl.LazyFrame:
    """How late flights left the airport, of those that landed in the last 24 hours."""
    landed = flights.filter(pl.col("arrived_at").is_not_null())
    return landed.select(
        "origin",
        "arrived_at",
        airport_mean_delay=_over_last("24h", pl.col("dep_delay"), "origin"),
        airport_share_late=_over_last("24h", pl.col("late").cast(pl.Float64), "origin"),
    )


@fj.feature_view(
    entity=aircraft,
    source=planes,
    ttl="730d",
    features={"seats": "integer", "manufacturer": "category", "aircraft_age": "float"},
)
def aircraft_facts(planes: pl.LazyFrame) -> pl.LazyFrame:
    """What the register says of the aircraft."""
    return planes.select("tailnum", "listed_at", "seats", "manufacturer", aircraft_age=2013 - pl.col("year"))


def _over_last(window: str, value: pl.Expr, key: str) -> pl.Expr:
    return value.rolling_mean_by("arrived_at", window_size=window).over(key)


# ── Models ───────────────────────────────────────────────────────────────────────────────────────

known_when_asked = [
    airport_weather,
    carrier_delay,
    airport_delay,
    fj.request_features(
        sched_hour="float",
        weekday="integer",
        distance="float",
        carrier="category",
        origin="category",
        dest="category",
    ),
]
"""What is known an hour before departure: the views as of then, and what the timetable says."""

# One thread: 53,000 rows take a second, and two threads on two busy cores have taken seventeen.
trees = {"n_estimators": 160, "learning_rate": 0.06, "num_leaves": 31, "min_child_samples": 100, "num_threads": 1}


@fj.model(
    name="flight-delay",
    task="binary",
    label="late",
    positive="true",
    spine=flights,
    at="decided_at",
    features=known_when_asked,
    purpose="operations",
    params=trees,
    history="120d",
    seed=SEED,
    gates=[
        fj.gate.metric("roc_auc", at_least=0.65),
        fj.gate.metric("brier", at_most=0.25),
        fj.gate.better_than_champion("roc_auc", by=BETTER_BY),
        fj.gate.slice("carrier", "roc_auc", at_least=0.52),
        fj.gate.slice("origin", "roc_auc", at_least=0.60),
        fj.gate.latency(p99_ms=50),
        fj.gate.approval("risk-officer"),
    ],
    rollout=fj.Shadow(requests=200) >> fj.Canary(steps=[10, 50], requests=150, limits=fj.Limits(shift=0.15)),
    monitor=fj.Monitor(window="28d", psi=0.25, features=1),
    retrain=fj.Retrain(cooldown="90d"),
)
def delay(data: fj.TrainingSet, params: fj.Params) -> fj.Estimator:
    """The probability that a flight is more than 15 minutes late."""
    return boosted(lightgbm.LGBMClassifier, data, params)


@fj.model(
    name="flight-delay-minutes",
    task="regression",
    label="arr_delay",
    spine=flights,
    at="decided_at",
    features=known_when_asked,
    purpose="operations",
    params=trees,
    history="120d",
    seed=SEED,
    gates=[
        fj.gate.metric("mae", at_most=30),
        fj.gate.metric("r2", at_least=0.02),
        fj.gate.not_worse_than_champion("mae", margin=0.5),
        fj.gate.slice("origin", "mae", at_most=35),
        fj.gate.latency(p99_ms=50),
        fj.gate.approval("risk-officer"),
    ],
    rollout=fj.Canary(steps=[20, 50], requests=300, limits=fj.Limits(shift=0.15)),
)
def delay_minutes(data: fj.TrainingSet, params: fj.Params) -> fj.Estimator:
    """By how many minutes a flight is late."""
    return boosted(lightgbm.LGBMRegressor, data, params)


def boosted(kind: Any, data: fj.TrainingSet, params: fj.Params) -> Any:
    """Boosted trees over nulls and categories as they are, with both learning curves; the same seed, the same trees."""
    rows, later = data.pandas(), data.validation.pandas()
    model = kind(random_state=data.seed, deterministic=True, force_row_wise=True, verbose=-1, **params)
    return model.fit(
        rows.features,
        rows.label,
        eval_X=(rows.features, later.features),
        eval_y=(rows.label, later.label),
        eval_names=["train", "validation"],
        callbacks=[data.log_lightgbm()],
    )
