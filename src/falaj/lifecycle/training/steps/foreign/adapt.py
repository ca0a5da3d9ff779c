"""A stranger's graph → one float32 tensor in, probabilities and the place of the class, or the value, out.

What the graph computes in between is left as it is. In front of it stand the operators that give each of its inputs its column in
its own type (a category as text again); behind it those that leave the probabilities of all classes in the contract's order.
"""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from falaj.kernel.errors import Invalid
from falaj.lifecycle.training.model import TENSOR, Input, Output
from falaj.lifecycle.training.steps.foreign.contract import Agreed
from falaj.lifecycle.training.steps.foreign.originals import IR_VERSION, Foreign

_NUMBERS: dict[int, str] = {
    TensorProto.FLOAT: "float", TensorProto.DOUBLE: "float", TensorProto.INT64: "integer", TensorProto.INT32: "integer",
    TensorProto.BOOL: "boolean",
}  # fmt: skip
_LABELS = ("classlabels_int64s", "classlabels_ints", "classlabels_strings")
_NEVER = "falaj:none of them"
SCORES, CLASS = "falaj_scores", "falaj_class"


class Adapted(msgspec.Struct, frozen=True):
    """The graph that shall serve. `score` is the original's output that it is made from; `strict` are inputs that take no null."""

    graph: bytes
    tensor: str
    score: str
    outputs: tuple[Output, ...]
    strict: tuple[str, ...]
    how: str


def described(model: onnx.ModelProto, found: Foreign) -> Foreign:
    """What a graph says beside what came with it: names and types of its inputs, classes, the task where they give it."""
    inputs = _inputs(model)
    names, types, width = found.names, dict(found.types), found.width
    if len(inputs) > 1 or (len(inputs) == 1 and _width(inputs[0]) == 1):
        names = names or tuple(i.name for i in inputs)
        kinds = (_NUMBERS.get(i.type.tensor_type.elem_type, "category") for i in inputs)
        types = dict(zip(names, kinds, strict=False)) | types
        width = len(inputs)
    elif inputs:
        width = _width(inputs[0]) or width
        kind = _NUMBERS.get(inputs[0].type.tensor_type.elem_type, "")
        if kind not in ("", "float"):
            types = dict.fromkeys(names, kind) | types
    classes = found.classes or _labels(model)
    task = found.task or ({0: "", 2: "binary"}.get(len(classes), "multiclass"))
    text = any(i.type.tensor_type.elem_type == TensorProto.STRING for i in inputs)
    return msgspec.structs.replace(
        found, names=names, types=types, width=width, classes=classes, task=task, text=found.text or text
    )


def adapt(model: onnx.ModelProto, agreed: Agreed) -> Adapted:
    """Make the graph that serves; `model` is changed. Raises `Invalid` for inputs and outputs that cannot be understood."""
    graph = model.graph
    _unmapped(graph)
    score = _score(graph)
    strict = tuple(_strict(_inputs(model), agreed.inputs))
    before = len(graph.node)
    tensor = _feed(model, agreed.inputs)
    joined = len(graph.node) > before
    _answer(graph, agreed, score)
    for value in (*graph.input, *graph.output):
        if value.type.tensor_type.shape.dim:
            first = value.type.tensor_type.shape.dim[0]
            first.Clear()
            first.dim_param = "rows"
    del graph.value_info[:]
    model.ir_version = min(model.ir_version, IR_VERSION)
    model.producer_name, model.producer_version, model.doc_string = "falaj", "", ""
    del model.metadata_props[:]
    how = "its inputs joined into one tensor" if joined else "its inputs as they were"
    return Adapted(model.SerializeToString(deterministic=True), tensor, score.name, _outputs(agreed), strict, how)


def _inputs(model: onnx.ModelProto) -> list[onnx.ValueInfoProto]:
    initial = {t.name for t in model.graph.initializer}
    return [i for i in model.graph.input if i.name not in initial]


def _width(value: onnx.ValueInfoProto) -> int:
    """How many columns an input has: 1 for a vector, 0 where the graph does not say."""
    shape = value.type.tensor_type.shape.dim
    return 1 if len(shape) == 1 else int(shape[1].dim_value) if len(shape) == 2 else 0


