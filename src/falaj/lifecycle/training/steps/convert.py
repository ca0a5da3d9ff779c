"""Estimator → ONNX, with the same numbers out.

The graph reads one float32 tensor [rows, features]. Three ways in which converted trees go wrong are
dealt with here; whatever else goes wrong is caught by the parity gate:

- LightGBM and HistGradientBoosting compare with float64 thresholds. Rounding a threshold to the nearest
  float32 moves rows that sit exactly on it to the other side, so thresholds are rounded down first:
  for float32 x, `x <= t` is the same as `x <= floor32(t)`.
- scikit-learn's HistGradientBoosting with native categories converts to a graph that is silently
  wrong; it is refused.
- LightGBM's own category lists must be the frozen ones, or codes would mean different things.
"""

from __future__ import annotations

import copy
import logging
import re
import warnings
from collections.abc import Mapping
from typing import Any

import lightgbm
import numpy as np
import onnx
import onnxmltools
import skl2onnx
from numpy.typing import NDArray
from onnxmltools.convert.common.data_types import FloatTensorType as LightGBMTensor
from onnxmltools.convert.lightgbm.operator_converters.LightGbm import convert_lightgbm
from skl2onnx.common.data_types import FloatTensorType, StringTensorType
from skl2onnx.common.shape_calculator import calculate_linear_classifier_output_shapes as classifier_shapes
from skl2onnx.common.shape_calculator import calculate_linear_regressor_output_shapes as regressor_shapes
from sklearn.compose import ColumnTransformer

from falaj.kernel.errors import Invalid
from falaj.lifecycle.training.model import Input
from falaj.lifecycle.training.steps.native import booster_of, library_of

OPSET = {"": 18, "ai.onnx.ml": 3}
LIGHTGBM_OPSET = 15  # the newest that onnxmltools takes for LightGBM

_SIZES = re.compile(r"^tree_sizes=.*\n", re.MULTILINE)  # byte counts that no longer hold; optional in the format
_THRESHOLDS = re.compile(r"^threshold=(.*)$", re.MULTILINE)


def to_onnx(
    estimator: Any, name: str, tensor: str, inputs: tuple[Input, ...], *, text: bool = False
) -> onnx.ModelProto:
    """Convert a fitted LightGBM or scikit-learn estimator, or a scikit-learn pipeline.

    With `text` the graph keeps one input a column, and a category comes as its text. Raises `Invalid` for what cannot be
    expressed, with the converter's own reason.
    """
    library = library_of(estimator)
    if library not in ("lightgbm", "sklearn"):
        raise _unconvertible(estimator, f"{library} is not known here")
    _refuse_native_categories(estimator)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the converters warn about their own deprecations
            quiet = logging.getLogger("skl2onnx")
            quiet.setLevel(logging.ERROR)
            if library == "lightgbm":
                graph = _lightgbm(estimator, name, tensor, inputs)
            else:
                graph = _sklearn(estimator, name, tensor, inputs, text)
    except Invalid:
        raise
    except Exception as e:  # the converters raise whatever their inner libraries raise
        raise _unconvertible(
            estimator, str(e).strip().splitlines()[0][:300] if str(e).strip() else type(e).__name__
        ) from e
    _free_rows(graph)
    opsets = sorted(graph.opset_import, key=lambda o: o.domain)  # a converter may list them in the order of a set
    del graph.opset_import[:]
    graph.opset_import.extend(opsets)
    graph.producer_name, graph.producer_version, graph.doc_string = "falaj", "", ""
    onnx.checker.check_model(graph)
    return graph


def _unconvertible(estimator: object, why: str) -> Invalid:
    return Invalid(
        f"{type(estimator).__name__} cannot be converted to ONNX: {why}",
        hint="return a LightGBM or scikit-learn estimator, or a scikit-learn pipeline of steps that skl2onnx supports",
        code="not_convertible",
    )


def _lightgbm(estimator: Any, name: str, tensor: str, inputs: tuple[Input, ...]) -> onnx.ModelProto:
    lists = getattr(booster_of(estimator), "pandas_categorical", None)
    frozen = [list(i.categories) for i in inputs if i.type == "category"]
    if lists and [list(c) for c in lists] != frozen:
        raise Invalid(
            "LightGBM was trained on other categories than the ones that were frozen",
            hint="hand data.pandas().features to LightGBM as they are, without casting the categorical columns",
            code="other_categories",
        )
    graph: onnx.ModelProto = onnxmltools.convert_lightgbm(
        _rounded_down(estimator),
        name=name,
        initial_types=[(tensor, LightGBMTensor([None, len(inputs)]))],
        target_opset=LIGHTGBM_OPSET,
        zipmap=False,
    )
    return graph


def _rounded_down(estimator: Any) -> Any:
    """A copy of boosted trees whose thresholds are float32 numbers, none above the original."""
    shallow: Any = estimator if isinstance(estimator, lightgbm.Booster) else copy.copy(estimator)
    if library_of(estimator) == "lightgbm":
        text = _SIZES.sub("", booster_of(estimator).model_to_string())
        lowered = _THRESHOLDS.sub(lambda m: "threshold=" + " ".join(map(repr, _floor32(m[1].split()).tolist())), text)
        if isinstance(estimator, lightgbm.Booster):
            return lightgbm.Booster(model_str=lowered)
        shallow._Booster = lightgbm.Booster(model_str=lowered)
    elif type(estimator).__name__.startswith("HistGradientBoosting"):
        shallow._predictors = copy.deepcopy(estimator._predictors)
        for tree in (tree for iteration in shallow._predictors for tree in iteration):
            tree.nodes["num_threshold"] = _floor32(tree.nodes["num_threshold"])
    return shallow


