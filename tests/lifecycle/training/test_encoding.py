"""Raw values into the matrix: codes, nulls, refusals."""

from __future__ import annotations

import math
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from falaj.kernel.errors import Invalid
from falaj.lifecycle.training.encoding import Encoder, decode
from falaj.lifecycle.training.model import Input, ModelContract, Output

INPUTS = (
    Input("size", "float"),
    Input("rooms", "integer"),
    Input("garden", "boolean"),
    Input("colour", "category", categories=("amber", "blue", "green")),
)


def contract(*inputs: Input) -> ModelContract:
    return ModelContract("m", "binary", inputs or INPUTS, (), (), (), "")


def test_values_become_the_matrix() -> None:
    columns: dict[str, Any] = {
        "size": [1.5, None, 3],
        "rooms": [2, 3.0, None],
        "garden": [True, False, None],
        "colour": ["green", "pink", None],
        "other": ["ignored"],
    }
    nan = math.nan
    expected = np.array([[1.5, 2, 1, 2], [nan, 3, 0, nan], [3, nan, nan, nan]], dtype=np.float32)
    matrix = Encoder(contract().inputs).encode(columns)
    assert matrix.dtype == np.float32
    np.testing.assert_array_equal(matrix, expected)


@given(
    st.lists(
        st.tuples(
            st.none() | st.floats(width=32, allow_nan=False, allow_infinity=False),
            st.none() | st.integers(-(2**40), 2**40),
            st.none() | st.booleans(),
            st.none() | st.sampled_from(["amber", "blue", "green", "pink", ""]),
        ),
        min_size=1,
        max_size=30,
    )
)
def test_lists_and_arrays_and_single_rows_give_the_same_matrix(rows: list[tuple[Any, ...]]) -> None:
    encoder = Encoder(contract().inputs)
    names = [i.name for i in INPUTS]
    lists: dict[str, list[Any]] = {n: [r[i] for r in rows] for i, n in enumerate(names)}
    arrays: dict[str, Any] = {
        n: np.array(v, dtype=object) if n == "colour" else np.array([math.nan if x is None else x for x in v], float)
        for n, v in lists.items()
    }
    whole = encoder.encode(lists)
    np.testing.assert_array_equal(whole, encoder.encode(arrays))
    single = [encoder.encode({n: [v] for n, v in zip(names, row, strict=True)}) for row in rows]
    np.testing.assert_array_equal(whole, np.concatenate(single))


@pytest.mark.parametrize(
    ("column", "values", "code"),
    [
        ("size", ["1.5"], "wrong_input_type"),
        ("size", [True], "wrong_input_type"),
        ("size", [math.inf], "wrong_input_type"),
        ("size", [1e39], "wrong_input_type"),
        ("size", [10**400], "wrong_input_type"),
        ("size", np.array([np.inf]), "wrong_input_type"),
        ("size", np.array([True]), "wrong_input_type"),
        ("rooms", [2.5], "wrong_input_type"),
        ("garden", [2], "wrong_input_type"),
        ("colour", [3], "wrong_input_type"),
        ("size", [1.0, 2.0], "ragged_input"),
        ("size", None, "missing_input"),
    ],
)
def test_what_does_not_fit_is_refused(column: str, values: Any, code: str) -> None:
    columns: dict[str, Any] = {"size": [1.0], "rooms": [1], "garden": [True], "colour": ["blue"]}
    if values is None:
        del columns[column]
    else:
        columns[column] = values
    with pytest.raises(Invalid) as error:
        Encoder(contract().inputs).encode(columns)
    assert error.value.code == code
    assert column in error.value.message or code == "ragged_input"


def test_nulls_and_unknown_categories_are_refused_where_the_contract_says_so() -> None:
    strict = [msgspec.structs.replace(i, null="refuse", unknown="refuse") for i in INPUTS]
    good: dict[str, Any] = {"size": [1.0, 1.0], "rooms": [1, 1], "garden": [True, False], "colour": ["blue", "amber"]}
    encoder = Encoder(contract(*strict).inputs)
    assert encoder.accepts(good).tolist() == [True, True]
    for column, value, code in (("size", None, "null_refused"), ("colour", "pink", "unknown_category")):
        bad = {**good, column: [good[column][0], value]}
        assert encoder.accepts(bad).tolist() == [True, False]
        with pytest.raises(Invalid) as error:
            encoder.encode(bad)
        assert (error.value.code, error.value.details) == (code, {"input": column, "row": 1})


def test_answers_are_found_by_tensor_and_column() -> None:
    outputs = (Output("p", "FP32", "probs", 1), Output("all", "FP32", "probs"), Output("class", "INT64", "label"))
    tensors = {"probs": np.array([[0.2, 0.8], [0.9, 0.1]], np.float32), "label": np.array([1, 0])}
    answers = decode(ModelContract("m", "binary", (), (), (), outputs, "p"), tensors)
    np.testing.assert_allclose(answers["p"], [0.8, 0.1])
    assert answers["all"].shape == (2, 2)
    assert answers["class"].tolist() == [1, 0]
