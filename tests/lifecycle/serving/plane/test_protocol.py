from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from falaj.kernel.errors import Invalid
from falaj.lifecycle.serving.plane.enrich import look_up
from falaj.lifecycle.serving.plane.protocol import InferRequest, read_columns, read_request, routing_key, wanted_inputs
from falaj.lifecycle.serving.plane.rows import RowEncoder
from falaj.lifecycle.training.encoding import Encoder, Matrix
from falaj.lifecycle.training.model import Input, ModelContract
from tests.lifecycle.serving.plane.fleet import CARRIERS, VIEW, flight, flight_contract

WANTED = wanted_inputs(flight_contract())
REQUIRED = ("distance", "hour", "carrier", "origin")
SECOND = 1_000_000


def refused(body: bytes | dict[str, Any]) -> str:
    """The code with which a request is refused."""
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    with pytest.raises(Invalid) as caught:
        read_columns(WANTED, REQUIRED, read_request(raw).inputs)
    return caught.value.code


def with_input(position: int, **changed: Any) -> dict[str, Any]:
    body = flight()
    body["inputs"][position].update(changed)
    return body


def test_a_request_becomes_columns() -> None:
    rows, columns = read_columns(WANTED, REQUIRED, read_request(json.dumps(flight(2)).encode()).inputs)
    assert rows == 2
    assert columns == {"distance": [500.0] * 2, "hour": [9] * 2, "carrier": ["AA"] * 2, "origin": ["JFK"] * 2}


@pytest.mark.parametrize("data", [[1.5, None], [[1.5], [None]]])
def test_two_rows_flat_or_nested(data: list[Any]) -> None:
    body = flight(2)
    body["inputs"][0].update(shape=[2, 1], data=data)
    _, columns = read_columns(WANTED, REQUIRED, read_request(json.dumps(body).encode()).inputs)
    assert columns["distance"] == [1.5, None]


BODY = json.dumps(flight())


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", "bad_inference_request"),
        (b"null", "bad_inference_request"),
        (b"[]", "bad_inference_request"),
        (b'{"inputs":1}', "bad_inference_request"),
        (BODY.encode()[:-1], "bad_inference_request"),
        (BODY.replace("500.0", "NaN").encode(), "bad_inference_request"),
        (BODY.replace("500.0", "Infinity").encode(), "bad_inference_request"),
        (BODY.replace("500.0", "-Infinity").encode(), "bad_inference_request"),
        (BODY.replace("500.0", "1e999").encode(), "bad_inference_request"),
        (BODY.replace("500.0", "9" * 5000).encode(), "bad_inference_request"),
        (BODY.replace("500.0", "9" * 50).encode(), "out_of_range"),
        (BODY.replace("500.0", "1e39").encode(), "out_of_range"),
        (BODY.replace("[9]", "[9223372036854775808]").encode(), "out_of_range"),
        (BODY.replace("JFK", "\\ud800").encode(), "bad_inference_request"),
        (BODY.encode().replace(b"JFK", b"\xff"), "bad_inference_request"),
        (b"\xef\xbb\xbf" + BODY.encode(), "bad_inference_request"),
        (BODY.encode("utf-16"), "bad_inference_request"),
        (BODY.encode() + b"{}", "bad_inference_request"),
        (BODY.replace("{", '{"id":"twice",', 1).encode(), "bad_inference_request"),
        (BODY.replace('"name": "hour"', '"name": "hour", "name": "hour"').encode(), "bad_inference_request"),
        (BODY.replace("{", '{"parameters":{"a":1,"a":2},', 1).encode(), "bad_inference_request"),
        (BODY.replace("{", '{"parameters":{"a":1,"\\u0061":2},', 1).encode(), "bad_inference_request"),
        (BODY.replace("{", '{"surprise":1,', 1).encode(), "bad_inference_request"),
        (b'{"inputs":[],"parameters":{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}}", "bad_inference_request"),
        (b'{"inputs":' + b"[" * 100_000, "bad_inference_request"),
        (flight() | {"id": "x" * 257}, "bad_request_id"),
        (flight() | {"inputs": []}, "missing_input"),
        (flight() | {"inputs": flight()["inputs"][:3]}, "missing_input"),
        (flight() | {"inputs": flight()["inputs"] * 2}, "duplicate_input"),
        (with_input(0, name="nothing"), "unknown_input"),
        (with_input(0, name="wind"), "view_feature_sent"),
        (with_input(0, datatype="FP8"), "bad_datatype"),
        (with_input(0, datatype="BYTES"), "bad_datatype"),
        (with_input(1, datatype="FP64"), "bad_datatype"),
        (with_input(0, shape=[]), "bad_shape"),
        (with_input(0, shape=[2]), "bad_shape"),
        (with_input(0, shape=[1, 2]), "bad_shape"),
        (with_input(0, shape=[1, 1, 1]), "bad_shape"),
        (with_input(0, shape=[-1]), "bad_shape"),
        (with_input(0, shape=[1 << 62]), "bad_shape"),
        (with_input(0, shape=[1.5]), "bad_inference_request"),
        (with_input(0, shape=[2], data=[1.0, 2.0], name="distance"), "ragged_input"),
        (with_input(0, shape=[1, 1], data=[[1.0, 2.0]]), "bad_shape"),
        (with_input(0, data=[[1.0]]), "bad_value"),
        (with_input(0, data=[[[1.0]]]), "bad_inference_request"),
        (with_input(0, data=["500"]), "bad_value"),
        (with_input(0, data=[True]), "bad_value"),
        (with_input(0, data=[{}]), "bad_inference_request"),
        (with_input(1, data=[1.5]), "bad_value"),
        (with_input(1, data=[True]), "bad_value"),
        (with_input(1, datatype="INT8", data=[128]), "out_of_range"),
        (with_input(1, datatype="UINT8", data=[-1]), "out_of_range"),
        (with_input(2, data=[7]), "bad_value"),
        (with_input(3, data=["x" * 257]), "bad_value"),
        (with_input(0, parameters={"binary_data_size": 8}, data=[]), "bad_shape"),
        (with_input(0, parameters={"binary_data_size": 8}), "binary_not_supported"),
        (flight(0), "bad_row_count"),
        (flight(10_001), "bad_row_count"),
    ],
)
def test_what_is_not_exactly_a_request_is_refused_with_its_reason(body: bytes | dict[str, Any], code: str) -> None:
    assert refused(body) == code


