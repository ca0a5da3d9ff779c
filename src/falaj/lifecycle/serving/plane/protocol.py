"""Open Inference Protocol v2 over REST, strictly read.

https://github.com/kserve/open-inference-protocol/blob/main/specification/protocol/inference_rest.md

One named input per request feature and per join key, of shape [rows] or [rows, 1]. What a number, a
string, a shape may be is decided here; what the model makes of it is decided by the contract's encoder.
"""

from __future__ import annotations

import gc
import json
import re
from typing import Annotated, Any

import msgspec
from msgspec import UNSET, UnsetType

from falaj.kernel.errors import Invalid
from falaj.lifecycle.training.model import ModelContract

MAX_ROWS = 10_000
_MAX_TEXT = 256
LARGE = 256 << 10  # bytes
"""A body that is larger keeps a worker busy for so long that others would notice."""
_FLOAT32 = 3.4028234663852886e38
_FLOATS = frozenset({"FP16", "FP32", "FP64"})
_INTEGERS = {
    "INT8": (-(1 << 7), (1 << 7) - 1),
    "INT16": (-(1 << 15), (1 << 15) - 1),
    "INT32": (-(1 << 31), (1 << 31) - 1),
    "INT64": (-(1 << 63), (1 << 63) - 1),
    "UINT8": (0, (1 << 8) - 1),
    "UINT16": (0, (1 << 16) - 1),
    "UINT32": (0, (1 << 32) - 1),
    "UINT64": (0, (1 << 64) - 1),
}
_ACCEPTED = {
    "float": _FLOATS | set(_INTEGERS),
    "integer": frozenset(_INTEGERS),
    "boolean": frozenset({"BOOL"}),
    "category": frozenset({"BYTES"}),
}
DECLARED = {"float": "FP64", "integer": "INT64", "boolean": "BOOL", "category": "BYTES"}
"""The datatype that the metadata asks for, by a feature's type."""
_TYPES = {
    **dict.fromkeys(_FLOATS, frozenset({float, int, type(None)})),
    **dict.fromkeys(_INTEGERS, frozenset({int, type(None)})),
    "BOOL": frozenset({bool, type(None)}),
    "BYTES": frozenset({str, type(None)}),
}

_USUAL: dict[str, dict[str, object]] = {
    "float": dict.fromkeys(_FLOATS, float),
    "integer": {"INT64": int},
    "boolean": {"BOOL": bool},
    "category": {"BYTES": str},
}
"""What most single rows send, by a feature's type: datatype → the value's type. These need few checks."""
_ONE = [1]
_MEMBERS = 4
"""The members that every tensor has."""
_AT_BYTE = re.compile(r"\(byte (\d+)\)")
_NO_NUMBER = re.compile(rb"NaN|Infinity")  # Python writes them

Scalar = bool | int | float | str | None
Parameters = dict[Annotated[str, msgspec.Meta(max_length=_MAX_TEXT)], Scalar] | UnsetType
"""As the protocol has them: no parameter is an object or a list, so nothing can be nested deeply. The limit also keeps
msgspec from remembering names, which would hold on to the memory of a request that had a million of them."""


class Tensor(msgspec.Struct, frozen=True, forbid_unknown_fields=True, gc=False):
    """A named input. `data` is flat, or nested once for the shape [rows, 1]; null is a value that is not known.

    Inner values are read as tuples: the collector of cycles soon forgets those, while it would walk through a million
    lists again and again as they are made.
    """

    name: str
    shape: list[int]
    datatype: str
    data: list[Scalar | tuple[Scalar, ...]]
    parameters: Parameters = UNSET


class RequestedOutput(msgspec.Struct, frozen=True, forbid_unknown_fields=True, gc=False):
    """An output that the caller asks for."""

    name: str
    parameters: Parameters = UNSET


class InferRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True, gc=False):
    """The body of an infer request. `parameters.routing_key` keeps a caller on one version during a rollout."""

    inputs: list[Tensor]
    id: str | UnsetType = UNSET
    parameters: Parameters = UNSET
    outputs: list[RequestedOutput] | UnsetType = UNSET


class Wanted(msgspec.Struct, frozen=True):
    """What a request must bring under a name; what comes from a view, it must not bring."""

    name: str
    type: str
    is_key: bool
    source: str  # request | view
    usual: dict[str, object]  # see _USUAL


_decoder = msgspec.json.Decoder(InferRequest)
_encoder = msgspec.json.Encoder()


def wanted_inputs(contract: ModelContract) -> dict[str, Wanted]:
    """By name: the request features, the join keys, and (to say so when they are sent) the view features."""
    wanted = {i.name: Wanted(i.name, i.type, False, i.source, _USUAL[i.type]) for i in contract.inputs}
    for key in contract.keys:
        found = wanted.get(key.name)
        if found is None or found.source == "view":
            wanted[key.name] = Wanted(key.name, key.type, True, "request", _USUAL[key.type])
        else:  # a feature that the caller sends, and a key as well
            wanted[key.name] = msgspec.structs.replace(found, is_key=True)
    return wanted


