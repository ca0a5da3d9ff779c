"""The process that goes into the sandbox: reads what it is told, confines itself, and only then imports what does the work.

Standard input is the task, standard output the answer; what a model prints goes to standard error.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from falaj.kernel.errors import Denied, FalajError, Invalid
from falaj.workflow.confine import INPUT, CannotConfine, enter, limit
from falaj.workflow.sandbox import Confined, needed_paths, no_sandbox, write_answer

KINDS = {"foreign": "falaj.lifecycle.training.steps.foreign.inside:work"}
"""Kinds of work and the function that does each: (task, folder, whether it is confined) → (header, bytes)."""

Work = Callable[[dict[str, Any], Path, bool], tuple[dict[str, Any], bytes]]


def main() -> None:
    """Take one task, do it, end."""
    told = msgspec.json.decode(sys.stdin.buffer.readline(), type=Confined)
    out = os.dup(1)
    os.dup2(2, 1)
    try:
        given = Path(told.given)
        if told.free:
            limit(told.limits)
        else:
            out = _confine(told, out)
            given = INPUT
        header, body = _work(told.kind)(told.task, given, not told.free)
    except CannotConfine as e:
        _answer(out, no_sandbox(str(e)).as_dict() | {"error": str(e)})
    except FalajError as e:
        _answer(out, e.as_dict())
    except MemoryError:
        sys.stderr.write("MemoryError\n")
        sys.stderr.flush()
        os._exit(1)
    except Exception as e:  # what a stranger's model raises is a reason to refuse it, whatever it is
        problem = Invalid(
            f"it cannot be read: {type(e).__name__}: {str(e)[:300]}",
            hint="look at the model with the library that wrote it; or export it to ONNX",
            code="foreign_unreadable",
        )
        _answer(out, problem.as_dict())
    else:
        write_answer(out, msgspec.json.encode(header), body)
    os._exit(0)  # no destructor and no exit handler of what was loaded runs


def _confine(told: Confined, out: int) -> int:
    """Confine this process; standard descriptors alone survive, so the answer's takes the place of the input."""
    os.dup2(out, 0)
    enter(needed_paths(told.hidden), Path(told.given), told.limits)
    return 0


def _work(kind: str) -> Work:
    module, _, name = KINDS.get(kind, "").partition(":")
    if not module:
        raise Denied(f"there is no work {kind[:40]!r} for a sandbox", hint="upgrade", code="no_such_work")
    found: Work = getattr(importlib.import_module(module), name)
    return found


def _answer(out: int, error: dict[str, Any]) -> None:
    write_answer(out, msgspec.json.encode({"error": error}))


if __name__ == "__main__":
    main()