def _floor32(numbers: Any) -> NDArray[np.float64]:
    """Each number, or the next float32 below it."""
    exact = np.asarray(numbers, dtype=np.float64)
    limit = np.finfo(np.float32).max
    near = np.clip(exact, -limit, limit).astype(np.float32)
    low = np.where(near.astype(np.float64) > exact, np.nextafter(near, np.float32(-np.inf)), near)
    return low.astype(np.float64)


def _sklearn(estimator: Any, name: str, tensor: str, inputs: tuple[Input, ...], text: bool) -> onnx.ModelProto:
    _register_lightgbm()
    last = estimator.steps[-1] if hasattr(estimator, "steps") else None
    if last is None:
        estimator = _rounded_down(estimator)
    else:
        estimator = copy.copy(estimator)
        estimator.steps = [*estimator.steps[:-1], (last[0], _rounded_down(last[1]))]
    named = text or _by_name(estimator)
    kinds = [StringTensorType if text and i.type == "category" else FloatTensorType for i in inputs]
    types = (
        [(i.name, kind([None, 1])) for i, kind in zip(inputs, kinds, strict=True)]
        if named
        else [(tensor, FloatTensorType([None, len(inputs)]))]
    )
    options = {id(estimator): {"zipmap": False}} if hasattr(estimator, "classes_") else None
    graph: onnx.ModelProto = skl2onnx.convert_sklearn(
        estimator, name=name, initial_types=types, target_opset=OPSET, options=options
    )
    if named and not text:
        _join_inputs(graph, tensor, [i.name for i in inputs])
    return graph


def _register_lightgbm() -> None:
    for cls, alias, shapes in (
        (lightgbm.LGBMClassifier, "LightGbmLGBMClassifier", classifier_shapes),
        (lightgbm.LGBMRegressor, "LightGbmLGBMRegressor", regressor_shapes),
    ):
        options: Mapping[str, Any] = (
            {"nocl": [True, False], "zipmap": [True, False, "columns"]} if shapes is classifier_shapes else {}
        )
        skl2onnx.update_registered_converter(
            cls, alias, shapes, convert_lightgbm, overwrite=True, options=dict(options)
        )


def _steps(estimator: Any) -> list[Any]:
    """An estimator and everything inside it."""
    inner = [step for _, step in getattr(estimator, "steps", None) or ()]
    if isinstance(estimator, ColumnTransformer):
        inner += [step for _, step, _ in estimator.transformers_ if not isinstance(step, str)]
    if hasattr(estimator, "estimator") and hasattr(estimator.estimator, "get_params"):
        inner.append(estimator.estimator)
    return [estimator, *(s for step in inner for s in _steps(step))]


def _by_name(estimator: Any) -> bool:
    """Whether a column transformer picks its columns by name."""
    return any(
        isinstance(column, str)
        for step in _steps(estimator)
        if isinstance(step, ColumnTransformer)
        for _, _, columns in step.transformers
        for column in ([columns] if isinstance(columns, str) else columns if isinstance(columns, (list, tuple)) else [])
    )


def _refuse_native_categories(estimator: Any) -> None:
    for step in _steps(estimator):
        if (
            type(step).__name__.startswith("HistGradientBoosting")
            and getattr(step, "is_categorical_", None) is not None
        ):
            raise Invalid(
                f"{type(step).__name__} with its own categories has no faithful ONNX form",
                hint="train it on data.numpy() or data.pandas(codes=True), where categories are codes, or use LightGBM",
                code="not_convertible",
            )


def _join_inputs(graph: onnx.ModelProto, tensor: str, names: list[str]) -> None:
    """Replace one input a column by one tensor that is split into its columns."""
    used = {i.name for i in graph.graph.input}
    del graph.graph.input[:]
    graph.graph.input.append(onnx.helper.make_tensor_value_info(tensor, onnx.TensorProto.FLOAT, [None, len(names)]))
    outputs = [name if name in used else f"{name}_unused" for name in names]
    if len(names) == 1:
        node = onnx.helper.make_node("Identity", [tensor], outputs, name="falaj_columns")
    else:
        sizes = onnx.helper.make_tensor("falaj_sizes", onnx.TensorProto.INT64, [len(names)], [1] * len(names))
        graph.graph.initializer.append(sizes)
        node = onnx.helper.make_node("Split", [tensor, "falaj_sizes"], outputs, name="falaj_columns", axis=1)
    graph.graph.node.insert(0, node)


def _free_rows(graph: onnx.ModelProto) -> None:
    """Declare the number of rows as open in inputs and outputs; LightGBM's converter fixes the label's to 1."""
    for value in (*graph.graph.input, *graph.graph.output):
        shape = value.type.tensor_type.shape
        if shape.dim:
            shape.dim[0].Clear()
            shape.dim[0].dim_param = "rows"
