"""The contract of a trained model, and the model read back with the session that will judge it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
import onnxruntime
import polars as pl
from numpy.typing import NDArray

from falaj.kernel.digests import canonical_json
from falaj.kernel.errors import Invalid
from falaj.lifecycle.training.encoding import Encoder, Matrix, decode
from falaj.lifecycle.training.model import CONTRACT_FILE, Input, ModelContract, Output, TrainingSpec
from falaj.lifecycle.training.steps.split import raw_columns

MODEL_FILE = "model.onnx"


def contract_for(
    spec: TrainingSpec, inputs: tuple[Input, ...], classes: tuple[str, ...], graph: onnx.ModelProto
) -> ModelContract:
    """The contract: outputs are found by their type and rank, never by a converter's naming."""
    label = value = ""
    for output in graph.graph.output:
        kind = output.type.tensor_type.elem_type
        if kind == onnx.TensorProto.INT64:
            label = output.name
        elif kind == onnx.TensorProto.FLOAT:
            value = output.name
    if not value or (classes and not label):
        raise Invalid(
            f"the converted model answers with {', '.join(o.name for o in graph.graph.output)}, which is not its task's answer",
            hint=f"return an estimator for the task {spec.task}",
            code="not_convertible",
        )
    outputs, score = {
        "binary": ((Output("probability", "FP32", value, column=1), Output("class", "INT64", label)), "probability"),
        "multiclass": ((Output("probabilities", "FP32", value), Output("class", "INT64", label)), "probabilities"),
        "regression": ((Output("value", "FP32", value, column=0),), "value"),
    }[spec.task]
    return ModelContract(
        model=spec.model,
        task=spec.task,
        inputs=inputs,
        keys=spec.keys,
        views=spec.views,
        outputs=outputs,
        score=score,
        classes=classes,
        label=spec.label,
        purpose=spec.purpose,
    )


def write_model(folder: Path, contract: ModelContract, graph: bytes) -> None:
    """Lay graph and contract into a model folder, which is made; the same two leave the same bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / MODEL_FILE).write_bytes(graph)
    (folder / CONTRACT_FILE).write_bytes(msgspec.json.format(canonical_json(contract), indent=1) + b"\n")


class LoadedModel:
    """A model folder, ready to answer: its contract and an ONNX Runtime session on one thread."""

    def __init__(self, contract: ModelContract, graph: bytes) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self.contract = contract
        self.graph = graph
        self.encoder = Encoder(contract.inputs)
        self._session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])

    @classmethod
    def read(cls, folder: Path) -> LoadedModel:
        """Load a folder that holds `model.onnx` and `signature.json`. Raises `Invalid` for a contract that cannot be read."""
        try:
            contract = msgspec.json.decode((folder / CONTRACT_FILE).read_bytes(), type=ModelContract)
        except (OSError, msgspec.MsgspecError) as e:
            raise Invalid(
                f"{CONTRACT_FILE} cannot be read: {e}", hint="train the model again", code="unreadable_contract"
            ) from None
        return cls(contract, (folder / MODEL_FILE).read_bytes())

    def accepts(self, frame: pl.DataFrame) -> NDArray[np.bool_]:
        """For each raw row, whether the contract takes it: a mask of shape [rows]."""
        return self.encoder.accepts(raw_columns(frame, self.contract.inputs))

    def answers(self, frame: pl.DataFrame) -> dict[str, NDArray[Any]]:
        """The named answers for raw rows, each of shape [rows] or [rows, width]. Raises what `Encoder.encode` raises."""
        return self.run(self.encoder.encode(raw_columns(frame, self.contract.inputs)))

    def run(self, matrix: Matrix) -> dict[str, NDArray[Any]]:
        """The named answers for an encoded matrix of shape [rows, inputs]."""
        names = sorted({o.tensor for o in self.contract.outputs})
        tensors = self._session.run(names, {self.contract.tensor: matrix})
        return decode(self.contract, dict(zip(names, tensors, strict=True)))
