"""One worker process: the parts of the data plane, joined, and its housekeeping thread."""

from __future__ import annotations

import fcntl
import multiprocessing
import os
import signal
import threading
import time
from importlib import metadata
from pathlib import Path
from typing import Any

import msgspec

from falaj.governance.signing.keyfile import plane_key
from falaj.kernel.access import Principal
from falaj.kernel.clock import Clock, iso
from falaj.kernel.errors import Conflict
from falaj.kernel.log import logger
from falaj.lifecycle.serving.model import PLANE_ACTIONS, PlaneStatus
from falaj.lifecycle.serving.plane.app import App
from falaj.lifecycle.serving.plane.behind import Peers
from falaj.lifecycle.serving.plane.enrich import OnlineValues
from falaj.lifecycle.serving.plane.files import replace_file
from falaj.lifecycle.serving.plane.front import Front
from falaj.lifecycle.serving.plane.generations import Generations
from falaj.lifecycle.serving.plane.inference import Inference
from falaj.lifecycle.serving.plane.journal import ROTATE, Journal
from falaj.lifecycle.serving.plane.loading import Loader
from falaj.lifecycle.serving.plane.shadows import Shadows
from falaj.lifecycle.serving.plane.verify import read_trust
from falaj.storage.keychain import Keys, hold

WATCH_SECONDS = 0.1
STATUS_SECONDS = 1.0
_STALE_SECONDS = 10.0


