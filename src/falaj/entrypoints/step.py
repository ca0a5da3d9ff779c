"""A step process: reads a task, does it, says how it went; ends, or waits for the next if that may share the process.

Standard output belongs to the protocol; what project code prints is sent to the step's log file, in its
workspace. When standard input closes, the parent is gone and this process ends too.
"""

from __future__ import annotations

import contextlib
import gc
import io
import os
import queue
import resource
import signal
import sys
import tempfile
import threading
import traceback
from pathlib import Path
from typing import Any, BinaryIO

import msgspec

from falaj.bootstrap.step import perform
from falaj.kernel.disk import refusal
from falaj.kernel.errors import FalajError, Unavailable
from falaj.storage import keychain
from falaj.storage.keychain import KEYCHAIN
from falaj.workflow.steps import StepTask


class LineReporter:
    """Reports as lines of JSON."""

    def __init__(self, out: BinaryIO) -> None:
        self._out = out
        self._lock = threading.Lock()
        self._process = os.getpid()

    def send(self, message: dict[str, Any]) -> None:
        """Write one message as a line of JSON; a copy of this process, which project code may have forked, stays silent."""
        if os.getpid() != self._process:
            return
        with self._lock:
            self._out.write(msgspec.json.encode(message) + b"\n")
            self._out.flush()

    def progress(self, text: str, done: int = 0, total: int = 0) -> None:
        """How far the step has come."""
        self.send({"type": "progress", "text": text, "done": done, "total": total})

    def metric(self, key: str, value: float, step: int) -> None:
        """A point of a learning curve."""
        self.send({"type": "metric", "key": key, "value": value, "step": step})


def main() -> None:
    """Do the steps that come in on standard input, one after another, until it closes."""
    reporter = LineReporter(os.fdopen(os.dup(1), "wb"))
    os.dup2(2, 1)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    tasks: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    threading.Thread(target=_receive, args=(tasks,), daemon=True).start()
    while True:
        task = msgspec.json.decode(tasks.get(), type=StepTask)
        _move_in(task)
        if KEYCHAIN in task.secrets:
            keychain.take(task.secrets[KEYCHAIN])
        _do(task, reporter)
        if task.fresh:
            gc.freeze()  # ending, the interpreter would look through all that it loaded, for nothing
            return


def _do(task: StepTask, reporter: LineReporter) -> None:
    try:
        value = perform(task, reporter)
        reporter.send({"type": "result", "value": value, "peak_mb": _peak_mb()})
    except FalajError as e:
        _trace()
        reporter.send({"type": "error", "error": e.as_dict()})
    except (Exception, SystemExit, KeyboardInterrupt) as e:  # whatever goes wrong must reach the parent as an answer
        _trace()
        error = refusal(e, Path(task.workspace)) or Unavailable(
            f"the step failed: {type(e).__name__}",
            hint="the trace is in the details; mend the project's code, or report it if the trace ends in falaj's",
            code="step_failed",
            details={"trace": traceback.format_exc()[-4000:], "shown": [f"{type(e).__name__}: {e}"[:300]]},
        )
        reporter.send({"type": "error", "error": error.as_dict()})


def _trace() -> None:
    """Write the trace to the step's log, if there is room for it."""
    with contextlib.suppress(OSError):
        traceback.print_exc()
        sys.stderr.flush()


def _receive(tasks: queue.SimpleQueue[bytes]) -> None:
    """Hand on what the parent asks; its end is the end of this process and of its group.

    It reads past `sys.stdin`, whose lock would be held while this process ends: Python waits a second for that, and aborts.
    """
    with io.FileIO(0, closefd=False) as unbuffered, io.BufferedReader(unbuffered) as lines:
        for line in lines:
            tasks.put(line)
    if os.getpgrp() == os.getpid():
        os.killpg(0, signal.SIGKILL)
    os._exit(1)


def _move_in(task: StepTask) -> None:
    """Work in the task's own folder, with its log, its temporary files and its own peak of memory."""
    sys.stdout.flush()
    log = os.open(Path(task.workspace) / f"{task.kind}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    for stream in (1, 2):
        os.dup2(log, stream)
    os.close(log)
    os.chdir(task.workspace)
    os.environ["HOME"] = os.environ["TMPDIR"] = tempfile.tempdir = task.workspace
    with contextlib.suppress(OSError), Path("/proc/self/clear_refs").open("w") as reset:
        reset.write("5")  # the peak starts at what is resident now (Linux; elsewhere it is the process's)


def _peak_mb() -> float:
    with contextlib.suppress(OSError, StopIteration), Path("/proc/self/status").open() as status:
        return int(next(line for line in status if line.startswith("VmHWM")).split()[1]) / 1e3
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if sys.platform == "darwin" else peak / 1e3


if __name__ == "__main__":
    main()
