"""A home's data planes, as the command line starts and finds them: production's, and staging's when it is wanted."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import msgspec

from falaj.governance.identity.peers import DATA_PLANE
from falaj.governance.identity.tls import Party, Renewed
from falaj.kernel.environments import PRODUCTION
from falaj.kernel.errors import Unavailable
from falaj.kernel.settings import LOOPBACK, Settings
from falaj.lifecycle.serving.process import Beyond, PlaneFolders, PlaneProcess, free_port, plane_folder
from falaj.lifecycle.serving.process import start_plane as start_process
from falaj.lifecycle.serving.service import live_workers

_ANSWER_SECONDS = 1.0


class Running(msgspec.Struct, frozen=True):
    """`run/data-plane.json`, or `run/data-plane-staging.json`: the data plane that was started last."""

    url: str
    pid: int


def plane_address(settings: Settings, environment: str = PRODUCTION) -> str | None:
    """Where an environment's data plane listens, if it lives and answers."""
    last = _last(settings, environment)
    return last.url if last and _alive(last.pid) and _answers(last.url) else None


def start_plane(settings: Settings, environment: str = PRODUCTION) -> str:
    """Start an environment's data plane; returns its address. Raises `Unavailable` while one lives that does not answer."""
    last = _last(settings, environment)
    if last is not None and _alive(last.pid) and _works(settings, last.pid, environment):
        raise Unavailable(
            f"the data plane (pid {last.pid}) lives, and does not answer",
            hint="stop it, then start it: `falaj down`, `falaj up`",
            code="plane_does_not_answer",
        )
    wanted = settings.plane_port if environment == PRODUCTION else 0
    if wanted and _taken(wanted, settings.host):
        raise Unavailable(
            f"port {wanted} is taken by another program",
            hint="set FALAJ_PLANE_PORT to a free one, or to 0 for any",
            code="port_taken",
        )
    beyond = _beyond(settings, wanted, environment)
    process = _start(settings, (0 if beyond else wanted) or _kept_port(settings, environment), environment, beyond)
    try:
        folder = settings.home / "run"
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        _state(settings, environment).write_bytes(msgspec.json.encode(Running(process.address, process.pid)))
    except BaseException:  # one that nobody has written down would be found by nobody
        process.stop()
        raise
    return process.address


def stop_plane(settings: Settings, environment: str = PRODUCTION) -> bool:
    """Stop it; whether it ran."""
    last = _last(settings, environment)
    if last is None or not _alive(last.pid) or not (_works(settings, last.pid, environment) or _answers(last.url)):
        last = _left(settings, environment)
    if last is None:
        return False
    with suppress(ProcessLookupError):
        os.killpg(last.pid, signal.SIGTERM)
    deadline = time.monotonic() + 15
    while _alive(last.pid) and (_works(settings, last.pid, environment) or _taken(_port(last.url))):
        if time.monotonic() > deadline:
            raise Unavailable(
                "the data plane does not stop", hint=f"end process {last.pid} yourself", code="does_not_stop"
            )
        time.sleep(0.05)
    return True


@contextmanager
def plane(settings: Settings, environment: str = PRODUCTION) -> Iterator[str]:
    """The address of an environment's data plane: the one that runs, or one for as long as this context."""
    address = plane_address(settings, environment)
    if address is not None:
        yield address
        return
    process = _start(settings, 0, environment)
    try:
        yield process.address
    finally:
        process.stop()


def _beyond(settings: Settings, port: int, environment: str) -> Beyond | None:
    """Where it listens for others, if the settings say so. Raises `Invalid` for certificates that cannot be used."""
    if settings.host in LOOPBACK:
        return None
    Renewed(Party(settings.tls, settings.trust_domain, f"{DATA_PLANE}/{environment}"))
    return Beyond(settings.host, port, settings.tls, settings.trust_domain)


def _start(settings: Settings, port: int, environment: str, beyond: Beyond | None = None) -> PlaneProcess:
    home = settings.home
    folders = PlaneFolders(plane_folder(home, environment), home / "blobs", home / "online", home)
    workers = settings.plane_workers if environment == PRODUCTION else 1
    return start_process(folders, port=port or free_port(), workers=workers, beyond=beyond)


def _kept_port(settings: Settings, environment: str) -> int:
    """The port that this environment's data plane had last time, if it is free."""
    last = _last(settings, environment)
    return 0 if last is None or _taken(port := _port(last.url)) else port


def _taken(port: int, host: str = "127.0.0.1") -> bool:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as s:
        return s.connect_ex((host, port)) == 0


def _port(url: str) -> int:
    return int(url.rpartition(":")[2])


def _state(settings: Settings, environment: str) -> Path:
    name = "data-plane" if environment == PRODUCTION else f"data-plane-{environment}"
    return settings.home / "run" / f"{name}.json"


def _last(settings: Settings, environment: str) -> Running | None:
    """The data plane that was started last; it may be dead, and its process id another one's by now."""
    try:
        return msgspec.json.decode(_state(settings, environment).read_bytes(), type=Running)
    except (OSError, msgspec.DecodeError, UnicodeDecodeError):
        return None


def _left(settings: Settings, environment: str) -> Running | None:
    """A data plane that runs and is not written down: whoever started it did not live to do that, or to stop it."""
    for worker in live_workers(plane_folder(settings.home, environment)):
        with suppress(ProcessLookupError):
            return Running(worker.address, os.getpgid(worker.pid))
    return None


def _works(settings: Settings, pid: int, environment: str) -> bool:
    """Whether a worker of this environment's data plane lives that process `pid` started."""
    with suppress(ProcessLookupError):
        return any(os.getpgid(w.pid) == pid for w in live_workers(plane_folder(settings.home, environment)))
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
