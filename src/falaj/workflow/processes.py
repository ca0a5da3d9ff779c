"""Processes that a step started, as the system shows them (Linux; elsewhere nothing is found, and nothing is done).

A step's process group is ended with it. What left the group, as a daemon does, is known by the temporary folder that it
inherited: a step's workspace, which no other process has. A process that empties its environment as well escapes; against
code that means harm, run the control plane as a user or in a container of its own.
"""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path

_PROC = Path("/proc")
_ROUNDS = 5  # a process that is started while the others are looked for is found in the next round


def kill_working_in(*places: str) -> None:
    """End every process whose TMPDIR begins with one of `places`; one that ends in a null byte means this folder alone."""
    marks = [b"\0TMPDIR=" + os.fsencode(place) for place in places]
    for _ in range(_ROUNDS):
        found = [pid for pid in _all() if pid != os.getpid() and _has(_environment(pid), marks)]
        if not found:
            return
        for pid in found:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)


def resident_mb(pid: int) -> float:
    """Resident memory of one process in MB; 0 where the system does not tell (then no limit holds)."""
    try:
        pages = int((_PROC / str(pid) / "statm").read_text().split()[1])
    except (OSError, IndexError, ValueError):
        return 0.0
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def memory_mb(pid: int, limit: float) -> float:
    """Memory of a process and of all that it started, in MB.

    Resident memory counts what two share twice. Only when that passes `limit` is it told apart, which costs more.
    """
    tree = _with_children(pid)
    resident = sum(map(resident_mb, tree))
    return resident if resident <= limit or len(tree) == 1 else sum(map(_share_mb, tree))


def _share_mb(pid: int) -> float:
    """A process's proportional share of the memory that it uses, in MB."""
    try:
        lines = (_PROC / str(pid) / "smaps_rollup").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1e3
    except (OSError, StopIteration, IndexError, ValueError):
        return resident_mb(pid)


def _with_children(pid: int) -> list[int]:
    found, look = [pid], [pid]
    while look:
        for children in (_PROC / str(look.pop()) / "task").glob("*/children"):
            with contextlib.suppress(OSError, ValueError):
                new = [int(p) for p in children.read_text().split()]
                found += new
                look += new
    return found


def _all() -> list[int]:
    try:
        return [int(path.name) for path in _PROC.iterdir() if path.name.isdigit()]
    except OSError:
        return []


def _has(environment: bytes, marks: list[bytes]) -> bool:
    return any(mark in environment for mark in marks)


def _environment(pid: int) -> bytes:
    try:
        return b"\0" + (_PROC / str(pid) / "environ").read_bytes()
    except OSError:
        return b""
