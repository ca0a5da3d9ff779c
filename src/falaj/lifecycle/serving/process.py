"""A data plane as a child process: started, waited for, stopped."""

from __future__ import annotations

import contextlib
import http.client
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import msgspec

from falaj.governance.identity.verify import KnownToken, make_token, token_hash
from falaj.governance.signing.keys import plane_key, public_pem
from falaj.kernel.access import SYSTEM
from falaj.kernel.clock import Clock, iso
from falaj.kernel.disk import refusal
from falaj.kernel.environments import PRODUCTION
from falaj.kernel.errors import Integrity, Unavailable
from falaj.lifecycle.evidence.ports import Probe
from falaj.lifecycle.serving.model import Target, TrustFile
from falaj.lifecycle.serving.ports import Tokens
from falaj.lifecycle.serving.service import ServingService, live_workers, prepare_folder


class PlaneFolders(msgspec.Struct, frozen=True):
    """Where a data plane finds things."""

    plane: Path
    blobs: Path
    online: Path
    home: Path


class Beyond(msgspec.Struct, frozen=True):
    """Where a data plane listens for others than this machine, with TLS."""

    host: str
    port: int
    tls: str
    domain: str

    def arguments(self, local: int) -> list[str]:
        """How its process is told."""
        told = ("--host", self.host, "--port", str(self.port), "--local-port", str(local))
        return [*told, "--tls", self.tls, "--trust-domain", self.domain]


def plane_folder(home: Path, environment: str) -> Path:
    """Where an environment's own data plane has its folder below a home."""
    return home / "plane" if environment == PRODUCTION else home / "environments" / environment / "plane"


class PlaneProcess:
    """One running data plane."""

    def __init__(self, process: subprocess.Popen[bytes], address: str) -> None:
        self._process = process
        self.address = address
        self.pid = process.pid

    def stop(self, seconds: float = 10.0) -> None:
        """Let it finish what is in flight, then end it; at once when whoever waits for that is interrupted."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGTERM)
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            self._kill()
        except BaseException:  # it must not outlive whoever waits for it
            self._kill()
            raise
        if self._process.stdin is not None:
            self._process.stdin.close()

    def _kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self._process.wait()


def start_plane(
    folders: PlaneFolders,
    *,
    port: int = 0,
    workers: int = 1,
    seconds: float = 30.0,
    with_parent: bool = False,
    beyond: Beyond | None = None,
) -> PlaneProcess:
    """Start a data plane on loopback, and `beyond` it, and wait until its workers report. Raises `Unavailable` with its log.

    One `with_parent` ends when this process does, also when it is killed.
    """
    port = port or free_port()
    log = folders.plane / "data-plane.log"
    with log.open("ab") as out:
        process = subprocess.Popen(
            [
                sys.executable, "-m", "falaj.entrypoints.data_plane",
                "--dir", str(folders.plane), "--blobs", str(folders.blobs), "--online", str(folders.online),
                "--home", str(folders.home), "--workers", str(workers),
                *(["--host", "127.0.0.1", "--port", str(port)] if beyond is None else beyond.arguments(port)),
                *(["--with-parent"] if with_parent else []),
            ],
            stdin=subprocess.PIPE if with_parent else subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True,
        )  # fmt: skip
    plane = PlaneProcess(process, f"http://127.0.0.1:{port}")
    try:
        if _started(process, folders, workers, port, seconds):
            return plane
    except BaseException:  # whoever waits was interrupted: nothing half-started stays
        plane.stop()
        raise
    plane.stop()
    said = log.read_text("utf-8", "replace")[-2000:]
    raise refusal(OSError(said), folders.plane) or Unavailable(
        "the data plane did not start",
        hint=f"see {log}; its end is in the details (--json)",
        code="plane_did_not_start",
        details={"log": said},
    )


def _started(process: subprocess.Popen[bytes], folders: PlaneFolders, workers: int, port: int, seconds: float) -> bool:
    """Wait until the workers report and answer; false when they do not within the time, or the process ends."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and process.poll() is None:
        if len(live_workers(folders.plane)) >= workers and _answers(port):
            return True
        time.sleep(0.02)
    return False


