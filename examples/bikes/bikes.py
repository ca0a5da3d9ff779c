"""How many bicycles will be rented in the coming hour? Washington, D.C., hour by hour through 2011.

A regression on counts. What is known when an hour begins: the calendar, the weather, and how many were rented in
the hours before it. Times are in UTC.
"""

from __future__ import annotations

import lightgbm
import pandera.polars as pa
import polars as pl

import falaj as fj


class Hour(pa.DataFrameModel):
    """An hour as recorded. Temperatures, humidity and wind are shares of a maximum."""

    mnth: str
    day: int = pa.Field(in_range={"min_value": 1, "max_value": 365})
    hr: int = pa.Field(in_range={"min_value": 0, "max_value": 23})
    weekday: int = pa.Field(in_range={"min_value": 0, "max_value": 6})
    workingday: int = pa.Field(isin=(0, 1))
    holiday: int = pa.Field(isin=(0, 1))
    weathersit: str
    temp: float = pa.Field(in_range={"min_value": 0, "max_value": 1})
    hum: float = pa.Field(in_range={"min_value": 0, "max_value": 1})
    windspeed: float = pa.Field(in_range={"min_value": 0, "max_value": 1})
    casual: int = pa.Field(ge=0)
    registered: int = pa.Field(ge=0)
    bikers: int = pa.Field(ge=0)

    @pa.dataframe_check(error="all_are_counted")
    def all_are_counted(cls, data: pa.PolarsData) -> pl.LazyFrame:
        return data.lazyframe.select(pl.col("casual") + pl.col("registered") == pl.col("bikers"))


def times(rows: pl.LazyFrame) -> pl.LazyFrame:
    """When an hour began and when it was over, from the day of the year and the hour of Washington's clock.

    The hour that the clocks skipped in March was not recorded; in November an hour came twice and was recorded once: the
    first is meant.
    """
    days = pl.duration(days=pl.col("day").cast(pl.Int64) - 1, hours=pl.col("hr").cast(pl.Int64))
    local = pl.datetime(2011, 1, 1, time_unit="us") + days
    began = local.dt.replace_time_zone("America/New_York", ambiguous="earliest", non_existent="null")
    return rows.with_columns(
        began_at=began.dt.convert_time_zone("UTC"),
        over_at=began.dt.convert_time_zone("UTC") + pl.duration(hours=1),
        city=pl.lit("washington"),
    )


rides = fj.Source.csv(
    "rides",
    "data/bikes-*.csv",
    event_time="began_at",
    known_at="over_at",
    contract=Hour,
    prepare=times,
    max_bad=0.01,
    region="us",
    purposes=("operations",),
)

city = fj.Entity("city", key="city")


@fj.feature_view(
    entity=city,
    source=rides,
    ttl="3h",
    lookback="8d",
    event_time="over_at",
    features={"last_hour": "float", "last_day": "float", "hour_a_day_ago": "float", "hour_a_week_ago": "float"},
)
def demand(rides: pl.LazyFrame) -> pl.LazyFrame:
    """Rides of the last hour and the last day, and of the coming hour a day and a week ago."""
    hours = rides.select("city", "over_at", "began_at", bikers=pl.col("bikers").cast(pl.Float64)).sort("over_at")
    return hours.select(
        "city",
        "over_at",
        last_hour="bikers",
        last_day=pl.col("bikers").rolling_mean_by("over_at", window_size="24h"),
        hour_a_day_ago=_ago("23h"),
        hour_a_week_ago=_ago("167h"),
    )


def _ago(back: str) -> pl.Expr:
    """The hour that ended that long before this one did: the last of a window of that length and an hour."""
    window = f"{int(back.removesuffix('h')) + 1}h"
    first = pl.col("bikers").rolling_sum_by("over_at", window_size=window)
    return first - pl.col("bikers").rolling_sum_by("over_at", window_size=back)


@fj.model(
    name="bikes-next-hour",
    task="regression",
    label="bikers",
    spine=rides,
    at="began_at",
    features=[
        demand,
        fj.request_features(
            city="category",
            hr="integer",
            weekday="integer",
            workingday="integer",
            weathersit="category",
            temp="float",
            hum="float",
            windspeed="float",
        ),
    ],
    purpose="operations",
    params={"n_estimators": 300, "learning_rate": 0.05, "num_leaves": 31, "min_child_samples": 40, "num_threads": 1},
    gates=[
        fj.gate.metric("r2", at_least=0.80),
        fj.gate.metric("mae", at_most=40),
        fj.gate.slice("workingday", "mae", at_most=50),
        fj.gate.better_than_champion("mae"),
        fj.gate.latency(p99_ms=50),
        fj.gate.approval("risk-officer"),
    ],
    rollout=fj.Shadow(requests=100) >> fj.Canary(steps=[20, 50], requests=100),
    monitor=fj.Monitor(window="7d"),
)
def next_hour(data: fj.TrainingSet, params: fj.Params) -> fj.Estimator:
    """Boosted trees on the squared error."""
    rows, later = data.pandas(), data.validation.pandas()
    model = lightgbm.LGBMRegressor(random_state=data.seed, verbose=-1, **params)
    return model.fit(
        rows.features, rows.label, eval_X=later.features, eval_y=later.label, callbacks=[data.log_lightgbm()]
    )
