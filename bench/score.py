"""Rows a second of `falaj score`'s step beside plain ONNX Runtime on the same matrix, prepared beforehand.

    python bench/score.py [--rows 336776] [--rounds 3] [--floor 0.4]

The table has the shape of a year of flights: the features of the example's model, 200 trees of 31 leaves. Both run on one
thread in this process, in turn; figures are medians of the rounds, the ratio is the median of the per-round ratios.

ceiling  session.run on the whole float32 matrix, which is there already: no file, no check, no name
score    the step: verify and load the version, read Parquet, check every value, encode, run, name each row, write Parquet
lake     the same with five features joined as they were known at each row's time, from a lake of a tenth of the rows
record   the same as score, with every answer written as a journal record

Exits 1 when score/ceiling is below the floor.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "src")]

import lightgbm  # noqa: E402  # the paths come first
import numpy as np  # noqa: E402
import onnxmltools  # noqa: E402
import polars as pl  # noqa: E402
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey  # noqa: E402
from cryptography.hazmat.primitives.serialization import (  # noqa: E402
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from onnxmltools.convert.common.data_types import FloatTensorType  # noqa: E402

from falaj.kernel.clock import iso  # noqa: E402
from falaj.kernel.environments import STAGING  # noqa: E402
from falaj.lifecycle.features.model import ColumnSpec, EntitySpec, ViewSpec  # noqa: E402
from falaj.lifecycle.serving.model import ScoreAsk, ScoreTask, Target, trust_file  # noqa: E402
from falaj.lifecycle.serving.steps.score import Code, load, run  # noqa: E402
from falaj.lifecycle.training.model import Input, JoinKey, ModelContract, Output, ViewUse  # noqa: E402
from falaj.storage import keychain  # noqa: E402
from falaj.storage.lake import delta  # noqa: E402
from tests.lifecycle.house import House, house  # noqa: E402
from tests.lifecycle.serving.plane.fleet import Silent  # noqa: E402

NUMBERS = [f"f{n}" for n in range(8)]
CATEGORIES = {"carrier": 16, "dest": 105}
FEATURES = [f"v{n}" for n in range(5)]
START = datetime(2013, 1, 1, tzinfo=UTC)
DIGEST = "sha256:" + "5" * 64


def table(rows: int, seed: int = 0) -> pl.DataFrame:
    """A year of rows with every feature."""
    rng = np.random.default_rng(seed)
    at = pl.Series("at", [START]).new_from_index(0, rows).cast(pl.Datetime("us", "UTC"))
    step = int(365 * 86_400_000_000 / rows)
    return pl.DataFrame(
        {
            **{n: rng.standard_normal(rows) for n in NUMBERS},
            **{n: [f"{n}{i:03}" for i in rng.integers(0, k, rows).tolist()] for n, k in CATEGORIES.items()},
            **{n: rng.standard_normal(rows) for n in FEATURES},
        }
    ).with_columns(at=at + pl.int_range(rows) * timedelta(microseconds=step))


def contract() -> ModelContract:
    """As training would have written it."""
    view = ViewUse("recent", DIGEST, "carrier", 86400 * 400, tuple(FEATURES))
    inputs = (
        *(Input(n, "float") for n in NUMBERS),
        *(Input(n, "category", categories=tuple(f"{n}{i:03}" for i in range(k))) for n, k in CATEGORIES.items()),
        *(Input(n, "float", "view", "recent") for n in FEATURES),
    )
    outputs = (Output("probability", "FP32", "probabilities", 1), Output("class", "INT64", "label"))
    return ModelContract(
        "flight-delay", "binary", inputs, (JoinKey("carrier", "carrier"),), (view,), outputs, "probability",
        ("on time", "late"),
    )  # fmt: skip


def graph() -> bytes:
    """200 trees of 31 leaves."""
    rng = np.random.default_rng(1)
    x = rng.standard_normal((20_000, len(contract().inputs)))
    y = (x[:, 0] + x[:, 3] * x[:, 4] + rng.standard_normal(len(x)) > 0).astype(int)
    trees = lightgbm.LGBMClassifier(n_estimators=200, num_leaves=31, verbose=-1, num_threads=1).fit(x, y)
    made = onnxmltools.convert_lightgbm(
        trees, initial_types=[("features", FloatTensorType([None, x.shape[1]]))], zipmap=False, target_opset=15
    )
    return bytes(made.SerializeToString())


def main() -> None:
    """Measure and tell."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=336_776)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--floor", type=float, default=0.4)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="falaj-bench-") as folder, house(Path(folder)) as home:
        sys.exit(measure(home, Path(folder), options))


