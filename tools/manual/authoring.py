"""The pages of what a project is written with: the names of `falaj`, and the gates."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import falaj
from falaj.authoring import gate
from falaj.lifecycle.evidence.model import MANDATORY
from falaj.lifecycle.training.model import LOWER_IS_BETTER, METRICS
from tools.manual.tables import block, signature, table, told


def names() -> str:
    """Each public name of the package with its signature and docstring."""
    parts = [_name(name) for name in public()]
    return f"""# Authoring

What `import falaj as fj` offers: {len(parts)} names. Each is loaded when it is first used. [Write a project](../how-to/write-a-project.md)
shows them in use; [gates](gates.md) has `fj.gate`.

{chr(10).join(parts)}"""


def public() -> list[str]:
    """The public names, as the package lists them."""
    return [n for n in falaj.__all__ if n not in ("__version__", "gate")]


def _name(name: str) -> str:
    of = getattr(falaj, name)
    parts = [
        f"## fj.{name}\n",
        *([] if _plain(of) else [block(signature(f"fj.{name}", of), "python")]),
        f"{told(of)}\n",
    ]
    if inspect.isclass(of):
        for member, value in members(of):
            shown = f"fj.{name}.{member}"
            parts.append(f"### {shown}\n")
            if not isinstance(value, property):
                parts.append(block(signature(shown, value), "python"))
            parts.append(f"{told(value)}\n")
    return "\n".join(parts)


def _plain(of: object) -> bool:
    """A Protocol is not called by anybody."""
    return bool(getattr(of, "_is_protocol", False))


def members(of: type) -> list[tuple[str, Any]]:
    """The public methods and properties that a class defines, in their order."""
    found = []
    for name in vars(of):
        value = getattr(of, name)
        if not name.startswith("_") and (callable(value) or isinstance(value, property)) and inspect.getdoc(value):
            found.append((name, value))
    return found


def gates() -> str:
    """Each predefined gate."""
    made = [
        f"## fj.gate.{name}\n\n{block(signature(f'fj.gate.{name}', of), 'python')}\n{told(of)}\n"
        for name, of in predefined()
    ]
    asked = [(f"`{g.name}`", g.limit or "no problem found") for g in MANDATORY]
    metrics = [(task, ", ".join(f"`{m}`" for m in found)) for task, found in METRICS.items()]
    return f"""# Gates

A gate is a question that evidence must answer before a version is registered. The verdict is Successful, Failed, Inconclusive
or Error, and only Successful passes; what was not measured is an Error. `fj.gate` has these; the names of the metrics of a task are:

{table(("task", "metrics"), metrics)}
Of {", ".join(f"`{m}`" for m in LOWER_IS_BETTER)} less is better, of the others more.

{chr(10).join(made)}
## Asked of every model

{table(("gate", "limit"), asked)}"""


def predefined() -> list[tuple[str, Callable[..., object]]]:
    """The public functions of `fj.gate`, in the order of the file."""
    return [
        (name, of)
        for name, of in vars(gate).items()
        if inspect.isfunction(of) and of.__module__ == gate.__name__ and not name.startswith("_")
    ]
