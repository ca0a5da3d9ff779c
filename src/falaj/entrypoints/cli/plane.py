"""The home's data plane, as the command line starts and finds it."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import httpx
import msgspec

from falaj.kernel.errors import Unavailable
from falaj.kernel.settings import Settings
from falaj.lifecycle.serving.process import PlaneFolders, PlaneProcess, free_port
from falaj.lifecycle.serving.process import start_plane as start_process
from falaj.lifecycle.serving.service import live_workers

STATE = "data-plane.json"
_ANSWER_SECONDS = 1.0


class Running(msgspec.Struct, frozen=True):
    """`run/data-plane.json`: the data plane that was started last."""

    url: str
    pid: int


def plane_address(settings: Settings) -> str | None:
    """Where the home's data plane listens, if it lives and answers."""
    last = _last(settings)
    return last.url if last and _alive(last.pid) and _answers(last.url) else None


def start_plane(settings: Settings) -> str:
    """Start the home's data plane; returns its address. Raises `Unavailable` while one lives that does not answer."""
    last = _last(settings)
    if last is not None and _alive(last.pid) and _works(settings, last.pid):
        raise Unavailable(
            f"the data plane (pid {last.pid}) lives, and does not answer",
            hint="stop it, then start it: `falaj down`, `falaj up`",
            code="does_not_answer",
        )
    process = _start(settings, settings.plane_port or _kept_port(settings))
    folder = settings.home / "run"
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    (folder / STATE).write_bytes(msgspec.json.encode(Running(process.address, process.pid)))
    return process.address


def stop_plane(settings: Settings) -> bool:
    """Stop it; whether it ran."""
    last = _last(settings)
    if last is None or not _alive(last.pid) or not (_works(settings, last.pid) or _answers(last.url)):
        return False
    with suppress(ProcessLookupError):
        os.killpg(last.pid, signal.SIGTERM)
    deadline = time.monotonic() + 15
    while _alive(last.pid) and (_works(settings, last.pid) or _taken(_port(last.url))):
        if time.monotonic() > deadline:
            raise Unavailable(
                "the data plane does not stop", hint=f"end process {last.pid} yourself", code="does_not_stop"
            )
        time.sleep(0.05)
    return True


@contextmanager
def plane(settings: Settings) -> Iterator[str]:
    """The address of the home's data plane: the one that runs, or one for as long as this context."""
    address = plane_address(settings)
    if address is not None:
        yield address
        return
    process = _start(settings, 0)
    try:
        yield process.address
    finally:
        process.stop()


def _start(settings: Settings, port: int) -> PlaneProcess:
    home = settings.home
    folders = PlaneFolders(home / "plane", home / "blobs", home / "online", home)
    return start_process(folders, port=port or free_port(), workers=settings.plane_workers)


def _kept_port(settings: Settings) -> int:
    """The port that this home's data plane had last time, if it is free."""
    last = _last(settings)
    return 0 if last is None or _taken(port := _port(last.url)) else port


def _taken(port: int) -> bool:
    with socket.socket() as s:
        return s.connect_ex(("127.0.0.1", port)) == 0


def _port(url: str) -> int:
    return int(url.rpartition(":")[2])


def _last(settings: Settings) -> Running | None:
    """The data plane that was started last; it may be dead, and its process id another one's by now."""
    try:
        return msgspec.json.decode((settings.home / "run" / STATE).read_bytes(), type=Running)
    except (OSError, msgspec.DecodeError):
        return None


def _works(settings: Settings, pid: int) -> bool:
    """Whether a worker of this home's data plane lives that process `pid` started."""
    with suppress(ProcessLookupError):
        return any(os.getpgid(w.pid) == pid for w in live_workers(settings.home / "plane"))
    return False


def _answers(url: str) -> bool:
    """Whether a data plane answers there within a second; it may just be replacing a worker."""
    deadline = time.monotonic() + _ANSWER_SECONDS
    while (left := deadline - time.monotonic()) > 0:
        with suppress(httpx.TransportError):
            httpx.get(f"{url}/v2/health/live", timeout=left)
            return True
        time.sleep(0.05)
    return False


def _alive(pid: int) -> bool:
    with suppress(ChildProcessError, OSError):
        os.waitpid(pid, os.WNOHANG)  # when it is our own child, a finished one must not count as alive
    try:
        os.kill(pid, 0)
    except OSError:
        return False
    return True