class Worker:
    """The application that the server calls. Built in the worker's own process, after the fork."""

    def __init__(
        self,
        folder: Path,
        blobs: Path,
        online: OnlineValues,
        clock: Clock,
        address: str,
        front: Front | None = None,
    ) -> None:
        self.name, self._lock = _claim(folder / "status")
        self._folder = folder
        self._clock = clock
        self._address = address
        self._front = front
        self._started_at = iso(clock.now())
        self._stop = threading.Event()
        self._log = logger(__name__)
        trust = read_trust(folder / "trust.json")
        key = plane_key(folder)
        self._environment = trust.environment
        self._peers = Peers(folder, int(self.name), front.domain, trust.environment) if front is not None else None
        self._reader = b""
        self._hold(trust.journal)
        self._journal = Journal(folder / "journal", clock)
        self._generations = Generations(folder, trust, key, Loader(trust, key, blobs), clock, PLANE_ACTIONS)
        self._generations.on_online_keys = online.hold
        self._shadows = Shadows(folder / "journal", clock, self.name)
        self._inference = Inference(online, self._journal, clock, self.name, self._shadows)
        self._asked = self._rotation()
        self._loop: Any = None
        self.app = App(self._generations, self._inference, clock, _release(), self)
        self._keeper = threading.Thread(target=self._keep, name="keeper", daemon=True)
        self._guard = threading.Thread(target=self._follow, name="guard", daemon=True)
        self._news = False
        self._generations.start()  # before there is a loop: so long a signal to stop ends a worker at once

    def __rsgi_init__(self, loop: Any) -> None:
        """Say so, then let the server listen."""
        self._loop = loop
        if self._front is not None and self._peers is not None:
            loop.run_until_complete(self._front.start(self._peers))
        self._write_status()
        self._keeper.start()
        self._guard.start()

    async def __rsgi__(self, scope: Any, proto: Any) -> None:
        await self.app.__rsgi__(scope, proto)

    def __rsgi_del__(self, loop: Any) -> None:
        """The last request was answered: flush the journal and go."""
        if self._front is not None:
            loop.run_until_complete(self._front.stop())
        self._stop.set()
        self._generations.trips.wake.set()
        self._keeper.join()
        self._guard.join()
        self._inference.close()
        self._journal.close()
        self._write_status()

    def status(self) -> PlaneStatus:
        """How things stand in this worker now."""
        judged = self._generations.judged  # before what it was judged to be
        state, refused = self._generations.state, self._generations.refused_bundle
        served = {id(r.version): r for r in state.served()}
        return PlaneStatus(
            worker=self.name,
            pid=os.getpid(),
            generation=state.generation,
            environment=self._environment,
            bundle_issued_at=state.issued_at,
            refused_bundle=refused,
            releases=state.reports,
            address=self._address,
            started_at=self._started_at,
            updated_at=iso(self._clock.now()),
            requests=self._inference.requests,
            errors=self._inference.errors,
            ready=state.ready,
            versions=tuple(r.version.counts.snapshot(r.role, r.effective) for r in served.values()),
            responses={str(code): count for code, count in self.app.responses.copy().items()},
            guards=self._generations.trips.reports(state.models),
            killed=tuple(sorted(state.killed)),
            judged=judged,
        )

    def check_caller(self, scope: Any, principal: Principal) -> None:
        """Raise `Denied` for a token that came over another certificate than its principal's."""
        if self._peers is not None:
            self._peers.check(scope.client, principal)

    def alive(self) -> bool:
        """Whether both threads of the housekeeping still run."""
        return self._keeper.is_alive() and self._guard.is_alive()

    def all_workers(self) -> list[PlaneStatus]:
        """This worker's status as it is now, the others' as they last wrote it (at most a few seconds ago)."""
        found = [self.status()]
        for path in sorted((self._folder / "status").glob("[0-9]*.json")):
            try:
                if path.stem != self.name and time.time() - path.stat().st_mtime < _STALE_SECONDS:
                    found.append(msgspec.json.decode(path.read_bytes(), type=PlaneStatus))
            except (OSError, msgspec.DecodeError, UnicodeDecodeError):
                continue
        return found

    def _keep(self) -> None:
        """Watch the bundle, the admissions' expiry and the parent; say how things stand."""
        parent = _supervisor()
        said = 0.0
        while not self._stop.wait(WATCH_SECONDS):
            try:
                changed = self._generations.poll() or self._news
                self._hold(self._generations.trust.journal)
                if changed or time.monotonic() - said >= STATUS_SECONDS:
                    said = time.monotonic()
                    self._news = False
                    self._generations.expire()
                    self._write_status()
                self._turn_journals()
            except Exception as e:  # this thread must outlive any fault: without it no bundle would ever be taken again
                self._log.error("housekeeping failed", error=f"{type(e).__name__}: {e}", exc_info=e)
            if os.getppid() != parent:
                self._log.error("the supervisor is gone, ending")
                os.kill(os.getpid(), signal.SIGTERM)  # again until it is heard: a worker that starts may lose one

    def _hold(self, reader: bytes) -> None:
        """Seal new segments to this key."""
        if reader != self._reader:
            self._reader = reader
            hold(self._folder / "journal", Keys(reader=reader))

    def _turn_journals(self) -> None:
        """End segments that have had their time or that somebody asks to end, in the threads that write them."""
        rotation = self._rotation()
        asked, self._asked = rotation != self._asked, rotation
        moment = int(self._clock.now().timestamp() * 1_000_000)
        if asked or self._journal.due(moment):
            self._loop.call_soon_threadsafe(self._rotate)
        self._shadows.turn(moment, asked=asked)

    def _rotate(self) -> None:
        try:
            self._journal.rotate()
        except OSError as e:
            self._log.error("journal segment goes on", error=str(e))

    def _rotation(self) -> int:
        """When rotation was last asked for; 0 for never."""
        try:
            return (self._folder / "journal" / ROTATE).stat().st_mtime_ns
        except FileNotFoundError:
            return 0

    def _follow(self) -> None:
        """Carry trips of the guard between the workers; apart from the keeper, whom loading a model may keep busy."""
        trips = self._generations.trips
        last = False
        while not last:
            trips.wake.wait(WATCH_SECONDS)
            last = self._stop.is_set()
            trips.wake.clear()
            try:
                watches = [r.watch for r in self._generations.state.served() if r.watch is not None]
                self._news |= trips.poll(watches)
            except Exception as e:  # as above: without this thread a trip would not reach the other workers
                self._log.error("following the guard failed", error=f"{type(e).__name__}: {e}", exc_info=e)

    def _write_status(self) -> None:
        replace_file(self._folder / "status" / f"{self.name}.json", msgspec.json.encode(self.status()))


def _supervisor() -> int:
    """The process that started this one, which may be gone by now: then `os.getppid()` names another."""
    parent = multiprocessing.parent_process()
    return os.getppid() if parent is None or parent.pid is None else parent.pid


def _claim(folder: Path) -> tuple[str, int]:
    """The lowest free worker number, and the lock that holds it as long as this process lives."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    for number in range(1, 257):
        descriptor = os.open(folder / f"{number}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(descriptor)
            continue
        return str(number), descriptor
    raise Conflict(
        "256 workers use this folder already", hint="give this data plane a folder of its own", code="too_many_workers"
    )


def _release() -> str:
    try:
        return metadata.version("falaj")
    except metadata.PackageNotFoundError:
        return "0"