def _labels(model: onnx.ModelProto) -> tuple[str, ...]:
    """The classes that a classifier in the graph names, if all that name any agree."""
    found = {
        tuple(v.decode("utf-8", "replace") if isinstance(v, bytes) else str(v) for v in helper.get_attribute_value(a))
        for node in model.graph.node
        for a in node.attribute
        if a.name in _LABELS
    } - {()}
    return found.pop() if len(found) == 1 else ()


# in front


def _feed(model: onnx.ModelProto, inputs: tuple[Input, ...]) -> str:
    """Let the graph read one tensor; returns its name. Where it does already, nothing is added."""
    given = _inputs(model)
    wide = len(given) == 1 and len(given[0].type.tensor_type.shape.dim) == 2
    if wide and given[0].type.tensor_type.elem_type == TensorProto.FLOAT and _width(given[0]) in (0, len(inputs)):
        return str(given[0].name)
    columns = [len(inputs)] if wide and _width(given[0]) in (0, len(inputs)) else [1] * len(given)
    if sum(columns) != len(inputs) or not given:
        raise _not_understood(f"it reads {len(given)} inputs, and {len(inputs)} features are named")
    if len(given) < len(inputs) and given[0].type.tensor_type.elem_type == TensorProto.STRING:
        raise _not_understood("it reads several texts as one tensor, and each has categories of its own")
    graph, nodes, parts = model.graph, [], [f"falaj_column_{n}" for n in range(len(given))]
    if len(parts) > 1:
        graph.initializer.append(numpy_helper.from_array(np.array(columns, np.int64), "falaj_sizes"))
        nodes.append(helper.make_node("Split", [TENSOR, "falaj_sizes"], parts, axis=1))
        if _opset(model) < 13:
            raise _not_understood("its opset is older than 13 and it reads several inputs")
    else:
        nodes.append(helper.make_node("Identity", [TENSOR], parts))
    for n, value in enumerate(given):
        nodes += _column(model, parts[n], value, inputs[n])
    kept = [v for v in graph.input if v not in given]
    del graph.input[:]
    graph.input.append(helper.make_tensor_value_info(TENSOR, TensorProto.FLOAT, [None, len(inputs)]))
    graph.input.extend(kept)
    body = list(graph.node)
    del graph.node[:]
    graph.node.extend([*nodes, *body])
    return TENSOR


def _column(model: onnx.ModelProto, part: str, value: onnx.ValueInfoProto, feature: Input) -> list[onnx.NodeProto]:
    """One of the graph's inputs from its columns of the tensor."""
    kind, nodes, at = value.type.tensor_type.elem_type, [], part
    if kind == TensorProto.STRING:
        if feature.type != "category":
            raise _not_understood(f"{value.name} is text to it, and {feature.name} is {feature.type}")
        codes = [float(n) for n in range(len(feature.categories))]
        nodes.append(
            helper.make_node(
                "LabelEncoder", [at], [f"{part}_text"], domain="ai.onnx.ml", keys_floats=codes,
                values_strings=list(feature.categories), default_string=_NEVER,
            )
        )  # fmt: skip
        at = f"{part}_text"
        _need_ml(model)
    elif kind != TensorProto.FLOAT:
        nodes.append(helper.make_node("Cast", [at], [f"{part}_cast"], to=kind))
        at = f"{part}_cast"
    if len(value.type.tensor_type.shape.dim) == 1:
        model.graph.initializer.append(numpy_helper.from_array(np.array([-1], np.int64), f"{part}_flat"))
        nodes.append(helper.make_node("Reshape", [at, f"{part}_flat"], [value.name]))
    else:
        nodes.append(helper.make_node("Identity", [at], [value.name]))
    return nodes


def _strict(given: list[onnx.ValueInfoProto], inputs: tuple[Input, ...]) -> list[str]:
    """The features whose type in the graph has no null."""
    kinds = [i.type.tensor_type.elem_type for i in given]
    each = kinds if len(kinds) == len(inputs) else kinds[:1] * len(inputs)
    return [
        i.name for i, kind in zip(inputs, each, strict=False) if kind not in (TensorProto.FLOAT, TensorProto.DOUBLE)
    ]


def _need_ml(model: onnx.ModelProto) -> None:
    own = next((o for o in model.opset_import if o.domain == "ai.onnx.ml"), None)
    if own is None:
        model.opset_import.append(helper.make_opsetid("ai.onnx.ml", 3))
    elif own.version < 2:  # in which only the operator itself changed
        if any(n.op_type == "LabelEncoder" for n in model.graph.node):
            raise _not_understood("its opset of ai.onnx.ml is older than 2 and it encodes labels")
        own.version = 2


