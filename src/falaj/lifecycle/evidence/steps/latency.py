"""How fast a data plane answers, and whether with the model's own numbers.

Single rows are sent one after the other over the Open Inference Protocol v2, as a caller would.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import httpx
import msgspec
import numpy as np
import polars as pl

from falaj.lifecycle.evidence.model import GateSpec, Measurement
from falaj.lifecycle.training.model import ModelContract
from falaj.lifecycle.training.steps.contract import LoadedModel

DATATYPES = {"float": "FP64", "integer": "INT64", "boolean": "BOOL", "category": "BYTES"}
TOLERANCE = 1e-5
"""How far a served answer may be from the model's own, where all features come with the request."""


class _Output(msgspec.Struct):
    name: str
    data: list[Any]


class _Answer(msgspec.Struct):
    outputs: list[_Output]
    id: str = ""
    parameters: dict[str, Any] = {}


class Refused(Exception):
    """The plane did not answer as it must; the text says how."""


def request_inputs(contract: ModelContract, row: Mapping[str, Any]) -> list[dict[str, Any]]:
    """One row as `inputs` of an inference request: each request feature and each join key once."""
    types = {i.name: i.type for i in contract.inputs if i.source == "request"}
    for key in contract.keys:
        types.setdefault(key.name, key.type)
    return [
        {"name": name, "shape": [1], "datatype": DATATYPES[kind], "data": [row[name]]} for name, kind in types.items()
    ]


class Prober:
    """Sends rows to one data plane and times the answers."""

    def __init__(self, model: LoadedModel, rows: pl.DataFrame, plane: str, token: str) -> None:
        self._model = model
        self._rows = rows
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._url = f"{plane.rstrip('/')}/v2/models/{model.contract.model}/infer"

    def measure(self, requests: int, warm_up: int, seed: int) -> dict[str, Any]:
        """p50 and p99 in milliseconds, over `requests` answers after the warm-up. Raises `Refused`."""
        rng = np.random.default_rng(seed)
        chosen = self._rows[rng.integers(0, self._rows.height, requests + warm_up).tolist()]
        expected = self._expected(chosen)
        times = []
        worst = 0.0
        versions = set()
        with httpx.Client(headers=self._headers, timeout=10.0, trust_env=False) as client:
            for n, row in enumerate(chosen.iter_rows(named=True)):
                started = time.perf_counter()
                response = self._post(client, n, row)
                if n >= warm_up:
                    times.append((time.perf_counter() - started) * 1000)
                answer = _read(response, str(n))
                versions.add(_version(answer))
                worst = max(worst, self._compare(answer, expected, n))
        if len(versions) > 1:
            raise Refused(f"{len(versions)} versions answered")
        p50, p99 = np.quantile(times, (0.5, 0.99))
        return {
            "p50_ms": float(p50),
            "p99_ms": float(p99),
            "requests": len(times),
            "warm_up": warm_up,
            "answered_by": versions.pop(),
            "compared": expected is not None,
            "max_abs_difference": worst,
        }

    def _post(self, client: httpx.Client, n: int, row: dict[str, Any]) -> httpx.Response:
        body = {"id": str(n), "inputs": request_inputs(self._model.contract, row)}
        try:
            return client.post(
                self._url, content=msgspec.json.encode(body), headers={"Content-Type": "application/json"}
            )
        except httpx.HTTPError as e:
            raise Refused(f"the data plane cannot be reached: {type(e).__name__}") from None

    def _expected(self, rows: pl.DataFrame) -> dict[str, Any] | None:
        """The model's own answers, where no view stands between the request and the model."""
        return None if self._model.contract.views else self._model.answers(rows)

    def _compare(self, answer: _Answer, expected: dict[str, Any] | None, n: int) -> float:
        served = {o.name: o.data for o in answer.outputs}
        apart = 0.0
        for output in self._model.contract.outputs:
            if output.name not in served:
                raise Refused(f"the answer has no output {output.name}")
            try:
                values = np.asarray(served[output.name], dtype=np.float64).reshape(-1)
            except (TypeError, ValueError):
                if output.name == self._model.contract.score:
                    raise Refused(f"{output.name} is not a number") from None
                continue  # a class by its name
            if not len(values) or not np.isfinite(values).all():
                raise Refused(f"{output.name} is not a finite number in answer {n}")
            if expected is not None and output.name == self._model.contract.score:
                own = np.asarray(expected[output.name][n], dtype=np.float64).reshape(-1)
                apart = max(apart, float(np.max(np.abs(values - own) / np.maximum(1.0, np.abs(own)))))
        if apart > TOLERANCE:
            raise Refused(f"answer {n} is {apart:.3g} away from the model's own")
        return apart


def latency(gate: GateSpec, found: Mapping[str, Any], digest: str) -> Measurement:
    """One latency gate from what `Prober.measure` found; another version's answers are a problem."""
    if gate.metric not in ("p50_ms", "p99_ms"):
        return Measurement(gate.name, None, problem=f"{gate.metric} is not measured; use p50_ms or p99_ms")
    version = str(found["answered_by"])
    if version != digest:
        return Measurement(gate.name, None, dict(found), problem=f"another version answered: {version}")
    return Measurement(gate.name, float(found[gate.metric]), dict(found))


def _version(answer: _Answer) -> str:
    """The digest of the version that answered; every answer of a data plane names it."""
    named = answer.parameters.get("version_digest")
    if not isinstance(named, str) or not named:
        raise Refused("the answer does not name the version that gave it")
    return named


def _read(response: httpx.Response, sent: str) -> _Answer:
    if response.status_code != 200:
        raise Refused(f"the data plane answered {response.status_code}: {response.text[:200]}")
    try:
        answer = msgspec.json.decode(response.content, type=_Answer)
    except msgspec.MsgspecError as e:
        raise Refused(f"the answer cannot be read: {e}") from None
    if answer.id != sent:
        raise Refused(f"the answer is for request {answer.id!r}, not {sent!r}")
    return answer
