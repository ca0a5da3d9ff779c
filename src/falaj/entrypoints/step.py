"""A step process: reads one task, does it, says how it went, ends.

Standard output belongs to the protocol; what project code prints is sent to standard error, which
is the step's log file. When standard input closes, the parent is gone and this process ends too.
"""

from __future__ import annotations

import os
import resource
import sys
import threading
import traceback
from typing import Any, BinaryIO

import msgspec

from falaj.bootstrap.step import perform
from falaj.kernel.errors import FalajError, Unavailable
from falaj.workflow.steps import StepTask


class LineReporter:
    """Reports as lines of JSON."""

    def __init__(self, out: BinaryIO) -> None:
        self._out = out
        self._lock = threading.Lock()

    def send(self, message: dict[str, Any]) -> None:
        with self._lock:
            self._out.write(msgspec.json.encode(message) + b"\n")
            self._out.flush()

    def progress(self, text: str, done: int = 0, total: int = 0) -> None:
        self.send({"type": "progress", "text": text, "done": done, "total": total})

    def metric(self, key: str, value: float, step: int) -> None:
        self.send({"type": "metric", "key": key, "value": value, "step": step})


def main() -> None:
    reporter = LineReporter(os.fdopen(os.dup(1), "wb"))
    os.dup2(2, 1)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    task = msgspec.json.decode(sys.stdin.buffer.readline(), type=StepTask)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        value = perform(task, reporter)
        reporter.send({"type": "result", "value": value, "peak_mb": _peak_mb()})
    except FalajError as e:
        traceback.print_exc()
        reporter.send({"type": "error", "error": e.as_dict()})
    except Exception as e:  # whatever goes wrong must reach the parent as an answer, not as silence
        traceback.print_exc()
        error = Unavailable(
            f"the step failed: {type(e).__name__}: {e}"[:1000],
            hint="the trace is in the details; mend the project's code, or report it if the trace ends in falaj's",
            code="step_failed",
            details={"trace": traceback.format_exc()[-4000:]},
        )
        reporter.send({"type": "error", "error": error.as_dict()})


def _end_with_parent() -> None:
    sys.stdin.buffer.read()
    os._exit(1)


def _peak_mb() -> float:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if sys.platform == "darwin" else peak / 1e3


if __name__ == "__main__":
    main()