def _opset(model: onnx.ModelProto) -> int:
    return next((int(o.version) for o in model.opset_import if o.domain in ("", "ai.onnx")), 0)


# behind


def _unmapped(graph: onnx.GraphProto) -> None:
    """Take off the operators that turn probabilities into maps by class; the output keeps its name."""
    ends = {o.name for o in graph.output}
    maps = [n for n in graph.node if n.op_type == "ZipMap" and n.output and n.output[0] in ends]
    for node in maps:
        name, source = node.output[0], node.input[0]
        graph.node.remove(node)
        graph.node.append(helper.make_node("Identity", [source], [name]))
        output = next(o for o in graph.output if o.name == name)
        output.CopyFrom(helper.make_tensor_value_info(name, TensorProto.FLOAT, [None, None]))


def _score(graph: onnx.GraphProto) -> onnx.ValueInfoProto:
    """The one output with numbers."""
    real = (TensorProto.FLOAT, TensorProto.DOUBLE)
    found = [o for o in graph.output if o.type.tensor_type.elem_type in real]
    found = [o for o in found if o.name.startswith("prob")] or found if len(found) > 1 else found
    if len(found) != 1:
        names = ", ".join(f"{o.name}" for o in graph.output)[:200]
        raise _not_understood(f"{len(found)} of its outputs ({names}) are numbers, and one must be")
    return found[0]


def _answer(graph: onnx.GraphProto, agreed: Agreed, score: onnx.ValueInfoProto) -> None:
    """End the graph with what the contract promises."""
    rank, width = len(score.type.tensor_type.shape.dim), _width(score)
    at = score.name
    nodes: list[onnx.NodeProto] = []

    def then(kind: str, inputs: list[str], **attributes: Any) -> None:
        nonlocal at
        name = f"falaj_end_{len(nodes)}"
        nodes.append(helper.make_node(kind, inputs, [name], **attributes))
        at = name

    def constant(name: str, value: Any) -> str:
        graph.initializer.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    if score.type.tensor_type.elem_type == TensorProto.DOUBLE:
        then("Cast", [at], to=TensorProto.FLOAT)
    wide = 1
    if agreed.task == "regression":
        if width > 1:
            raise _not_understood(f"it answers {width} values a row, and a regression has one")
        then("Reshape", [at, constant("falaj_one_column", np.array([-1, 1], np.int64))])
    else:
        wide = len(agreed.classes)
        if agreed.task == "binary" and width == 1:
            then("Reshape", [at, constant("falaj_one_column", np.array([-1, 1], np.int64))])
            chance = at
            then("Sub", [constant("falaj_whole", np.array(1, np.float32)), chance])
            then("Concat", [at, chance], axis=1)
        elif width not in (0, wide) or rank not in (0, 2):
            raise _not_understood(f"it answers {width} numbers a row, and there are {wide} classes")
        if agreed.task == "binary" and agreed.positive == 0:
            then("Gather", [at, constant("falaj_order", np.array([1, 0], np.int64))], axis=1)
    nodes.append(helper.make_node("Identity", [at], [SCORES]))
    outputs = [helper.make_tensor_value_info(SCORES, TensorProto.FLOAT, [None, wide])]
    if agreed.task != "regression":
        nodes.append(helper.make_node("ArgMax", [SCORES], [CLASS], axis=1, keepdims=0))
        outputs.append(helper.make_tensor_value_info(CLASS, TensorProto.INT64, [None]))
    graph.node.extend(nodes)
    del graph.output[:]
    graph.output.extend(outputs)


def _outputs(agreed: Agreed) -> tuple[Output, ...]:
    return {
        "binary": (Output("probability", "FP32", SCORES, column=1), Output("class", "INT64", CLASS)),
        "multiclass": (Output("probabilities", "FP32", SCORES), Output("class", "INT64", CLASS)),
        "regression": (Output("value", "FP32", SCORES, column=0),),
    }[agreed.task]


def _not_understood(why: str) -> Invalid:
    return Invalid(
        f"the graph cannot be adapted: {why}",
        hint="export it with one float input of shape [rows, features], or one input a feature, and its probabilities as output",
        code="graph_not_adaptable",
    )