@given(st.dictionaries(st.text(max_size=8), st.text(max_size=8), max_size=4), st.text(max_size=20))
def test_colons_and_escapes_in_strings_are_no_duplicates(parameters: dict[str, str], text: str) -> None:
    body = flight() | {"parameters": parameters, "id": text}
    for encoded in (json.dumps(body).encode(), msgspec.json.encode(body)):
        assert read_request(encoded).parameters == parameters


@given(st.sampled_from(["id", "parameters", "inputs"]), st.text(max_size=10).map(lambda t: t + "\\:"))
def test_a_member_given_twice_is_found_even_when_escapes_hide_colons(name: str, text: str) -> None:
    body = json.dumps(flight() | {"id": text, "parameters": {}})
    again = json.dumps({name: json.loads(body)[name]})[1:-1]
    with pytest.raises(Invalid):
        read_request(f"{{{again},{body[1:]}".encode())


@pytest.mark.parametrize("place", [0, 3])
@pytest.mark.parametrize("name", ["name", "shape", "datatype", "data"])
def test_a_tensor_s_member_given_twice_is_found(name: str, place: int) -> None:
    plain = flight()
    plain["inputs"][place] |= {"again": plain["inputs"][place][name]}
    with pytest.raises(Invalid):
        read_request(json.dumps(plain).replace('"again"', f'"{name}"').encode())


@pytest.mark.parametrize("key", [1, True, "x" * 257])
def test_a_routing_key_is_a_short_string(key: Any) -> None:
    with pytest.raises(Invalid):
        routing_key(msgspec.convert(flight() | {"parameters": {"routing_key": key}}, InferRequest))


@pytest.mark.parametrize("value", [[], {}, [["a"]], {"a": {"a": 1}}])
@pytest.mark.parametrize("where", ["request", "input", "output"])
def test_no_parameter_is_nested(value: Any, where: str) -> None:
    request = flight() | {"outputs": [{"name": "label"}]}
    holder = {"request": request, "input": request["inputs"][0], "output": request["outputs"][0]}[where]
    holder["parameters"] = {"a": value}
    assert refused(request) == "bad_inference_request"


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity"])
def test_what_python_writes_for_no_number_is_named(number: str) -> None:
    body = json.dumps(flight()).replace("500.0", number)
    with pytest.raises(Invalid) as caught:
        read_request(body.encode())
    assert number.strip("-") in caught.value.message and "null" in caught.value.hint


