"""One request: its values, the features that go with them, the model's answer, the record, the reply.

A model that fails on an acceptable request (it raises, or an answer is not a finite number) gives no
answer: the caller gets 422 `no_finite_answer`, the record says why, and it counts as an error of the
version, never of the caller.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from time import perf_counter
from typing import Any

import msgspec
import numpy as np
from msgspec import UNSET
from numpy.typing import NDArray

from falaj.kernel.clock import Clock
from falaj.kernel.errors import Invalid
from falaj.lifecycle.serving.plane.enrich import Features, OnlineValues, look_up
from falaj.lifecycle.serving.plane.journal import Journal, Prediction
from falaj.lifecycle.serving.plane.loading import Version
from falaj.lifecycle.serving.plane.protocol import InferRequest, read_columns, requested_outputs, routing_key
from falaj.lifecycle.serving.plane.state import State
from falaj.lifecycle.training.encoding import Encoder, Matrix

INLINE_ROWS = 64  # larger batches run in a thread, so that they do not keep others waiting
_FLOAT32 = 3.4028234663852886e38


class NoAnswer(Invalid):
    """The model has no finite answer for an acceptable request."""

    status = 422


class RowEncoder:
    """`Encoder.encode` for one row, without array arithmetic for each value.

    Only plain values are read here: a float, a known category, a null where the contract allows it.
    Anything else is left to the encoder itself, so both always agree.
    """

    def __init__(self, encoder: Encoder) -> None:
        self._encoder = encoder
        self._inputs = [
            (i.name, i.type == "float", {c: float(n) for n, c in enumerate(i.categories)}, i.type, i.null == "refuse")
            for i in encoder.inputs
        ]

    def encode(self, columns: Mapping[str, list[Any]]) -> Matrix:
        """A matrix of shape [1, inputs]. Raises like `Encoder.encode`."""
        row: list[float] = []
        for name, number, table, kind, refuse_null in self._inputs:
            value = columns[name][0]
            read: float | None
            if value is None:
                read = None if refuse_null else math.nan
            elif number:
                read = value if type(value) is float and -_FLOAT32 <= value <= _FLOAT32 else None
            else:
                read = table.get(value) if kind == "category" and type(value) is str else _whole(value, kind)
            if read is None:
                return self._encoder.encode(columns)
            row.append(read)
        return np.array([row], dtype=np.float32)


def _whole(value: Any, kind: str) -> float | None:
    """A plain integer or boolean; None for anything that the encoder must look at."""
    if kind == "integer":
        return float(value) if type(value) is int and -(1 << 63) <= value < 1 << 63 else None
    return float(value) if kind == "boolean" and (value is True or value is False) else None


class Inference:
    """Answers infer requests. Belongs to the event loop's thread."""

    def __init__(self, store: OnlineValues, journal: Journal, clock: Clock, worker: str) -> None:
        self._store = store
        self._journal = journal
        self._clock = clock
        self._worker = worker
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="batch")
        self._rows: dict[str, RowEncoder] = {}
        self._json = msgspec.json.Encoder()
        self.requests = 0
        self.errors = 0

    async def answer(
        self, state: State, model: str, label: str, request: InferRequest, principal: str, started: float
    ) -> bytes:
        """The response body; `started` is the request's arrival (perf counter). Raises `FalajError`."""
        traffic = state.model(model)
        key = routing_key(request)
        version = traffic.version(label) if label else traffic.pick(key)
        outputs_wanted = requested_outputs(version.contract, request)
        rows, columns = read_columns(version.wanted, version.required, request.inputs)
        moment = int(self._clock.now().timestamp() * 1_000_000)
        features = look_up(self._store, version.contract, columns, moment)
        matrix = self._matrix(version, rows, {**columns, **features.values} if features.values else columns)
        failure, arrays = await self._run(version, matrix)
        outputs = {} if failure else {name: array.tolist() for name, array in arrays.items()}
        failure = failure or _not_finite(outputs)
        duration = perf_counter() - started
        record = Prediction(
            id=self._journal.next_id,
            at=moment,
            model=model,
            version=version.alias,
            digest=version.digest,
            principal=principal,
            generation=state.generation,
            worker=self._worker,
            rows=rows,
            inputs=columns,
            outputs={} if failure else outputs,
            features=features.values,
            statuses=features.statuses,
            duration=int(duration * 1_000_000),
            request=request.id if request.id is not UNSET else "",
            error=failure,
        )
        self._journal.append(record)
        self._count(version, features, duration, rows, bool(failure))
        if failure:
            raise NoAnswer(
                f"{version.alias} has no answer for this request: {failure}",
                hint="nothing is wrong with the request's form; the failure is counted against the version",
                code="no_finite_answer",
                details={"prediction_id": record.id, "version_digest": version.digest},
            )
        return self._json.encode(_response(version, record, request, features, arrays, outputs_wanted))

    def close(self) -> None:
        self._pool.shutdown()

    def _matrix(self, version: Version, rows: int, columns: Mapping[str, list[Any]]) -> Matrix:
        if rows > 1:
            return version.encoder.encode(columns)
        encoder = self._rows.get(version.digest)
        if encoder is None:
            if len(self._rows) >= 1000:
                self._rows.clear()
            encoder = self._rows[version.digest] = RowEncoder(version.encoder)
        return encoder.encode(columns)

    async def _run(self, version: Version, matrix: Matrix) -> tuple[str, dict[str, NDArray[Any]]]:
        """(why there is no answer, the answers)."""
        try:
            if len(matrix) <= INLINE_ROWS:
                return "", version.run(matrix)
            return "", await asyncio.get_running_loop().run_in_executor(self._pool, version.run, matrix)
        except (
            Exception
        ) as e:  # the runtime raises its own untyped errors; each is the model's failure, and is recorded
            return f"it failed: {type(e).__name__}: {e}"[:300], {}

    def _count(self, version: Version, features: Features, duration: float, rows: int, failed: bool) -> None:
        self.requests += 1
        self.errors += failed
        version.counts.add(duration, rows, failed)
        if features.statuses:
            total = version.counts.features
            for status, count in features.counts.items():
                total[status] += count


def _not_finite(outputs: Mapping[str, list[Any]]) -> str:
    for name, values in outputs.items():
        for value in values:
            for item in value if type(value) is list else (value,):
                if type(item) is float and not math.isfinite(item):
                    return f"its output {name} is not a finite number"
    return ""


def _response(
    version: Version,
    record: Prediction,
    request: InferRequest,
    features: Features,
    arrays: Mapping[str, NDArray[Any]],
    wanted: frozenset[str] | None,
) -> dict[str, Any]:
    outputs = [
        {
            "name": o.name,
            "shape": list(arrays[o.name].shape),
            "datatype": o.datatype,
            "data": record.outputs[o.name] if arrays[o.name].ndim == 1 else arrays[o.name].ravel().tolist(),
        }
        for o in version.contract.outputs
        if wanted is None or o.name in wanted
    ]
    body: dict[str, Any] = {
        "model_name": record.model,
        "model_version": version.label,
        "parameters": {
            "version_digest": version.digest,
            "prediction_id": record.id,
            "features": features.counts,
            "generation": record.generation,
        },
        "outputs": outputs,
    }
    if request.id is not UNSET:
        body["id"] = request.id
    return body