def measure(home: House, folder: Path, options: argparse.Namespace) -> int:
    """One line a way; the exit status."""
    frame = table(options.rows)
    version = home.packaged(graph=graph(), contract=contract())
    home.measured(version)
    home.plane.registry.register(version.digest, home.author.name, home.operation())
    home.staged(version)
    frame.write_parquet(folder / "given.parquet")
    frame.drop(FEATURES).write_parquet(folder / "joined.parquet")
    seen = table(max(options.rows // 10, 1), 2).select("carrier", "at", *FEATURES).with_columns(known=pl.col("at"))
    keychain.hold(folder, keychain.keys_of(home.plane.layout.home))
    head = delta.append(folder / "recent", seen, "seen")
    key = X25519PrivateKey.generate()
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
    release = home.plane.staging.release(version.digest, Target("", STAGING, public))
    view = ViewSpec(
        "recent", EntitySpec("carrier", "carrier"), "recent", "at", "known", 86400 * 400,
        tuple(ColumnSpec(n, "float") for n in FEATURES), "bench:recent", DIGEST,
    )  # fmt: skip

    def task(name: str, data: str, **ask: Any) -> ScoreTask:
        workspace = folder / name
        workspace.mkdir(exist_ok=True)
        asked = ScoreAsk(
            version.model, home.now(version).alias, version.digest, STAGING, "", "parquet", "parquet",
            "2014-01-01T00:00:00.000Z", "at", **ask,
        )  # fmt: skip
        return ScoreTask(
            asked, release, trust_file(STAGING, home.plane.keys.records(), b""),
            str(home.plane.layout.blobs), iso(home.plane.clock.now()), str(folder / data), (view,),
            {"recent": str(folder / "recent")}, {"recent": head}, str(workspace), "bench",
        )  # fmt: skip

    loaded = load(task("load", "given.parquet"), pem)
    columns: dict[str, Any] = {
        i.name: frame[i.name].to_list() if i.type == "category" else frame[i.name].to_numpy() for i in contract().inputs
    }
    matrix = loaded.matrix(frame.height, columns)
    code = Code({"recent": lambda rows: rows.select("carrier", "at", "known", *FEATURES)})
    ways: dict[str, Callable[[], object]] = {
        "ceiling": lambda: loaded.run(matrix),
        "score": lambda: run(task("score", "given.parquet"), lambda: code, Silent(), pem),
        "lake": lambda: run(task("lake", "joined.parquet"), lambda: code, Silent(), pem),
        "record": lambda: run(task("record", "given.parquet", record=True), lambda: code, Silent(), pem),
    }
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(options.rounds):
        for name, way in ways.items():
            began = time.perf_counter()
            way()
            taken[name].append(time.perf_counter() - began)
    ratios = {n: statistics.median(c / s for c, s in zip(taken["ceiling"], taken[n], strict=True)) for n in ways}
    for name, seconds in taken.items():
        rate = options.rows / statistics.median(seconds)
        print(f"{name:<8} {rate:>10,.0f} rows/s   {ratios[name]:.3f} of the ceiling")
    held = ratios["score"] >= options.floor
    print(f"score/ceiling {ratios['score']:.3f}, floor {options.floor:g}: {'held' if held else 'BROKEN'}")
    return 0 if held else 1


if __name__ == "__main__":
    main()