@pytest.mark.parametrize("part", ['"a":[[1],[1]', '"parameters":{"a":1,"a":1'])
def test_a_large_body_without_inputs_for_it_is_refused_before_it_is_read(part: str) -> None:
    piece = part.rpartition("{")[2] if "{" in part else "[1]"
    body = ("{" + part + ("," + piece) * 300_000).encode()
    with pytest.raises(Invalid) as caught:
        read_request(body)
    assert "more values, lists or members" in caught.value.message


def test_the_largest_request_that_makes_sense_is_read() -> None:
    nested = flight(10_000)
    for tensor in nested["inputs"]:
        tensor["shape"] = [10_000, 1]
        tensor["data"] = [[v] for v in tensor["data"]]
    rows, columns = read_columns(WANTED, REQUIRED, read_request(json.dumps(nested).encode()).inputs)
    assert rows == 10_000 and columns["distance"] == [500.0] * 10_000


def test_too_many_rows_are_told_before_anything_else() -> None:
    assert refused(flight(10_001, distance="no number")) == "bad_row_count"


def contract(null: str, unknown: str) -> ModelContract:
    inputs = tuple(
        Input(t, t, null=null, unknown=unknown, categories=CARRIERS if t == "category" else ()) for t in TYPES
    )
    return msgspec.structs.replace(flight_contract(), inputs=inputs)


TYPES = ("float", "integer", "boolean", "category")
VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.sampled_from([*CARRIERS, "ZZ", "", 0.0, 1.0, 1e39, 2.5]),
    st.text(max_size=3),
)


@given(
    st.tuples(VALUES, VALUES, VALUES, VALUES), st.sampled_from(["allow", "refuse"]), st.sampled_from(["null", "refuse"])
)
def test_one_row_is_read_as_the_encoder_reads_it(values: tuple[Any, ...], null: str, unknown: str) -> None:
    encoder = Encoder(contract(null, unknown).inputs)
    columns = {t: [v] for t, v in zip(TYPES, values, strict=True)}
    expected, found = result(encoder.encode, columns), result(RowEncoder(encoder).encode, columns)
    if isinstance(expected, str):
        assert found == expected
    else:
        assert not isinstance(found, str)
        assert found.dtype == np.float32
        np.testing.assert_array_equal(found, expected)


def result(encode: Callable[[Any], Matrix], columns: dict[str, list[Any]]) -> Matrix | str:
    """The matrix, or the code of the refusal."""
    try:
        return encode(columns)
    except Invalid as e:
        return e.code


class Table:
    """An online store that holds one row."""

    def __init__(self, at: int, values: tuple[Any, ...]) -> None:
        self.row = (at, values)

    def hold(self, keys: tuple[bytes, ...]) -> None:
        pass

    def get_each(self, wanted: Any) -> list[Any]:
        return [self.row if pair == (VIEW.digest, "JFK") else None for pair in wanted]


@given(st.integers(-10 * SECOND, 8000 * SECOND))
def test_a_value_is_used_while_it_is_fresh_and_never_before_its_time(age: int) -> None:
    now = 10**15
    found = look_up(Table(now - age, (1.0, 0.0)), flight_contract(), {"origin": ["JFK", None, "LAX"]}, now)
    fresh = 0 <= age <= 7200 * SECOND
    assert found.statuses == {"airport_weather": ["present" if fresh else "expired", "missing", "missing"]}
    assert found.values == {"wind": [1.0 if fresh else None, None, None], "gusty": [0.0 if fresh else None, None, None]}
    assert found.counts == {"present": int(fresh), "expired": int(not fresh), "missing": 2}


def test_values_of_another_shape_are_not_used() -> None:
    found = look_up(Table(5, (1.0,)), flight_contract(), {"origin": ["JFK"]}, 5)
    assert found.statuses == {"airport_weather": ["missing"]}


def test_nothing_is_not_a_number() -> None:
    matrix = RowEncoder(Encoder(contract("allow", "null").inputs)).encode({t: [None] for t in TYPES})
    assert all(math.isnan(v) for v in matrix[0])
