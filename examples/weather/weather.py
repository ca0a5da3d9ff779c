"""What will tomorrow's weather be in Seattle: drizzle, fog, rain, snow or sun? Day by day, 2012 to 2015.

A multiclass task on a small table, with pandas and scikit-learn. Today's measurements are known at midnight, when
tomorrow's weather is asked for. Times are in UTC.
"""

from __future__ import annotations

import pandera.polars as pa
import polars as pl
from sklearn.ensemble import RandomForestClassifier
from sklearn.impute import SimpleImputer
from sklearn.pipeline import make_pipeline

import falaj as fj


class Day(pa.DataFrameModel):
    """A day as recorded: millimetres, degrees Celsius, metres a second."""

    date: str = pa.Field(str_matches=r"^\d{4}/\d{2}/\d{2}$")
    precipitation: float = pa.Field(in_range={"min_value": 0, "max_value": 500})
    temp_max: float = pa.Field(in_range={"min_value": -40, "max_value": 50})
    temp_min: float = pa.Field(in_range={"min_value": -40, "max_value": 50})
    wind: float = pa.Field(in_range={"min_value": 0, "max_value": 100})
    weather: str = pa.Field(isin=("drizzle", "fog", "rain", "snow", "sun"))

    @pa.dataframe_check(error="warmest_is_not_coldest")
    def warmest_is_not_coldest(cls, data: pa.PolarsData) -> pl.LazyFrame:
        return data.lazyframe.select(pl.col("temp_max") >= pl.col("temp_min"))


def times(rows: pl.LazyFrame) -> pl.LazyFrame:
    """When a day began and when it was over, on Seattle's clock."""
    day = pl.col("date").str.to_datetime("%Y/%m/%d", time_unit="us")
    return rows.with_columns(
        began_at=day.dt.replace_time_zone("America/Los_Angeles").dt.convert_time_zone("UTC"),
        over_at=day.dt.offset_by("1d").dt.replace_time_zone("America/Los_Angeles").dt.convert_time_zone("UTC"),
        month=day.dt.month().cast(pl.Int64),
        station=pl.lit("seattle"),
    )


days = fj.Source.csv(
    "days",
    "data/*.csv",
    event_time="began_at",
    known_at="over_at",
    contract=Day,
    prepare=times,
    region="us",
    purposes=("planning",),
)

station = fj.Entity("station", key="station")


@fj.feature_view(
    entity=station,
    source=days,
    ttl="2d",
    event_time="over_at",
    features={
        "today": "category",
        "rain_today": "float",
        "rain_this_week": "float",
        "warmest": "float",
        "coldest": "float",
        "wind_today": "float",
        "warmer_than_yesterday": "float",
        "sun_this_week": "float",
        "fog_this_week": "float",
        "rainy_this_week": "float",
    },
)
def measured(days: pl.LazyFrame) -> pl.LazyFrame:
    """The day that has just ended, and the week with it."""
    return days.sort("over_at").select(
        "station",
        "over_at",
        today="weather",
        rain_today="precipitation",
        rain_this_week=pl.col("precipitation").rolling_mean_by("over_at", window_size="7d"),
        warmest="temp_max",
        coldest="temp_min",
        wind_today="wind",
        warmer_than_yesterday=pl.col("temp_max").diff(),
        sun_this_week=_share("sun"),
        fog_this_week=_share("fog"),
        rainy_this_week=_share("rain"),
    )


def _share(kind: str) -> pl.Expr:
    """Of the last seven days, how many were of this kind."""
    return (pl.col("weather") == kind).cast(pl.Float64).rolling_mean_by("over_at", window_size="7d")


@fj.model(
    name="weather-tomorrow",
    task="multiclass",
    label="weather",
    spine=days,
    at="began_at",
    features=[measured, fj.request_features(station="category", month="integer")],
    purpose="planning",
    params={"n_estimators": 200, "max_depth": 7, "min_samples_leaf": 5},
    gates=[
        fj.gate.metric("log_loss", at_most=0.81),
        fj.gate.better_than_champion("log_loss"),
        fj.gate.latency(p99_ms=50),
        fj.gate.approval("risk-officer"),
    ],
    monitor=fj.Monitor(window="28d"),
)
def tomorrow(data: fj.TrainingSet, params: fj.Params) -> fj.Estimator:
    """A forest on a pandas frame. Categories come as their codes, since a forest takes numbers."""
    rows = data.pandas(codes=True)
    forest = RandomForestClassifier(random_state=data.seed, n_jobs=1, **params)
    return make_pipeline(SimpleImputer(), forest).fit(rows.features, rows.label)
