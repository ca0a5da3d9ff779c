"""What the sandbox process does with a stranger's model: convert it, or let it answer. See `entrypoints.sandbox`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from falaj.kernel.errors import Invalid
from falaj.lifecycle.training.model import Input, ModelContract
from falaj.lifecycle.training.steps.contract import LoadedModel
from falaj.lifecycle.training.steps.foreign.originals import Columns, Original, Place, Scores, open_original

SOURCE, ADAPTED = "source", "adapted.onnx"
"""In the folder that is given: the model as it came, and the graph that shall serve."""


class Asked(msgspec.Struct, frozen=True):
    """What is asked. `do`: convert (answer: a `Foreign`, and ONNX bytes) or score (answer: `Scored`).

    `columns` are raw values by feature; `contract` is that of the graph that shall serve; `score` names the original's output.
    """

    do: str
    kind: str
    columns: dict[str, list[Any]] = {}
    contract: ModelContract | None = None
    score: str = ""


class Scored(msgspec.Struct, frozen=True):
    """The original's answers, a list a row, empty for a row that it cannot answer."""

    native: tuple[tuple[float, ...], ...]


def work(task: dict[str, Any], folder: Path, confined: bool) -> tuple[dict[str, Any], bytes]:
    """Do what is asked; returns the answer's header and its bytes. Raises `Invalid`, `Denied`; anything else that the model raises is a refusal too."""
    asked = msgspec.convert(task, Asked)
    original = open_original(Place(folder / SOURCE, confined, asked.score), asked.kind)
    if asked.do == "convert":
        found: dict[str, Any] = msgspec.to_builtins(original.found)
        return found, original.graph()
    if asked.contract is None:
        raise Invalid("no contract was given", hint="upgrade", code="no_contract")
    _try(folder, asked.contract, asked.columns)
    native = _answers(original, asked.columns, asked.contract.inputs)
    scored: dict[str, Any] = msgspec.to_builtins(Scored(native))
    return scored, b""


def _try(folder: Path, contract: ModelContract, columns: Columns) -> None:
    """Load the new graph and let it answer: what it takes, it takes here first."""
    model = LoadedModel(contract, (folder / ADAPTED).read_bytes())
    model.run(model.encoder.encode(columns))


def _answers(original: Original, columns: Columns, inputs: tuple[Input, ...]) -> tuple[tuple[float, ...], ...]:
    """All rows at once; where that fails, one by one, so that one bad row does not hide the others."""
    rows = len(next(iter(columns.values())))
    try:
        return _finite(original.scores(columns, inputs))
    except Exception:  # any library, any error: some row could not be answered
        found: list[tuple[float, ...]] = []
        for row in range(rows):
            one = {name: values[row : row + 1] for name, values in columns.items()}
            try:
                found += _finite(original.scores(one, inputs))
            except Exception:  # as above: this is the row
                found.append(())
        return tuple(found)


def _finite(scores: Scores) -> tuple[tuple[float, ...], ...]:
    return tuple(tuple(map(float, row)) if np.isfinite(row).all() else () for row in scores)
