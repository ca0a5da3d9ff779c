"""Will a flight from LaGuardia be more than 15 minutes late at its gate? Asked one hour before departure.

One file says everything: where rows come from and what they must be, when each was known, what is
computed from them, and what a model must prove before it takes traffic. Times are in UTC.
"""

from __future__ import annotations

from typing import Annotated

import lightgbm
import pandera.polars as pa
import polars as pl

import falaj as fj


class Flight(pa.DataFrameModel):
    """A departure as recorded. A cancelled flight has no times and is a good row."""

    time_hour: Annotated[pl.Datetime, "us", "UTC"]
    minute: int = pa.Field(in_range={"min_value": 0, "max_value": 59})
    carrier: str = pa.Field(str_matches="^[A-Z0-9]{2}$")
    dest: str = pa.Field(str_matches="^[A-Z]{3}$")
    distance: float = pa.Field(in_range={"min_value": 1, "max_value": 6000})
    dep_time: int = pa.Field(nullable=True, in_range={"min_value": 1, "max_value": 2400})
    dep_delay: float = pa.Field(nullable=True, in_range={"min_value": -120, "max_value": 2880})
    arr_time: int = pa.Field(nullable=True, in_range={"min_value": 1, "max_value": 2400})
    arr_delay: float = pa.Field(nullable=True, in_range={"min_value": -180, "max_value": 2880})

    @pa.dataframe_check(error="departed_then_arrived")
    def departed_then_arrived(cls, data: pa.PolarsData) -> pl.LazyFrame:
        return data.lazyframe.select(pl.col("dep_time").is_null() | pl.col("arr_delay").is_not_null())


def times(rows: pl.LazyFrame) -> pl.LazyFrame:
    """When a flight was scheduled, decided upon and at its gate, and whether it was late.

    Both clocks are New York's: every destination in the sample is in its time zone.
    """
    scheduled = pl.col("time_hour") + pl.duration(minutes="minute")
    under_way = (_minutes("arr_time") - _minutes("dep_time")) % (24 * 60)
    return rows.with_columns(
        scheduled_at=scheduled,
        decided_at=scheduled - pl.duration(hours=1),
        arrived_at=scheduled + pl.duration(minutes="dep_delay") + pl.duration(minutes=under_way),
        sched_hour=scheduled.dt.hour() + scheduled.dt.minute() / 60,
        weekday=scheduled.dt.weekday().cast(pl.Int64),
        late=pl.col("arr_delay") > 15,
    )


def _minutes(clock: str) -> pl.Expr:
    """A clock time such as 1435 in minutes after midnight."""
    return pl.col(clock) // 100 * 60 + pl.col(clock) % 100


flights = fj.Source.csv(
    "flights",
    "data/flights*.csv",
    event_time="scheduled_at",
    known_at="arrived_at",
    contract=Flight,
    prepare=times,
    null_values=("NA",),
    max_bad=0.05,
    purposes=("operations",),
)

carrier = fj.Entity("carrier", key="carrier")


@fj.feature_view(
    entity=carrier,
    source=flights,
    ttl="24h",
    event_time="arrived_at",
    features={"carrier_mean_delay": "float", "carrier_share_late": "float"},
)
def carrier_delay(flights: pl.LazyFrame) -> pl.LazyFrame:
    """How late a carrier's flights of the last 6 hours were, of those that have landed."""

    def lately(value: pl.Expr) -> pl.Expr:
        return value.rolling_mean_by("arrived_at", window_size="6h").over("carrier")

    landed = flights.filter(pl.col("arrived_at").is_not_null())
    return landed.select(
        "carrier",
        "arrived_at",
        carrier_mean_delay=lately(pl.col("arr_delay")),
        carrier_share_late=lately(pl.col("late").cast(pl.Float64)),
    )


@fj.model(
    name="late-flight",
    task="binary",
    label="late",
    spine=flights,
    at="decided_at",
    features=[
        carrier_delay,
        fj.request_features(
            sched_hour="float", weekday="integer", distance="float", carrier="category", dest="category"
        ),
    ],
    purpose="operations",
    params={"n_estimators": 60, "learning_rate": 0.08, "num_leaves": 15, "min_child_samples": 40, "num_threads": 1},
    gates=[
        fj.gate.metric("roc_auc", at_least=0.58),
        fj.gate.metric("brier", at_most=0.21),
        fj.gate.latency(p99_ms=100),
        fj.gate.approval("risk"),
    ],
)
def late_flight(data: fj.TrainingSet, params: fj.Params) -> fj.Estimator:
    """The probability that a flight is more than 15 minutes late."""
    rows, later = data.pandas(), data.validation.pandas()
    model = lightgbm.LGBMClassifier(
        random_state=data.seed, deterministic=True, force_row_wise=True, verbose=-1, **params
    )
    return model.fit(
        rows.features,
        rows.label,
        eval_X=later.features,
        eval_y=later.label,
        eval_names=["validation"],
        callbacks=[data.log_lightgbm()],
    )
