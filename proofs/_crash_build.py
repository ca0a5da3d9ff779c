"""The control plane as it is, with points at which it kills itself: the test build of `proofs/crash.py`.

    CRASH_AT=falaj:7:after CRASH_LOG=points.txt python proofs/_crash_build.py --home HOME --project FOLDER

Points, each passed in order and written to CRASH_LOG:

    falaj:N:before|after       the Nth commit of falaj.db in this process; the same for flows.db and metrics.db
    step:FLOW:NAME:before|after  a flow's step has not begun | has done its work, which the engine has not recorded
    says:KIND:N                a step process has said something, so it is at work
    file:NAME:N:before|after   a file gets its name (bundle.json, a blob, a tile of the log)

Nothing in the product knows of them. CRASH_IDEMPOTENCY=off takes the door's memory of operations away; with
CRASH_CHILD=KIND the first step process of that kind is killed instead, at its first word.
"""

from __future__ import annotations

import asyncio
import inspect
import os
import signal
import sys
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
from sqlalchemy.engine.default import DefaultDialect

from falaj.entrypoints import control_plane
from falaj.governance.door import Door
from falaj.kernel.clock import SystemClock
from falaj.kernel.ids import new_id
from falaj.workflow.child import ChildRunner
from falaj.workflow.engine import _Run

_DATABASES = ("falaj", "flows", "metrics")


class Points:
    """Counts what is passed, and ends the process where it is told."""

    def __init__(self, at: str, log: str) -> None:
        self._at = at
        self._log = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600) if log else -1
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter()

    def number(self, kind: str) -> int:
        with self._lock:
            self._counts[kind] += 1
            return self._counts[kind]

    def passed(self, name: str) -> None:
        with self._lock:
            if self._log >= 0:
                os.write(self._log, f"{name}\n".encode())
            if name == self._at:
                os.kill(os.getpid(), signal.SIGKILL)


def watch_commits(points: Points) -> None:
    """Every commit that changes something, in each of the three databases."""
    commit, seen = DefaultDialect.do_commit, dict[int, tuple[int, int]]()

    def do_commit(self: Any, connection: Any) -> None:
        raw = getattr(connection, "dbapi_connection", connection)
        name = Path(raw.execute("PRAGMA database_list").fetchone()[2]).stem
        state = raw.total_changes, raw.execute("PRAGMA schema_version").fetchone()[0]
        changed, seen[id(raw)] = state != seen.get(id(raw), (0, 0)), state
        if name not in _DATABASES or not changed:
            commit(self, connection)
            return
        number = points.number(name)
        points.passed(f"{name}:{number}:before")
        commit(self, connection)
        points.passed(f"{name}:{number}:after")

    DefaultDialect.do_commit = do_commit  # type: ignore[method-assign]


def watch_steps(points: Points) -> None:
    """Every step of every flow: before its work, and after it, before its result is recorded."""
    step = _Run.step

    async def watched(self: Any, name: str, work: Callable[[], Any]) -> Any:
        where = f"step:{self.id.partition('_')[0]}:{name}"

        async def around() -> Any:
            points.passed(f"{where}:before")
            value = await work() if inspect.iscoroutinefunction(work) else await asyncio.to_thread(work)
            value = await value if inspect.isawaitable(value) else value
            points.passed(f"{where}:after")
            return value

        return await step(self, name, around)

    _Run.step = watched  # type: ignore[method-assign]


def watch_children(points: Points, child: str) -> None:
    """Every word of a step process; the first of a `child` is its last."""
    run = ChildRunner.run

    async def watched(self: Any, task: Any, on_event: Callable[[dict[str, Any]], None]) -> Any:
        def heard(event: dict[str, Any]) -> None:
            number = points.number(f"says {task.kind}")
            points.passed(f"says:{task.kind}:{number}")
            if task.kind == child and number == 1:
                for pid in self._running:
                    os.killpg(pid, signal.SIGKILL)
            on_event(event)

        return await run(self, task, heard)

    ChildRunner.run = watched  # type: ignore[method-assign]


def watch_files(points: Points, home: Path) -> None:
    """Every file of the home that gets its name from this process."""
    for function in ("replace", "rename"):
        setattr(os, function, _watched(points, getattr(os, function), home))


def _watched(points: Points, move: Callable[..., None], home: Path) -> Callable[..., None]:
    def moved(source: Any, target: Any, **options: Any) -> None:
        path = Path(os.fspath(target))
        if not path.is_relative_to(home):
            move(source, target, **options)
            return
        name = _class_of(path.relative_to(home))
        number = points.number(f"file {name}")
        points.passed(f"file:{name}:{number}:before")
        move(source, target, **options)
        points.passed(f"file:{name}:{number}:after")

    return moved


def _class_of(path: Path) -> str:
    """What a file is, by its place below the home."""
    if path.parts[0] in ("blobs", "projects"):
        return path.parts[0]
    if path.parts[0] == "audit":
        return path.name if len(path.parts) == 2 else "tile"
    staging = "staging-" if path.parts[0] == "environments" else "measuring-" if path.parts[0] == "tmp" else ""
    return staging + path.name


def forget_operations() -> None:
    """Idempotency off: every change is a new operation, whatever id it was given."""
    change = Door.change

    def changed(self: Any, intent: Any, do: Any) -> Any:
        return change(self, msgspec.structs.replace(intent, operation_id=new_id("op", SystemClock().now())), do)

    Door.change = changed  # type: ignore[method-assign]


def main() -> None:
    environ = os.environ
    points = Points(environ.get("CRASH_AT", ""), environ.get("CRASH_LOG", ""))
    watch_commits(points)
    watch_steps(points)
    watch_children(points, environ.get("CRASH_CHILD", ""))
    watch_files(points, Path(sys.argv[sys.argv.index("--home") + 1]))
    if environ.get("CRASH_IDEMPOTENCY") == "off":
        forget_operations()
    control_plane.main()


if __name__ == "__main__":
    main()
