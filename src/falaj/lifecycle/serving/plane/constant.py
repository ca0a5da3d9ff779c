"""The constant answer of a killed model: no version is asked, and the answer is recorded like any other.

Nothing is known of the model's inputs any more, so a request is held to its form alone: as many values of each input as
there are rows.
"""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import UNSET

from falaj.kernel.errors import Invalid
from falaj.lifecycle.serving.model import Killed
from falaj.lifecycle.serving.plane.journal import Prediction
from falaj.lifecycle.serving.plane.protocol import MAX_ROWS, InferRequest

ROLE = "fallback"
VERSION = "constant"


class Told(msgspec.Struct, frozen=True):
    """What a record says beside the answer; `spent` is in µs."""

    id: str
    at: int  # µs since 1970
    principal: str
    generation: int
    worker: str
    spent: int


def constant_answer(killed: Killed, request: InferRequest, told: Told) -> tuple[dict[str, Any], Prediction]:
    """The response's body and its record. Raises `Invalid` for a request without rows, with too many, or with ragged ones,
    and for an output that the answer does not have."""
    rows = _rows(request)
    wanted = _wanted(killed, request)
    outputs = [_output(c.name, c.datatype, c.value, rows) for c in killed.answer if c.name in wanted]
    record = Prediction(
        id=told.id,
        at=told.at,
        model=killed.model,
        version=VERSION,
        digest="",
        principal=told.principal,
        generation=told.generation,
        worker=told.worker,
        rows=rows,
        inputs={t.name: t.data for t in request.inputs},
        outputs={c.name: [c.value] * rows for c in killed.answer},
        duration=told.spent,
        request=request.id if request.id is not UNSET else "",
        role=ROLE,
    )
    parameters = {"killed": True, "prediction_id": told.id, "generation": told.generation, "role": ROLE}
    body: dict[str, Any] = {
        "model_name": killed.model, "model_version": VERSION, "parameters": parameters, "outputs": outputs,
    }  # fmt: skip
    if request.id is not UNSET:
        body["id"] = request.id
    return body, record


def _rows(request: InferRequest) -> int:
    counts = {n for t in request.inputs for n in (t.shape[0] if t.shape else 0, len(t.data))}
    if len(counts) != 1 or not 1 <= next(iter(counts)) <= MAX_ROWS:
        raise Invalid(
            "the request has no rows, too many, or not the same number of them for every input",
            hint=f"send 1 to {MAX_ROWS} rows, the same number for every input",
            code="bad_row_count",
        )
    return next(iter(counts))


def _wanted(killed: Killed, request: InferRequest) -> set[str]:
    known = {c.name for c in killed.answer}
    if request.outputs is UNSET or not request.outputs:
        return known
    names = {o.name for o in request.outputs}
    if not names <= known:
        raise Invalid(
            "the request asks for an output that the answer does not have",
            hint=f"the outputs are {', '.join(sorted(known))}",
            code="unknown_output",
        )
    return names


def _output(name: str, datatype: str, value: Any, rows: int) -> dict[str, Any]:
    if isinstance(value, list):
        return {"name": name, "shape": [rows, len(value)], "datatype": datatype, "data": list(value) * rows}
    return {"name": name, "shape": [rows], "datatype": datatype, "data": [value] * rows}
