"""One row, encoded fast."""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping
from typing import Any

import numpy as np

from falaj.lifecycle.training.encoding import Encoder, Matrix

_FLOAT32 = 3.4028234663852886e38


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
        self._pack = struct.Struct(f"={len(self._inputs)}f").pack

    def encode(self, columns: Mapping[str, list[Any]]) -> Matrix:
        """A matrix of shape [1, inputs]. Raises like `Encoder.encode`."""
        row: list[float] = []
        for name, number, table, kind, refuse_null in self._inputs:
            value = columns[name][0]
            if number and type(value) is float and -_FLOAT32 <= value <= _FLOAT32:
                row.append(value)
                continue
            read: float | None
            if value is None:
                read = None if refuse_null else math.nan
            elif number:
                read = None
            else:
                read = table.get(value) if kind == "category" and type(value) is str else _whole(value, kind)
            if read is None:
                return self._encoder.encode(columns)
            row.append(read)
        return np.frombuffer(self._pack(*row), np.float32).reshape(1, -1)


def _whole(value: Any, kind: str) -> float | None:
    """A plain integer or boolean; None for anything that the encoder must look at."""
    if kind == "integer":
        return float(value) if type(value) is int and -(1 << 63) <= value < 1 << 63 else None
    return float(value) if kind == "boolean" and (value is True or value is False) else None