class Measuring(msgspec.Struct, frozen=True):
    """What private data planes need: where to work, where things are, what they trust, and the clock."""

    scratch: Path
    folders: PlaneFolders
    trust: Callable[[], TrustFile]
    pepper: bytes
    clock: Clock
    environment: str


class MeasuringPlanes:
    """A `ServingProbe`: each candidate gets a data plane of its own, with its own key, for minutes.

    It goes through the same verification as in production; there is no other way to load a model.
    """

    def __init__(self, serving: ServingService, measuring: Measuring) -> None:
        self._serving = serving
        self._m = measuring

    @contextlib.contextmanager
    def serve(self, digest: str, name: str) -> Iterator[Probe]:
        """See `evidence.ports.ServingProbe`."""
        folder = self._m.scratch / f"plane-{name}"
        shutil.rmtree(folder, ignore_errors=True)
        prepare_folder(folder, self._m.trust())
        target = Target(str(folder), self._m.environment, public_pem(plane_key(folder)))
        token, known = platform_token("measurement", self._m.pepper, self._m.clock)
        self._serving.publish_private(target, digest, [known])
        plane = start_plane(msgspec.structs.replace(self._m.folders, plane=folder), with_parent=True)
        try:
            report = self._serving.observe(1, digest, 30.0, target)
            if report is None or report.state != "loaded":
                raise Integrity(
                    f"the data plane refused the candidate: {report.reason if report else 'it stopped'}",
                    hint=report.hint if report and report.hint else "train it again; the data plane's log says more",
                    code=report.code if report and report.code else "not_loaded",
                )
            yield Probe(plane.address, token)
        finally:
            plane.stop()
            shutil.rmtree(folder, ignore_errors=True)


class Guests:
    """The tokens that an environment's data plane knows: those of this home, and its own while it asks something itself."""

    def __init__(self, tokens: Tokens, pepper: bytes, clock: Clock) -> None:
        self._tokens = tokens
        self._pepper = pepper
        self._clock = clock
        self._guests: list[KnownToken] = []

    def known_tokens(self) -> list[KnownToken]:
        """The tokens that people have, and those of guests."""
        return [*self._tokens.known_tokens(), *self._guests]

    @contextlib.contextmanager
    def guest(self, name: str) -> Iterator[str]:
        """A token that the bundles that are published while this context is open know."""
        token, known = platform_token(name, self._pepper, self._clock)
        self._guests.append(known)
        try:
            yield token
        finally:
            self._guests.remove(known)


class SharedPlane:
    """An environment's own data plane: the one that runs, else one for as long as it is open. Opened once at a time."""

    def __init__(self, serving: ServingService, folders: PlaneFolders, guests: Guests) -> None:
        self._serving = serving
        self._folders = folders
        self._own: PlaneProcess | None = None
        self._turn = threading.Lock()  # whoever closes waits for a start that is under way
        self.guest = guests.guest

    def open(self) -> str:
        """Its address. Raises `Unavailable` when it does not start."""
        with self._turn:
            workers = self._serving.workers()
            if workers:
                return workers[0].address
            self._own = start_plane(self._folders)
            return self._own.address

    def close(self) -> None:
        """End it, if `open` started it."""
        with self._turn:
            own, self._own = self._own, None
            if own is not None:
                own.stop()


def platform_token(name: str, pepper: bytes, clock: Clock) -> tuple[str, KnownToken]:
    """A token for the platform itself, for minutes, and how a data plane knows it."""
    identifier, token = make_token()
    until = iso(clock.now() + timedelta(minutes=15))
    return token, KnownToken(identifier, token_hash(token, pepper), name, "service", SYSTEM.roles, until)


def free_port() -> int:
    """A loopback port that is free now."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


def _answers(port: int) -> bool:
    """Whether a worker answers a request. A connection alone says nothing: the supervisor holds the socket, and a
    worker that does not answer yet may miss the signal to stop."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=1.0)
    try:
        connection.request("GET", "/v2/health/live")
        return connection.getresponse().status == http.HTTPStatus.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
