"""The page of flows: each with its steps, as the code takes them."""

from __future__ import annotations

import ast
import functools
import inspect
from collections.abc import Iterator

from falaj.workflow.flow import Flow
from tools.manual import errors
from tools.manual.opened import opened
from tools.manual.tables import table, told

STEPS = {
    "ingest": {
        "load": "read the new files in a step process, judge them by the contract, write the Delta tables",
        "commit": "name the dataset's new version and its files in SQL",
        "refuse": "write the refusal down",
    },
    "materialize": {
        "fill": "compute each view's values and write the online store, in a step process",
        "commit": "write down what was filled",
        "refuse": "write the refusal down",
    },
    "build": {
        "start": "begin a training run: pin dataset versions, views, parameters, the as-of time",
        "train": "join, train, convert to ONNX, in a process of its own",
        "finish": "end the run, with its metrics and artifacts",
        "fail": "end the run as failed",
        "package": "hash, sign and store the model's files",
        "admit": "admit the candidate for minutes, to be measured only",
        "measure": "measure every gate, in a process of its own and through a private data plane",
        "evidence": "sign a statement for each gate, and one of how it was built",
        "register": "give the version its number, if every gate is Successful",
    },
    "staging": {
        "reopen": "let a version that failed its rehearsal try again",
        "admit-dev": "admit the version to dev",
        "asked": "see which approvals staging still asks for",
        "admit-staging": "admit the version to staging",
        "rehearse": "let staging's data plane load the version and ask it real requests",
        "rehearsed": "sign how that went; a version that passed awaits approval",
        "return": "take a version that failed out of staging again",
    },
    "release": {
        "admit": "admit the version to production",
        "plan": "give it all traffic in the plan",
        "publish": "sign and publish a bundle of the next generation",
        "observe": "wait until the data plane has taken it",
        "return": "if it refused: write that down, give the traffic back, publish",
        "serving": "write down which version serves, and which no longer does",
    },
    "rollout": {
        "admit": "admit the challenger to production",
        "begin-{n}": "give it the traffic of the next stage, and wait until the data plane has it",
        "judge-{n}": "look until it is decided whether it goes on",
        "move-{n}": "write down which stage is next",
        "settle": "give all traffic to the winner; write down what became of both",
        "fail": "if something failed that is no fault of the challenger: the stable version gets its traffic back",
    },
    "ship": {
        "load": "copy a sealed segment of the journal into the lake, in a step process",
        "seal": "write its root and digests into the log",
        "refuse": "write the refusal down",
    },
    "backtest": {
        "measure": "let the version answer the recorded requests, and measure by the labels, in a step process",
        "record": "write down that it was asked",
        "refuse": "write the refusal down",
    },
    "score": {
        "score": "verify the version and score the table, in a step process",
        "record": "write the scoring into the log and the lineage",
        "journal": "take recorded answers into the prediction journal",
        "refuse": "write the refusal down",
    },
    "external": {
        "freeze": "make the reference of what is normal from a table, in a step process",
        "declare": "let the declaration hold",
        "refuse": "write the refusal down",
    },
    "import": {
        "start": "begin an import: what was sent, by its digest",
        "convert": "read it in a sandbox and make a model folder of it",
        "finish": "end the import",
        "fail": "end the import as failed",
        "package": "hash, sign and store the model's files",
        "admit": "admit the candidate for minutes, to be measured only",
        "measure": "measure every gate that can be measured",
        "evidence": "sign a statement for each gate, and one of where it came from",
        "register": "give the version its number; what is missing is said",
    },
}
"""What each step does. A build goes on as a staging."""


def flows() -> str:
    """Each flow that a home knows: what it does, its payload, its steps in order."""
    parts = [_flow(name, flow) for name, flow in opened().flows.items()]
    return f"""# Flows

Work that takes long is a *flow*: a chain of steps, each done once, also when the process dies between two of them. A step
that was done is not done again; its result is kept, and a flow that was under way goes on when a control plane runs. A step
that changes something goes through the door with an operation named after flow and step, so that a second try
finds the first ([ADR 2](../adr/0002-one-door.md), [ADR 5](../adr/0005-dbos.md)). Not every flow takes each of its steps.

`falaj` waits for a flow and shows its progress; over HTTP ask `/api/v1/flows/FLOW?wait=20`.

{chr(10).join(parts)}"""


def _flow(name: str, flow: Flow) -> str:
    known = STEPS["staging"] | STEPS.get(name, {})
    rows = [(str(number), f"`{step}`", known[step]) for number, step in enumerate(steps_of(name), 1)]
    return f"## {name}\n\n{told(flow)}\n\n{table(('', 'step', 'what is done'), rows)}"


def steps_of(name: str) -> list[str]:
    """The names of a flow's steps, in the order in which they stand in the code."""
    return list(dict.fromkeys(_steps(*_found(opened().flows[name]), set())))


def _found(flow: Flow) -> tuple[str, ast.AST]:
    """The module and the tree of the function that a flow is."""
    function = inspect.unwrap(getattr(flow, "__func__", flow))
    return function.__module__, _functions(function.__module__)[function.__name__]


@functools.cache
def _functions(module: str) -> dict[str, ast.AST]:
    return dict(errors.modules()[module].functions)


@functools.cache
def _everywhere() -> dict[str, tuple[str, ast.AST]]:
    """Functions of flows modules that take steps themselves, by name; those of one name in two places are left out."""
    found: dict[str, list[tuple[str, ast.AST]]] = {}
    for dotted in errors.modules():
        if ".flows" in dotted:
            for name, function in _functions(dotted).items():
                if any(_is_step(node) for node in ast.walk(function)):
                    found.setdefault(name, []).append((dotted, function))
    return {name: where[0] for name, where in found.items() if len(where) == 1}


def _steps(module: str, function: ast.AST, seen: set[ast.AST]) -> Iterator[str]:
    """The steps of a function and of the helpers that it calls."""
    if function in seen:
        return
    seen.add(function)
    for node in sorted(_calls(function), key=lambda n: (n.lineno, n.col_offset)):
        if _is_step(node):
            yield _name(node.args[0])
        elif isinstance(node.func, ast.Attribute):
            own = _functions(module).get(node.func.attr)
            if own is not None and any(_is_step(n) for n in ast.walk(own)):
                yield from _steps(module, own, seen)
            elif node.func.attr in _everywhere():
                yield from _steps(*_everywhere()[node.func.attr], seen)


def _calls(function: ast.AST) -> list[ast.Call]:
    return [node for node in ast.walk(function) if isinstance(node, ast.Call)]


def _is_step(node: ast.AST) -> bool:
    """`run.step("name", …)`."""
    return (
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr == "step"
        and isinstance(node.func.value, ast.Name)
        and node.func.value.id == "run"
        and bool(node.args)
    )


def _name(value: ast.expr) -> str:
    """A step's name; what is put into it at run time stands as `{n}`."""
    if isinstance(value, ast.JoinedStr):
        return "".join(str(p.value) if isinstance(p, ast.Constant) else "{n}" for p in value.values)
    return str(value.value) if isinstance(value, ast.Constant) else "…"