def read_request(body: bytes) -> InferRequest:
    """Decode a body. Raises `Invalid` for anything that is not exactly one request: NaN, Infinity, numbers
    out of range, duplicate or unknown members, deep nesting, bytes that are not UTF-8."""
    large = len(body) > LARGE
    if large:
        _check_bulk(body)
        gc.disable()  # while a great many objects are made, it would walk through them again and again
    try:
        request = _decoder.decode(body)
        # Each member of an object has one colon. When there are no more of them than the members that must be there,
        # or than in what was understood, none was given twice; strings with escapes are looked at closely.
        colons = body.count(b":")
        if b"\\" in body or (
            colons != 1 + _MEMBERS * len(request.inputs) and colons != _encoder.encode(request).count(b":")
        ):
            json.loads(body, object_pairs_hook=_once)
    except (msgspec.DecodeError, UnicodeError, RecursionError, ValueError) as e:
        raise _unreadable(body, e) from e
    finally:
        if large:
            gc.enable()
    if request.id is not UNSET and len(request.id) > _MAX_TEXT:
        raise Invalid("the request's id is too long", hint=f"use at most {_MAX_TEXT} characters", code="bad_request_id")
    return request


def read_columns(
    wanted: dict[str, Wanted], required: tuple[str, ...], inputs: list[Tensor]
) -> tuple[int, dict[str, list[Any]]]:
    """(rows, values by name). `required` are the names that are wanted from the request.

    Raises `Invalid` unless exactly these inputs are there, each with one value a row, of its type and
    within its datatype's range.
    """
    columns: dict[str, list[Any]] = {}
    rows = -1
    for tensor in inputs:
        name, data = tensor.name, tensor.data
        want = wanted.get(name)
        if want is None or want.source == "view":
            raise _unknown(name, want, wanted)
        if (
            len(data) != 1
            or want.usual.get(tensor.datatype) is not type(value := data[0])
            or tensor.shape != _ONE
            or tensor.parameters is not UNSET
            or not (-_FLOAT32 <= value <= _FLOAT32 if type(value) is float else _is_small(value))
        ):
            data = _values(tensor, want)
        if rows < 0:
            rows = len(data)
        elif len(data) != rows:
            raise Invalid(
                f"{want.name} has {len(data)} rows, the inputs before it have {rows}",
                hint="send the same number of rows for every input",
                code="ragged_input",
            )
        columns[name] = data
    if len(columns) != len(inputs):
        raise Invalid("an input comes twice", hint="send each input once", code="duplicate_input")
    missing = [name for name in required if name not in columns] if len(columns) != len(required) else None
    if missing:
        raise Invalid(
            f"the request lacks {', '.join(missing)}",
            hint="send every request feature and every join key; null where a value is not known",
            code="missing_input",
            details={"inputs": missing},
        )
    if not 1 <= rows <= MAX_ROWS:
        raise Invalid(f"{rows} rows", hint=f"send 1 to {MAX_ROWS} rows in a request", code="bad_row_count")
    return rows, columns


def _is_small(value: Any) -> bool:
    """Whether a single value of its usual type, no float, is certainly within its range."""
    kind = type(value)
    if kind is str:
        return len(value) <= _MAX_TEXT
    return kind is bool or bool(-(1 << 63) <= value < 1 << 63)


def _values(tensor: Tensor, want: Wanted) -> list[Any]:
    shape, data = tensor.shape, tensor.data
    if len(data) > MAX_ROWS:
        raise _bad(want, f"has {len(data)} values", f"send 1 to {MAX_ROWS} rows in a request", "bad_row_count")
    if len(shape) not in (1, 2) or (len(shape) == 2 and shape[1] != 1):
        raise _bad(want, f"has the shape {shape[:8]}", "send shape [rows] or [rows, 1]", "bad_shape")
    if len(shape) == 2 and data and type(data[0]) is tuple:
        if not all(type(v) is tuple and len(v) == 1 for v in data):
            raise _bad(want, "is nested unevenly", "send a flat list, or one value in each inner list", "bad_shape")
        data = [v[0] for v in data]  # type: ignore[index]  # each is a tuple: seen above
    if shape[0] != len(data):
        raise _bad(want, f"has shape {shape[:8]} but {len(data)} values", "let shape and data agree", "bad_shape")
    datatype = tensor.datatype
    if datatype not in _ACCEPTED[want.type]:
        raise _bad(want, f"has datatype {datatype[:20]!r}", f"send {DECLARED[want.type]}", "bad_datatype")
    parameters = tensor.parameters
    if parameters and "binary_data_size" in parameters:
        raise _bad(want, "announces binary data", "send data as JSON", "binary_not_supported")
    if not _TYPES[datatype].issuperset(map(type, data)):
        raise _bad(
            want, f"holds values that are not {datatype}", "let every value be of the datatype, or null", "bad_value"
        )
    _check_range(data, datatype, want)
    # A float sent without a point may have more digits than a journal's integer holds.
    return [float(v) if type(v) is int else v for v in data] if datatype in _FLOATS else data


