"""ONNX against the estimator's own answers, on ordinary and on awkward rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from falaj.lifecycle.evidence.model import GateSpec, Measurement
from falaj.lifecycle.training.steps.contract import LoadedModel
from falaj.lifecycle.training.steps.parity import GROUP, NATIVE, difference, groups


def parity(gate: GateSpec, model: LoadedModel, path: Path) -> Measurement:
    """The largest difference between the served answers and the estimator's, over all groups of rows.

    A group that the contract calls for and that has no rows is a problem. A class that differs where
    the estimator's two best are further apart than the limit counts as a difference of 1.
    """
    try:
        frame = pl.read_parquet(path)
    except (OSError, pl.exceptions.PolarsError) as e:
        return Measurement(gate.name, None, problem=f"the parity rows cannot be read: {type(e).__name__}")
    contract = model.contract
    lacking = [n for n in (GROUP, NATIVE, *(i.name for i in contract.inputs)) if n not in frame.columns]
    if lacking:
        return Measurement(gate.name, None, problem=f"the parity rows have no column {', '.join(lacking)}")
    absent = [g for g in groups(contract) if not (frame[GROUP] == g).any()]
    if absent:
        return Measurement(gate.name, None, problem=f"there are no parity rows for {', '.join(absent)}")
    native = np.array(frame[NATIVE].to_list(), dtype=np.float64).reshape(frame.height, -1)
    answers = model.answers(frame)
    served = np.asarray(answers[contract.score], dtype=np.float64).reshape(frame.height, -1)
    compared = native[:, [_positive(model)]] if contract.task == "binary" else native
    if compared.shape != served.shape:
        return Measurement(gate.name, None, problem=f"the model answers {served.shape}, the estimator {compared.shape}")
    apart = difference(contract.task, compared, served)
    if contract.task != "regression":
        limit = gate.at_most if gate.at_most is not None else 0.0
        apart = np.maximum(apart, _other_class(native, np.asarray(answers["class"]), limit))
    detail: dict[str, Any] = {"rows": frame.height, "groups": {}}
    for group in frame[GROUP].unique(maintain_order=True).to_list():
        mask = (frame[GROUP] == group).to_numpy()
        detail["groups"][group] = {"rows": int(mask.sum()), "max_abs_difference": _finite(float(apart[mask].max()))}
    return Measurement(gate.name, _finite(float(apart.max())), detail)


def _positive(model: LoadedModel) -> int:
    return next(o.column for o in model.contract.outputs if o.name == model.contract.score)


def _other_class(native: NDArray[np.float64], served: NDArray[Any], limit: float) -> NDArray[np.float64]:
    ordered = np.sort(native, axis=1)
    clear = ordered[:, -1] - ordered[:, -2] > limit
    differs = np.argmax(native, axis=1) != served.reshape(-1)
    result: NDArray[np.float64] = (clear & differs).astype(np.float64)
    return result


def _finite(value: float) -> float:
    """Infinity as a number that JSON has and that fails every gate."""
    return value if np.isfinite(value) else 1e308
