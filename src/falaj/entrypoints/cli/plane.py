"""The home's data plane, as the command line starts and finds it."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import msgspec

from falaj.kernel.errors import Unavailable
from falaj.kernel.settings import Settings
from falaj.lifecycle.serving.process import PlaneFolders, PlaneProcess, free_port
from falaj.lifecycle.serving.process import start_plane as start_process

STATE = "data-plane.json"


class Running(msgspec.Struct, frozen=True):
    """`run/data-plane.json`."""

    url: str
    pid: int


def plane_address(settings: Settings) -> str | None:
    """Where the home's data plane listens, if it runs."""
    running = _running(settings)
    return running.url if running else None


def start_plane(settings: Settings) -> str:
    """Start the home's data plane; returns its address."""
    process = _start(settings, settings.plane_port or _kept_port(settings))
    folder = settings.home / "run"
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    (folder / STATE).write_bytes(msgspec.json.encode(Running(process.address, process.pid)))
    return process.address


def stop_plane(settings: Settings) -> bool:
    """Stop it; whether it ran."""
    running = _running(settings)
    if running is None:
        return False
    with suppress(ProcessLookupError):
        os.killpg(running.pid, signal.SIGTERM)
    deadline = time.monotonic() + 15
    while _alive(running.pid):
        if time.monotonic() > deadline:
            raise Unavailable(
                "the data plane does not stop", hint=f"end process {running.pid} yourself", code="does_not_stop"
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
    try:
        url = msgspec.json.decode((settings.home / "run" / STATE).read_bytes(), type=Running).url
    except (OSError, msgspec.DecodeError):
        return 0
    return 0 if _taken(port := int(url.rpartition(":")[2])) else port


def _taken(port: int) -> bool:
    with socket.socket() as s:
        return s.connect_ex(("127.0.0.1", port)) == 0


def _running(settings: Settings) -> Running | None:
    try:
        running = msgspec.json.decode((Path(settings.home) / "run" / STATE).read_bytes(), type=Running)
    except (OSError, msgspec.DecodeError):
        return None
    return running if _alive(running.pid) else None


def _alive(pid: int) -> bool:
    with suppress(ChildProcessError, OSError):
        os.waitpid(pid, os.WNOHANG)  # when it is our own child, a finished one must not count as alive
    try:
        os.kill(pid, 0)
    except OSError:
        return False
    return True