def _check_range(data: list[Any], datatype: str, want: Wanted) -> None:
    if datatype in _INTEGERS:
        low, high = _INTEGERS[datatype]
    elif datatype in _FLOATS:
        low, high = -_FLOAT32, _FLOAT32  # type: ignore[assignment]
    elif want.is_key and any(v is not None and len(v) > _MAX_TEXT for v in data):
        raise _bad(want, "is too long", f"join keys have at most {_MAX_TEXT} characters", "bad_value")
    else:
        return
    for value in data:
        if value is not None and not low <= value <= high:
            raise _bad(
                want,
                f"holds a number that {datatype} or 32-bit floating point cannot",
                "send smaller numbers",
                "out_of_range",
            )


def requested_outputs(contract: ModelContract, request: InferRequest) -> frozenset[str] | None:
    """The names that the caller wants; None means all. Raises `Invalid` for one that does not exist."""
    if request.outputs is UNSET or not request.outputs:
        return None
    names = [o.name for o in request.outputs]
    known = {o.name for o in contract.outputs}
    if not known.issuperset(names) or len(set(names)) != len(names):
        raise Invalid(
            "the request asks for an output that the model does not have, or for one twice",
            hint=f"the outputs are {', '.join(sorted(known))}",
            code="unknown_output",
        )
    return frozenset(names)


def routing_key(request: InferRequest) -> str | None:
    """`parameters.routing_key`, if given. Raises `Invalid` when it is not a short string."""
    parameters = request.parameters
    if parameters is UNSET or not parameters:
        return None
    key = parameters.get("routing_key")
    if key is not None and (not isinstance(key, str) or len(key) > _MAX_TEXT):
        raise Invalid(
            "parameters.routing_key is not a short string",
            hint=f"use at most {_MAX_TEXT} characters",
            code="bad_routing_key",
        )
    return key


def metadata(contract: ModelContract, versions: list[str], shapes: dict[str, list[int]]) -> dict[str, Any]:
    """The model's metadata: what a request must bring, what an answer holds. `shapes` has −1 for what varies; `classes`
    are the names of what `class` counts and `probabilities` lists, in that order, none for a regression."""
    return {
        "name": contract.model,
        "versions": versions,
        "platform": "onnxruntime_onnx",
        "inputs": [
            {"name": w.name, "datatype": DECLARED[w.type], "shape": [-1], "parameters": {"join_key": w.is_key}}
            for w in wanted_inputs(contract).values()
            if w.source == "request"
        ],
        "outputs": [
            {
                "name": o.name,
                "datatype": o.datatype,
                "shape": shapes[o.name],
                "parameters": {"classes": contract.classes},
            }
            for o in contract.outputs
        ],
    }


def _check_bulk(body: bytes) -> None:
    """Refuse a large body that holds far more values, lists or members than its inputs can have, before they are made."""
    most = 1000 + body.count(b'"datatype"') * 16 * MAX_ROWS  # 16: what stands within texts is counted too
    if any(body.count(mark) > most for mark in (b",", b"[", b":")):
        raise Invalid(
            "the request holds more values, lists or members than its inputs can have",
            hint=f"send 1 to {MAX_ROWS} rows in a request, and parameters that matter",
            code="bad_inference_request",
        )


def _unreadable(body: bytes, error: Exception) -> Invalid:
    text = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
    hint = 'send an Open Inference Protocol v2 request: {"inputs": [{name, shape, datatype, data}, …]}'
    at = _AT_BYTE.search(text)
    found = _NO_NUMBER.match(body, int(at[1])) if at else None
    if found is not None:
        text, hint = f"{found[0].decode()} is no JSON number ({text})", "send null where a value is not known"
    return Invalid(f"the request is not acceptable JSON: {text}"[:300], hint=hint, code="bad_inference_request")


def _once(pairs: list[tuple[str, Any]]) -> None:
    if len({name for name, _ in pairs}) != len(pairs):
        raise ValueError("an object has a member twice")


def _unknown(name: str, want: Wanted | None, wanted: dict[str, Wanted]) -> Invalid:
    if want is not None:
        return Invalid(
            f"{want.name} comes from a feature view",
            hint="leave it out and send the join key: the data plane looks it up",
            code="view_feature_sent",
        )
    names = ", ".join(w.name for w in wanted.values() if w.source == "request")
    return Invalid(f"the model has no input {name[:80]!r}", hint=f"send {names}", code="unknown_input")


def _bad(want: Wanted, what: str, hint: str, code: str) -> Invalid:
    return Invalid(f"the input {want.name} {what}", hint=hint, code=code, details={"input": want.name})
