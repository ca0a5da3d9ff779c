"""One version's try at one request: what it read, what came out, what was wrong with that."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import msgspec
from numpy.typing import NDArray

from falaj.kernel.errors import FalajError
from falaj.lifecycle.serving.plane.enrich import NOTHING, Features, OnlineValues, look_up
from falaj.lifecycle.serving.plane.journal import not_finite
from falaj.lifecycle.serving.plane.loading import Version
from falaj.lifecycle.serving.plane.protocol import InferRequest, read_columns
from falaj.lifecycle.serving.plane.watching import ERROR, FINE, NON_FINITE
from falaj.lifecycle.training.encoding import Matrix

Arrays = Mapping[str, NDArray[Any]]


class Read(msgspec.Struct, frozen=True, gc=False):
    """A request as a version reads it: the rows, the caller's values, what was looked up."""

    rows: int
    columns: dict[str, list[Any]]
    features: Features


UNREAD = Read(0, {}, NOTHING)


class Attempt(msgspec.Struct, frozen=True, gc=False):
    """What a version made of a request. Without a failure `code` is FINE and `outputs` are complete."""

    version: Version
    read: Read
    arrays: Arrays
    outputs: dict[str, list[Any]]
    failure: str = ""
    code: int = FINE


def read(version: Version, request: InferRequest, store: OnlineValues, moment: int) -> Read:
    """Raises `Invalid` for what the version does not take, `Unavailable` when the store cannot be read."""
    rows, columns = read_columns(version.wanted, version.required, request.inputs)
    return Read(rows, columns, look_up(store, version.contract, columns, moment))


def matrix_of(version: Version, seen: Read) -> Matrix:
    """Raises `Invalid` for values that the version does not take."""
    values = seen.features.values
    return version.matrix(seen.rows, {**seen.columns, **values} if values else seen.columns)


def judged(version: Version, seen: Read, arrays: Arrays) -> Attempt:
    """The attempt that gave these answers."""
    outputs = {name: array.tolist() for name, array in arrays.items()}
    failure = _not_finite(outputs)
    return Attempt(version, seen, arrays, {} if failure else outputs, failure, NON_FINITE if failure else FINE)


def failed(version: Version, seen: Read, error: BaseException, code: int = ERROR) -> Attempt:
    """The attempt that ended with an error."""
    why = error.message if isinstance(error, FalajError) else f"{type(error).__name__}: {error}"
    return Attempt(version, seen, {}, {}, f"it failed: {why}"[:300], code)


def _not_finite(outputs: Mapping[str, list[Any]]) -> str:
    for name, values in outputs.items():
        for value in values:
            for item in value if type(value) is list else (value,):
                if type(item) is float and not math.isfinite(item):
                    return not_finite(name)
    return ""
