"""Steps as child processes: a clean environment, limits, and an end when the parent ends.

The task goes in as one line of JSON on standard input, which stays open: when it closes, the parent
is gone and the child ends itself. Events and the result come back as lines of JSON on standard
output; what project code prints goes to the step's log file.

Most of a short step's time is the start of its process, so one that ended well waits a while for the next
step of the same project, if both say that they may share one (`StepTask.fresh` is false): loads and
materialisations do, training and whatever handles keys or evidence does not.
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
from falaj.workflow import processes
from falaj.workflow.steps import StepResult, StepTask

_LINE = 16 << 20  # the longest event line, bytes
_KEPT_ENVIRONMENT = ("PATH", "LANG", "LC_ALL", "TZ", "SSL_CERT_FILE")
_WATCH_SECONDS = 0.25
_GARBLED = "garbled"
_END_SECONDS = 5.0  # for a killed process to be gone
_IDLE_AT_MOST = 3  # processes that wait for a task
_TASKS_AT_MOST = 100  # of one process: what project code leaks ends with it
_RESIDENT_AT_MOST = 600.0  # MB; a larger process is not kept
_LOG_AT_MOST = 16 << 20  # bytes of a log on disk; of a longer one the beginning stays and what comes now
_LOG_HEAD = 1 << 20
_TAIL = 4000  # bytes of a log that are told
_LINES = 6  # lines of it that a person is shown


class _Child:
    """A step process: what it has loaded, how many tasks it has done, and the loop that its pipes belong to."""

    def __init__(self, process: asyncio.subprocess.Process, project: str) -> None:
        self.process = process
        self.project = project
        self.workspaces: set[str] = set()  # of all its tasks
        self.tasks = 0
        self.loop = asyncio.get_running_loop()
        self.expiry: asyncio.TimerHandle | None = None
        self.ending: asyncio.Task[None] | None = None  # a loop holds its tasks only weakly

    def suits(self, task: StepTask) -> bool:
        return (
            not task.fresh
            and self.project == task.project
            and self.loop is asyncio.get_running_loop()
            and self.process.returncode is None
        )


class ChildRunner:
    """Runs `python -m falaj.entrypoints.step`, each in a session of its own.

    A process without a task ends after `idle_seconds`. `keys` gives what else a kind of step is told in secret.
    """

    def __init__(
        self,
        folder: Path,
        *,
        memory_mb: int,
        seconds: int,
        idle_seconds: float = 30.0,
        keys: Callable[[str], dict[str, str]] = lambda _kind: {},
    ) -> None:
        self._folder = folder
        self._keys = keys
        self._memory_mb = memory_mb
        self._seconds = seconds
        self._idle_seconds = idle_seconds
        self._running: set[int] = set()  # process ids, of those that wait too
        self._idle: list[_Child] = []
        self._dismissed = False
        self._flows: dict[int, str] = {}  # process id → the flow whose step it does
        self._stopped: set[str] = set()  # flows that shall have no further step

    def workspace(self, flow_id: str, step: str) -> Path:
        """An empty folder for one step of a flow."""
        path = self._folder / _safe(flow_id) / _safe(step)
        shutil.rmtree(path, ignore_errors=True)
        path.mkdir(parents=True, mode=0o700)
        return path

    def clean(self, flow_id: str) -> None:
        """Remove the folders of a flow's steps."""
        shutil.rmtree(self._folder / _safe(flow_id), ignore_errors=True)

    def end(self, flow_id: str) -> None:
        """End the step of a flow that is under way, and let no further one of it begin."""
        flow = _safe(flow_id)
        self._stopped.add(flow)
        for pid in [p for p, of in list(self._flows.items()) if of == flow]:
            _kill(pid)

    async def dismiss(self) -> None:
        """End the processes that wait for a task of the running loop; whoever ends the loop does this before."""
        waiting = [c for c in self._idle if c.loop is asyncio.get_running_loop()]
        for child in waiting:
            self._idle.remove(child)
            if child.expiry:
                child.expiry.cancel()
        await asyncio.gather(*map(self._end, waiting))

    def dismiss_all(self) -> None:
        """The same in every other loop that runs, before all of them end: no process waits from now on."""
        self._dismissed = True
        for loop in {c.loop for c in self._idle}:
            if loop.is_running() and loop is not _running_loop():
                with contextlib.suppress(TimeoutError):  # `stop` ends them all the same
                    asyncio.run_coroutine_threadsafe(self.dismiss(), loop).result(_END_SECONDS)

    def stop(self) -> None:
        """End every child and what they started; used when the parent stops in order."""
        for pid in list(self._running):
            _kill(pid)
        self.sweep()

    def sweep(self) -> None:
        """End every process that works in this runner's folder: what an earlier parent's steps left running, too."""
        processes.kill_working_in(f"{self._folder}{os.sep}")

    async def run(self, task: StepTask, on_event: Callable[[dict[str, Any]], None]) -> StepResult:
        """Do a step in a child process. Raises what the step raised, `Unavailable` when the child dies or passes a
        limit.
        """
        started = time.perf_counter()
        task = msgspec.structs.replace(task, secrets={**task.secrets, **self._keys(task.kind)})
        log = Path(task.workspace) / f"{task.kind}.log"
        child = self._waiting(task) or await self._start(task, log)
        process = child.process
        child.workspaces.add(task.workspace)
        self._flows[process.pid] = Path(task.workspace).parent.name
        if self._flows[process.pid] in self._stopped:  # it was stopped before there was a process to end
            _kill(process.pid)
        self._running.add(process.pid)
        watch, last, status = asyncio.create_task(self._watch(process.pid, task, log)), {}, None
        try:
            last = await self._converse(process, task, on_event)
            status = process.returncode
            if task.fresh and process.stdin is not None:
                process.stdin.close()
                with contextlib.suppress(TimeoutError):  # a thread that project code left may go on for ever
                    await asyncio.wait_for(process.wait(), _END_SECONDS)
        finally:
            watch.cancel()
            self._flows.pop(process.pid, None)
            if last.get("type") == "result" and not watch.done():
                await self._keep(child, task)
            else:
                await self._end(child)
        if watch.done() and not watch.cancelled():
            raise _stopped(task.kind, str(watch.result()))
        if last.get("type") == "error":
            raise from_dict(last["error"])
        if last.get("type") != "result":
            raise _died(task.kind, status, log)
        return StepResult(last["value"], time.perf_counter() - started, float(last["peak_mb"]))

    async def _start(self, task: StepTask, log: Path) -> _Child:
        with log.open("ab") as errors:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-I", "-B", "-m", "falaj.entrypoints.step",
                stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=errors,
                env=_environment(Path(task.workspace)), cwd=task.workspace, start_new_session=True, limit=_LINE,
            )  # fmt: skip
        return _Child(process, task.project)

    def _waiting(self, task: StepTask) -> _Child | None:
        """A process that waits and may do this task."""
        child = next((c for c in self._idle if c.suits(task)), None)
        if child is not None:
            self._idle.remove(child)
            if child.expiry:
                child.expiry.cancel()
        return child

    async def _keep(self, child: _Child, task: StepTask) -> None:
        """Let a process wait for the next task if it may and there is room; end it otherwise."""
        child.tasks += 1
        pid = child.process.pid
        if (
            task.fresh
            or self._dismissed
            or child.tasks >= _TASKS_AT_MOST
            or len(self._idle) >= _IDLE_AT_MOST
            or processes.resident_mb(pid) > _RESIDENT_AT_MOST
        ):
            await self._end(child)
            return
        self._idle.append(child)
        child.expiry = child.loop.call_later(self._idle_seconds, self._expire, child)

    def _expire(self, child: _Child) -> None:
        if child in self._idle:
            self._idle.remove(child)
            child.ending = child.loop.create_task(self._end(child))

    async def _end(self, child: _Child) -> None:
        _kill(child.process.pid)
        with contextlib.suppress(TimeoutError):  # a cancelled step's process is gone when this returns
            await asyncio.wait_for(child.process.wait(), _END_SECONDS)
        places = [f"{workspace}\0" for workspace in child.workspaces]  # what left its process group, or outlived it
        await asyncio.to_thread(processes.kill_working_in, *places)
        self._running.discard(child.process.pid)

    async def _converse(
        self, process: asyncio.subprocess.Process, task: StepTask, on_event: Callable[[dict[str, Any]], None]
    ) -> dict[str, Any]:
        if process.stdin is None or process.stdout is None:
            raise _died(task.kind, None, Path(task.workspace) / f"{task.kind}.log")
        with contextlib.suppress(ConnectionError):  # a child that died at once is explained by its exit status
            process.stdin.write(msgspec.json.encode(task) + b"\n")
            await process.stdin.drain()
        while event := await _event(process.stdout):
            if event.get("type") in ("result", "error", _GARBLED):
                return event
            on_event(event)
        await process.wait()
        return {}

    async def _watch(self, pid: int, task: StepTask, log: Path) -> str:
        """End the child when it takes too much memory or time; returns which. Keep its log short."""
        seconds = min(self._seconds, task.seconds or self._seconds)
        deadline = time.monotonic() + seconds
        while True:
            await asyncio.sleep(_WATCH_SECONDS)
            _shorten(log)
            if time.monotonic() > deadline:
                _kill(pid)
                return f"it ran longer than {seconds} s"
            if processes.memory_mb(pid, self._memory_mb) > self._memory_mb:
                _kill(pid)
                return f"it took more than {self._memory_mb} MB of memory"


