"""A small project: sales in three shops, made of numbers, with a model of each task and library."""

from __future__ import annotations

from typing import Any

import lightgbm
import numpy as np
import polars as pl
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

import falaj as fj


def tidy(sales: pl.LazyFrame) -> pl.LazyFrame:
    return sales


sales = fj.Source.parquet(
    "sales", "data/sales*.parquet", event_time="sold_at", known_at="paid_at", prepare=tidy, purposes=("operations",)
)
shop = fj.Entity("shop", key="shop")


@fj.feature_view(entity=shop, source=sales, ttl="2d", features={"recent": "float"})
def shop_load(rows: pl.LazyFrame) -> pl.LazyFrame:
    return rows.select("shop", "sold_at", "paid_at", recent=pl.col("price").rolling_mean(5).over("shop"))


features: list[Any] = [
    shop_load,
    fj.request_features(size="float", rooms="integer", garden="boolean", colour="category"),
]
quick = {"n_estimators": 20, "num_leaves": 7, "verbose": -1, "num_threads": 1, "deterministic": True}


@fj.model(
    name="tiny-late",
    task="binary",
    label="late",
    spine=sales,
    at="sold_at",
    features=features,
    purpose="operations",
    params=quick,
    gates=[
        fj.gate.metric("roc_auc", at_least=0.6),
        fj.gate.slice("shop", "accuracy", at_least=0.4, min_rows=20),
        fj.gate.latency(p99_ms=500),
        fj.gate.approval("risk-officer"),
    ],
)
def late(data: fj.TrainingSet, params: fj.Params) -> fj.Estimator:
    rows, check = data.pandas(), data.validation.pandas()
    return lightgbm.LGBMClassifier(random_state=data.seed, **params).fit(
        rows.features, rows.label, eval_X=check.features, eval_y=check.label, callbacks=[data.log_lightgbm()]
    )


@fj.model(
    name="tiny-kind",
    task="multiclass",
    label="kind",
    spine=sales,
    at="sold_at",
    features=features,
    purpose="operations",
)
def kind(data: fj.TrainingSet, params: fj.Params) -> fj.Estimator:
    rows = data.polars(codes=True)
    model = HistGradientBoostingClassifier(max_iter=8, random_state=data.seed)
    fitted: fj.Estimator = model.fit(rows.features.to_numpy(), rows.label.to_numpy())
    return fitted


@fj.model(
    name="tiny-kind-boosted",
    task="multiclass",
    label="kind",
    spine=sales,
    at="sold_at",
    features=features,
    purpose="operations",
    params=quick,
)
def kind_boosted(data: fj.TrainingSet, params: fj.Params) -> fj.Estimator:
    rows = data.pandas()
    return lightgbm.LGBMClassifier(random_state=data.seed, **params).fit(rows.features, rows.label)


@fj.model(
    name="tiny-price",
    task="regression",
    label="price",
    spine=sales,
    at="sold_at",
    features=features,
    purpose="operations",
    params=quick,
)
def price(data: fj.TrainingSet, params: fj.Params) -> fj.Estimator:
    rows = data.numpy()
    return lightgbm.LGBMRegressor(random_state=data.seed, **params).fit(
        rows.features, rows.label, categorical_feature=[data.names.index("colour")]
    )


@fj.model(
    name="tiny-price-linear",
    task="regression",
    label="price",
    spine=sales,
    at="sold_at",
    features=features,
    purpose="operations",
)
def price_linear(data: fj.TrainingSet, params: fj.Params) -> fj.Estimator:
    rows = data.pandas(codes=True)
    numbers = make_pipeline(SimpleImputer(), StandardScaler())
    colours = make_pipeline(SimpleImputer(strategy="most_frequent"), OneHotEncoder(handle_unknown="ignore"))
    columns = ColumnTransformer([("numbers", numbers, ["recent", "size", "rooms"]), ("colours", colours, ["colour"])])
    fitted: fj.Estimator = make_pipeline(columns, Ridge()).fit(rows.features, rows.label)
    return fitted


@fj.model(
    name="tiny-late-linear",
    task="binary",
    label="late",
    spine=sales,
    at="sold_at",
    features=[fj.request_features(rooms="integer", size="float")],
    purpose="operations",
)
def late_linear(data: fj.TrainingSet, params: fj.Params) -> fj.Estimator:
    """Knows no nulls in `rooms`: the imputer is for `size` only."""
    rows = data.numpy()
    imputed = ColumnTransformer([("size", SimpleImputer(), [1])], remainder="passthrough")
    model = make_pipeline(imputed, StandardScaler(), LogisticRegression())
    fitted: fj.Estimator = model.fit(rows.features, rows.label)
    return fitted


def rows(count: int = 1500, seed: int = 7) -> pl.DataFrame:
    """A training frame: hourly sales; a colour that appears only at the end; nulls; unlabelled rows."""
    rng = np.random.default_rng(seed)
    size = rng.normal(50, 15, count)
    rooms = rng.integers(1, 6, count)
    garden = rng.random(count) < 0.4
    colour = rng.choice(["amber", "blue", "green"], count).astype(object)
    colour[-40::4] = "violet"
    recent = rng.normal(100, 20, count)
    worth = 2 * size + 30 * rooms + 25 * garden + 15 * (colour == "blue") + 0.4 * recent
    noise = rng.normal(0, 12, count)
    start = pl.datetime(2024, 1, 1, time_zone="UTC", time_unit="us")
    frame = pl.DataFrame(
        {
            "shop": rng.choice(["north", "south", "west"], count),
            "hour": np.arange(count) // 2,
            "size": size,
            "rooms": rooms,
            "garden": garden,
            "colour": colour,
            "recent": recent,
            "price": worth + noise,
            "late": (worth + 2 * noise) > np.median(worth),
            "kind": np.array(["flat", "house", "villa"])[np.digitize(worth + noise, np.quantile(worth, [0.3, 0.7]))],
        }
    )

    def thinned(name: str, share: float) -> pl.Expr:
        return pl.when(pl.Series(rng.random(count) > share)).then(pl.col(name)).alias(name)

    return frame.with_columns(
        thinned("size", 0.05),
        thinned("garden", 0.1),
        thinned("colour", 0.05),
        thinned("recent", 0.1),
        thinned("late", 0.02),
        sold_at=start + pl.duration(hours="hour"),
        paid_at=start + pl.duration(hours=pl.col("hour") + 1),
    )
