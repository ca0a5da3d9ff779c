"""Steps as child processes: a clean environment, limits, and an end when the parent ends.

The task goes in as one line of JSON on standard input, which stays open: when it closes, the parent
is gone and the child ends itself. Events and the result come back as lines of JSON on standard
output; what project code prints goes to the step's log file.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from falaj.kernel.errors import Denied, Unavailable, from_dict
from falaj.workflow.steps import StepResult, StepTask

_LINE = 16 << 20  # the longest event line, bytes
_KEPT_ENVIRONMENT = ("PATH", "LANG", "LC_ALL", "TZ", "SSL_CERT_FILE")
_WATCH_SECONDS = 0.25
_END_SECONDS = 5.0  # for a killed process to be gone


class ChildRunner:
    """Runs `python -m falaj.entrypoints.step`, one process a step, in a session of its own."""

    def __init__(self, folder: Path, *, memory_mb: int, seconds: int) -> None:
        self._folder = folder
        self._memory_mb = memory_mb
        self._seconds = seconds
        self._running: set[int] = set()

    def workspace(self, flow_id: str, step: str) -> Path:
        path = self._folder / _safe(flow_id) / _safe(step)
        shutil.rmtree(path, ignore_errors=True)
        path.mkdir(parents=True, mode=0o700)
        return path

    def clean(self, flow_id: str) -> None:
        shutil.rmtree(self._folder / _safe(flow_id), ignore_errors=True)

    def stop(self) -> None:
        """End every child; used when the parent stops in order."""
        for pid in list(self._running):
            _kill(pid)

    async def run(self, task: StepTask, on_event: Callable[[dict[str, Any]], None]) -> StepResult:
        started = time.perf_counter()
        log = Path(task.workspace) / f"{task.kind}.log"
        with log.open("ab") as errors:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-I", "-B", "-m", "falaj.entrypoints.step",
                stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=errors,
                env=_environment(Path(task.workspace)), cwd=task.workspace, start_new_session=True, limit=_LINE,
            )  # fmt: skip
        self._running.add(process.pid)
        watch = asyncio.create_task(self._watch(process.pid))
        try:
            last = await self._converse(process, task, on_event)
            await process.wait()
        finally:
            watch.cancel()
            _kill(process.pid)
            with contextlib.suppress(TimeoutError):  # a cancelled step's process is gone when this returns
                await asyncio.wait_for(process.wait(), _END_SECONDS)
            self._running.discard(process.pid)
        if watch.done() and not watch.cancelled():
            raise _stopped(task.kind, str(watch.result()))
        if last.get("type") == "error":
            raise from_dict(last["error"])
        if last.get("type") != "result":
            raise _died(task.kind, process.returncode, log)
        return StepResult(last["value"], time.perf_counter() - started, float(last["peak_mb"]))

    async def _converse(
        self, process: asyncio.subprocess.Process, task: StepTask, on_event: Callable[[dict[str, Any]], None]
    ) -> dict[str, Any]:
        if process.stdin is None or process.stdout is None:
            raise _died(task.kind, None, Path(task.workspace) / f"{task.kind}.log")
        with contextlib.suppress(ConnectionError):  # a child that died at once is explained by its exit status
            process.stdin.write(msgspec.json.encode(task) + b"\n")
            await process.stdin.drain()
        last: dict[str, Any] = {}
        while event := await _event(process.stdout):
            if event.get("type") in ("result", "error"):
                last = event
                break
            on_event(event)
        process.stdin.close()
        return last

    async def _watch(self, pid: int) -> str:
        """End the child when it takes too much memory or time; returns which."""
        deadline = time.monotonic() + self._seconds
        while True:
            await asyncio.sleep(_WATCH_SECONDS)
            if time.monotonic() > deadline:
                _kill(pid)
                return f"it ran longer than {self._seconds} s"
            if _resident_mb(pid) > self._memory_mb:
                _kill(pid)
                return f"it took more than {self._memory_mb} MB of memory"


async def _event(lines: asyncio.StreamReader) -> dict[str, Any]:
    """The next event; empty at the end, and for what no step process says: it then counts as dead."""
    try:
        line = await lines.readline()
        return msgspec.json.decode(line, type=dict[str, Any]) if line else {}
    except (ValueError, msgspec.MsgspecError):
        return {}


def _environment(workspace: Path) -> dict[str, str]:
    kept = {k: os.environ[k] for k in _KEPT_ENVIRONMENT if k in os.environ}
    return {**kept, "HOME": str(workspace), "TMPDIR": str(workspace), "OMP_NUM_THREADS": str(os.cpu_count() or 1)}


def _resident_mb(pid: int) -> float:
    """Resident memory in MB; 0 where the system does not tell (then the limit does not hold)."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except (OSError, IndexError, ValueError):
        return 0.0
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def _kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)


def _safe(name: str) -> str:
    """A folder's name: never '.', '..' or nothing, which would name a folder above, to be removed."""
    safe = "".join(c if c.isalnum() or c in "._-" else "_" for c in name)
    return safe if safe.strip(".") else f"_{safe}"


def _stopped(kind: str, why: str) -> Denied:
    return Denied(
        f"the {kind} step was stopped: {why}",
        hint="use less data or a smaller model, or raise FALAJ_STEP_MEMORY_MB / FALAJ_STEP_SECONDS",
        code="step_limit",
    )


def _died(kind: str, status: int | None, log: Path) -> Unavailable:
    tail = log.read_text("utf-8", "replace")[-2000:] if log.exists() else ""
    return Unavailable(
        f"the {kind} step died (exit status {status})",
        hint="the end of its log is in the details; run it again, and report it if it dies again",
        code="step_died",
        details={"log": tail},
    )