def _running_loop() -> asyncio.AbstractEventLoop | None:
    """The loop that runs in this thread, if one does."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


async def _event(lines: asyncio.StreamReader) -> dict[str, Any]:
    """The next event; empty at the end. What no step process says is garbled: the child then counts as dead."""
    try:
        line = await lines.readline()
        return msgspec.json.decode(line, type=dict[str, Any]) if line else {}
    except (ValueError, msgspec.MsgspecError):
        return {"type": _GARBLED}


def _environment(workspace: Path) -> dict[str, str]:
    kept = {k: os.environ[k] for k in _KEPT_ENVIRONMENT if k in os.environ}
    return {**kept, "HOME": str(workspace), "TMPDIR": str(workspace), "OMP_NUM_THREADS": str(os.cpu_count() or 1)}


def _shorten(log: Path) -> None:
    """Cut a log that has grown too long: its beginning stays, and what comes from now on follows it."""
    with contextlib.suppress(OSError):  # whoever prints may also have taken the file away
        if log.stat().st_size > _LOG_AT_MOST:
            os.truncate(log, _LOG_HEAD)
            with log.open("ab") as f:  # as the child writes: at the end, wherever that is
                f.write(b"\n[... too much was printed: what stood here was dropped ...]\n")


def _tail(log: Path) -> str:
    """The end of a log; it is never read whole."""
    try:
        with log.open("rb") as f:
            f.seek(max(0, log.stat().st_size - _TAIL))
            return f.read(_TAIL).decode("utf-8", "replace")
    except OSError:
        return ""


def _kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)


def _safe(name: str) -> str:
    """A folder's name: never '.', '..' or nothing, which would name a folder above, to be removed."""
    safe = "".join(c if c.isalnum() or c in "._-" else "_" for c in name)
    return safe if safe.strip(".") else f"_{safe}"


