"""Rows to try an imported model on where there are no data: around the thresholds of its trees, and from small to large."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import onnx
import polars as pl

from falaj.lifecycle.training.model import FeatureProfile, Input, Profile

ROWS = 300
_SIZES = (0.1, 1.0, 10.0, 100.0, 1000.0)


def made_up(graph: onnx.GraphProto, inputs: tuple[Input, ...], seed: int) -> pl.DataFrame:
    """Raw rows for these features. They say nothing of what the model will be asked, only what it can be asked."""
    rng = np.random.default_rng(seed)
    thresholds = _thresholds(graph)
    columns = {}
    for n, i in enumerate(inputs):
        if i.type == "category":
            columns[i.name] = pl.Series(rng.choice(np.array(i.categories, dtype=object), ROWS), dtype=pl.String)
        elif i.type == "boolean":
            columns[i.name] = pl.Series(rng.integers(0, 2, ROWS).astype(bool))
        else:
            values = rng.normal(size=ROWS) * rng.choice(np.array(_SIZES), ROWS)
            known = np.array(thresholds.get(n, ()), dtype=np.float32)
            if len(known):
                near = rng.choice(known, ROWS)
                moved = np.where(rng.integers(0, 2, ROWS) == 1, near, np.nextafter(near, np.float32(np.inf)))
                values = np.where(rng.integers(0, 4, ROWS) > 0, moved, values)
            columns[i.name] = pl.Series(np.floor(values).astype(np.int64) if i.type == "integer" else values)
    return pl.DataFrame(columns)


def no_profile(inputs: tuple[Input, ...]) -> Profile:
    """The profile of a training part of which nothing is known: of no rows."""
    plain = ("category", "boolean")
    return Profile(0, {i.name: FeatureProfile(i.type, 0, {} if i.type in plain else None) for i in inputs}, ())


def _thresholds(graph: onnx.GraphProto) -> dict[int, list[float]]:
    """Where the graph's trees split, by the feature's place; finite float32 numbers."""
    found: dict[int, list[float]] = defaultdict(list)
    for node in graph.node:
        if node.op_type in ("TreeEnsembleClassifier", "TreeEnsembleRegressor"):
            given = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
            rows = zip(
                given.get("nodes_featureids", ()),
                given.get("nodes_values", ()),
                given.get("nodes_modes", ()),
                strict=False,
            )
            for feature, value, mode in rows:
                if mode != b"LEAF" and np.isfinite(value) and abs(value) < 1e30:
                    found[int(feature)].append(float(value))
    return found
