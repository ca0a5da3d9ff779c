"""A small project and its files: 3,000 numbered sales, one view, models that train in a moment or not at all."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from pathlib import Path

CODE = '''
"""Will a customer come back?"""

import polars as pl

import falaj as fj


def tidy(rows: pl.LazyFrame) -> pl.LazyFrame:
    sold = pl.col("sold_at").str.to_datetime("%Y-%m-%dT%H:%M:%SZ", time_unit="us", time_zone="UTC")
    paid = sold + pl.duration(hours=1)
    numbers = [pl.col("price").cast(pl.Float64), pl.col("visits").cast(pl.Int64), pl.col("back") == "1"]
    return rows.with_columns(*numbers, sold_at=sold, asked_at=paid, paid_at=paid)


sales = fj.Source.csv("sales", "data/sales*.csv", event_time="sold_at", known_at="paid_at", prepare=tidy, purposes=("shop",))
shop = fj.Entity("shop", key="shop")


@fj.feature_view(entity=shop, source=sales, ttl="9999d", features={"last_price": "float"})
def shop_price(sales: pl.LazyFrame) -> pl.LazyFrame:
    return sales.select("shop", "sold_at", "paid_at", last_price=pl.col("price"))


features = [shop_price, fj.request_features(price="float", visits="integer")]
gates = [fj.gate.metric("roc_auc", at_least=0.6), fj.gate.approval("risk-officer")]


@fj.model(name="back", task="binary", label="back", spine=sales, at="asked_at", features=features, purpose="shop", gates=gates)
def back(data: fj.TrainingSet, params: fj.Params) -> fj.Estimator:
    from sklearn.impute import SimpleImputer  # here, so that a project which is only described loads in a moment
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    rows = data.numpy()
    return make_pipeline(SimpleImputer(), LogisticRegression(C=params.get("C", 1.0))).fit(rows.features, rows.label)


@fj.model(name="broken", task="binary", label="back", spine=sales, at="asked_at", features=features, purpose="shop")
def broken(data: fj.TrainingSet, params: fj.Params) -> fj.Estimator:
    raise RuntimeError("the matrix is singular today")


@fj.model(name="endless", task="binary", label="back", spine=sales, at="asked_at", features=features, purpose="shop")
def endless(data: fj.TrainingSet, params: fj.Params) -> fj.Estimator:
    import time

    while True:
        time.sleep(1)
'''
TOML = '[falaj]\nproject = "."\n\n[project]\nname = "made"\nmodule = "made"\n'


def files() -> dict[str, str]:
    """The project's code, as it is sent."""
    return {"falaj.toml": TOML, "made.py": CODE}


def lay_out(folder: Path) -> Path:
    """The project's folder with its code and data."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files().items():
        (folder / name).write_text(text)
    write_sales(folder / "data" / "sales-1.csv")
    return folder


def write_sales(path: Path, rows: int = 3000, seed: int = 1) -> None:
    """Sales by the minute; who pays more and came often comes back."""
    chance = random.Random(seed)
    start = datetime(2024, 1, 1, tzinfo=UTC)
    lines = ["sold_at,shop,price,visits,back"]
    for n in range(rows):
        price, visits = chance.gauss(50, 10), chance.randrange(10)
        back = chance.random() < 1 / (1 + 2.718 ** -((price - 50) / 8 + (visits - 4.5) / 3))
        sold = start + timedelta(minutes=n)
        lines.append(f"{sold:%Y-%m-%dT%H:%M:%SZ},{'north' if n % 2 else 'south'},{price:.2f},{visits},{int(back)}")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")