def _stopped(kind: str, why: str) -> Denied:
    hint = "use less data or a smaller model, or raise FALAJ_STEP_MEMORY_MB / FALAJ_STEP_SECONDS"
    if kind == "describe":
        hint = "importing the project declares things and nothing else: move what works or waits into functions"
    return Denied(f"the {kind} step was stopped: {why}", hint=hint, code="step_limit")


def _died(kind: str, status: int | None, log: Path) -> Unavailable:
    """Why a step process ended without an answer; `status` None: it lives, but said what no step says."""
    tail = _tail(log)
    again = "run it again, and report it if it dies again"
    if status is None:
        how, hint = "it broke its channel to the control plane", "let the code write to descriptors only that it opened"
    elif status < 0:
        name = signal.strsignal(-status) or "unknown"
        how = f"it was ended by signal {-status} ({name})"
        hint = {
            9: f"if the machine ran short of memory (`dmesg` tells), use less data; else {again}",
            11: "a native library crashed: the end of the log may say which; try another version of it",
        }.get(-status, again)
    else:
        how = f"it ended with exit status {status} before it had answered"
        hint = "let the code return or raise; os._exit ends the step"
    shown = [line[:200] for line in tail.splitlines()[-_LINES:] if line.strip()]
    return Unavailable(
        f"the {kind} step died: {how}", hint=hint, code="step_died", details={"log": tail[-2000:], "shown": shown}
    )
