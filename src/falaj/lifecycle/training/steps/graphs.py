"""Which ONNX graphs are allowed: standard operators, all their data inside, nothing that runs for ever."""

from __future__ import annotations

from collections.abc import Iterator

import onnx

from falaj.kernel.errors import Invalid

DOMAINS = ("", "ai.onnx", "ai.onnx.ml")
OLDEST_OPSET = 7
_MOST_NODES = 100_000
_ENDLESS = ("Loop",)  # nothing bounds how often it runs


def problems(model: onnx.ModelProto) -> list[str]:
    """What is not allowed in a graph, in words."""
    found = [f"operators of {o.domain!r} are not allowed" for o in model.opset_import if o.domain not in DOMAINS]
    if model.functions:
        found.append(f"{len(model.functions)} functions are defined inside the graph")
    for graph in graphs(model.graph):
        found += [
            f"operator {node.domain}:{node.op_type} is not a standard one" for node in graph.node if not standard(node)
        ]
        found += [
            f"tensor {tensor.name} keeps its data outside the graph" for tensor in tensors(graph) if outside(tensor)
        ]
    return found


def read_graph(data: bytes) -> onnx.ModelProto:
    """A graph from a stranger's bytes, if it is allowed. Raises `Invalid` (onnx_not_allowed) with every reason.

    No other file is opened: whatever names one is refused before the checker sees it.
    """
    try:
        model = onnx.ModelProto()
        model.ParseFromString(data)
    except Exception as e:  # protobuf's errors differ by implementation; all mean: no such message
        raise not_allowed([f"it is not an ONNX model ({type(e).__name__})"]) from e
    if not model.graph.node:
        raise not_allowed(["it is not an ONNX model: it has no operator"])
    found = problems(model)
    opsets = {("" if o.domain == "ai.onnx" else o.domain): o.version for o in model.opset_import}
    newest = onnx.defs.onnx_opset_version()
    if not OLDEST_OPSET <= opsets.get("", newest) <= newest:
        found.append(f"opset {opsets.get('', 0)} is not between {OLDEST_OPSET} and {newest}")
    if model.training_info:
        found.append("it holds training information")
    nodes = [node for graph in graphs(model.graph) for node in graph.node]
    if len(nodes) > _MOST_NODES:
        found.append(f"it has {len(nodes):,} operators, more than {_MOST_NODES:,}")
    found += sorted({f"operator {n.op_type} may never end" for n in nodes if n.op_type in _ENDLESS})
    if found:
        raise not_allowed(found)
    try:
        onnx.checker.check_model(model, full_check=True)
    except Exception as e:  # checker and shape inference each have their own; all mean: not a sound graph
        first = str(e).strip().splitlines()[0][:200] if str(e).strip() else type(e).__name__
        raise not_allowed([f"it is not a sound graph: {first}"]) from e
    return model


def not_allowed(found: list[str]) -> Invalid:
    """The refusal of a graph, with the reasons."""
    more = f" and {len(found) - 5} more" if len(found) > 5 else ""
    return Invalid(
        f"the ONNX model is not allowed: {'; '.join(f[:200] for f in found[:5])}{more}",
        hint="export it again with standard operators only and its weights inside (save_as_external_data=False)",
        code="onnx_not_allowed",
        details={"problems": [f[:200] for f in found[:50]]},
    )


def standard(node: onnx.NodeProto) -> bool:
    """Whether an operator is one that the standard defines."""
    domain = "" if node.domain == "ai.onnx" else node.domain
    return domain in DOMAINS and bool(onnx.defs.has(node.op_type, domain))


def outside(tensor: onnx.TensorProto) -> bool:
    """Whether a tensor's data lie in another file."""
    return tensor.data_location == onnx.TensorProto.EXTERNAL or bool(tensor.external_data)


def graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """A graph and all those inside it."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            for inner in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
                yield from graphs(inner)


def tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    """The tensors of one graph, wherever they stand in it."""
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            if attribute.HasField("sparse_tensor"):
                yield from (attribute.sparse_tensor.values, attribute.sparse_tensor.indices)
            for sparse in attribute.sparse_tensors:
                yield from (sparse.values, sparse.indices)
            yield from attribute.tensors
