"""Raw values → the float32 matrix that a model reads, and the model's tensors → named answers.

The one implementation: training, evidence and the data plane all read features through it, so that
what was measured is what is served. Imports numpy, msgspec and the kernel only.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from falaj.kernel.errors import Invalid
from falaj.lifecycle.training.model import Input, ModelContract

Values = Sequence[Any] | NDArray[Any]
Matrix = NDArray[np.float32]

_PYTHON: dict[str, Any] = {"float": (float, int), "integer": (int, float), "boolean": (bool, int, float)}
LARGEST = float(np.finfo(np.float32).max)
"""The largest number that the matrix can hold."""


class Encoder:
    """Turns columns into the matrix of a contract's inputs. Build it once and keep it: it holds the category tables."""

    def __init__(self, inputs: tuple[Input, ...]) -> None:
        self.inputs = inputs
        self._tables = {
            i.name: {c: float(code) for code, c in enumerate(i.categories)} for i in inputs if i.type == "category"
        }

    def encode(self, columns: Mapping[str, Values]) -> Matrix:
        """The matrix of shape [rows, inputs].

        `columns` has one sequence a feature, all of the same length: strings for a category, numbers
        or booleans otherwise, None or NaN for null. A category becomes its position in the contract's
        list, a null stays NaN. Other columns are ignored. Raises `Invalid` for a missing column, a
        value of the wrong type, one that float32 cannot hold, and a null or an unknown category where
        the contract refuses it.
        """
        matrix, refused = self.read(columns)
        if refused.any():
            row, column = (int(x) for x in np.argwhere(refused)[0])
            raise _refusal(self.inputs[column], columns[self.inputs[column].name][row], row)
        return matrix

    def read(self, columns: Mapping[str, Values]) -> tuple[Matrix, NDArray[np.bool_]]:
        """The matrix, and for each of its values whether the contract refuses it. Raises like `encode` for wrong types."""
        rows = _rows(self.inputs, columns)
        matrix = np.empty((rows, len(self.inputs)), dtype=np.float32)
        refused = np.zeros((rows, len(self.inputs)), dtype=bool)
        for i, spec in enumerate(self.inputs):
            if spec.type == "category":
                matrix[:, i], unknown, null = _codes(spec, columns[spec.name], self._tables[spec.name])
                if spec.unknown == "refuse":
                    refused[:, i] |= unknown
            else:
                numbers = _numbers(spec, columns[spec.name])
                matrix[:, i] = numbers
                null = np.isnan(numbers)
            if spec.null == "refuse":
                refused[:, i] |= null
        return matrix, refused

    def accepts(self, columns: Mapping[str, Values]) -> NDArray[np.bool_]:
        """For each row, whether its nulls and categories are acceptable. Raises like `encode` for wrong types."""
        accepted: NDArray[np.bool_] = np.logical_not(np.any(self.read(columns)[1], axis=1))
        return accepted


def decode(contract: ModelContract, tensors: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """The contract's answers from the graph's output tensors, each of shape [rows] or [rows, width]."""
    answers = {}
    for output in contract.outputs:
        tensor = tensors[output.tensor]
        answers[output.name] = tensor[:, output.column] if tensor.ndim == 2 and output.column >= 0 else tensor
    return answers


def _rows(inputs: tuple[Input, ...], columns: Mapping[str, Values]) -> int:
    missing = [i.name for i in inputs if i.name not in columns]
    if missing:
        raise Invalid(
            f"the model needs {', '.join(missing)}",
            hint="send every feature that the model's contract lists; send null where a value is not known",
            code="missing_input",
            details={"inputs": missing},
        )
    lengths = {len(columns[i.name]) for i in inputs}
    if len(lengths) != 1:
        raise Invalid(
            f"the features have {sorted(lengths)} rows",
            hint="send the same number of values for every feature",
            code="ragged_input",
        )
    return lengths.pop()


def _codes(
    spec: Input, values: Values, table: Mapping[str, float]
) -> tuple[NDArray[np.float64], NDArray[np.bool_], NDArray[np.bool_]]:
    items: Sequence[Any] = values.tolist() if isinstance(values, np.ndarray) else values
    codes = np.empty(len(items))
    unknown = np.zeros(len(items), dtype=bool)
    null = np.zeros(len(items), dtype=bool)
    for row, value in enumerate(items):
        if isinstance(value, str):
            code = table.get(value)
            codes[row] = math.nan if code is None else code
            unknown[row] = code is None
        elif value is None or (isinstance(value, float) and math.isnan(value)):
            codes[row] = math.nan
            null[row] = True
        else:
            raise _wrong(spec, value, row, "a string")
    return codes, unknown, null


def _numbers(spec: Input, values: Values) -> NDArray[np.float64]:
    if isinstance(values, np.ndarray) and (
        values.dtype.kind in "fiu" or (values.dtype.kind == "b" and spec.type == "boolean")
    ):
        numbers = values.astype(np.float64)
    else:
        numbers = _listed(spec, values.tolist() if isinstance(values, np.ndarray) else values)
    known = ~np.isnan(numbers)
    _every(spec, values, ~known | (np.abs(numbers) <= LARGEST), "a number that 32-bit floating point can hold")
    if spec.type == "integer":
        _every(spec, values, ~known | (numbers == np.floor(numbers)), "a whole number")
    elif spec.type == "boolean":
        _every(spec, values, ~known | (numbers == 0) | (numbers == 1), "true or false")
    return numbers


def _listed(spec: Input, values: Sequence[Any]) -> NDArray[np.float64]:
    allowed = _PYTHON[spec.type]
    numbers = np.empty(len(values))
    for row, value in enumerate(values):
        if value is None:
            numbers[row] = math.nan
        elif isinstance(value, allowed) and (spec.type == "boolean" or not isinstance(value, bool)):
            try:
                numbers[row] = float(value)
            except OverflowError:  # an int beyond float64
                raise _wrong(spec, "a huge number", row, "a number that 32-bit floating point can hold") from None
        else:
            raise _wrong(spec, value, row, "true or false" if spec.type == "boolean" else "a number")
    return numbers


def _every(spec: Input, values: Values, fine: NDArray[np.bool_], wanted: str) -> None:
    if not fine.all():
        row = int(np.argmin(fine))
        raise _wrong(spec, values[row], row, wanted)


def _wrong(spec: Input, value: Any, row: int, wanted: str) -> Invalid:
    return Invalid(
        f"{spec.name} in row {row} is {str(value)[:40]!r} ({type(value).__name__}), not {wanted}",
        hint=f"{spec.name} is of type {spec.type}: send {wanted}, or null",
        code="wrong_input_type",
        details={"input": spec.name, "row": row},
    )


def _refusal(spec: Input, value: Any, row: int) -> Invalid:
    if isinstance(value, str):
        return Invalid(
            f"{spec.name} in row {row} is {value[:40]!r}, which the model has never seen",
            hint=f"send one of the {len(spec.categories)} categories that the contract lists",
            code="unknown_category",
            details={"input": spec.name, "row": row},
        )
    return Invalid(
        f"{spec.name} in row {row} is null, and the model cannot do without it",
        hint=f"send a value for {spec.name}, or train a model that accepts nulls",
        code="null_refused",
        details={"input": spec.name, "row": row},
    )
