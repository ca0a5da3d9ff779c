"""How what serves is doing."""

from __future__ import annotations

import threading

from falaj.kernel.access import SYSTEM
from falaj.kernel.errors import FalajError
from falaj.kernel.log import logger
from falaj.lifecycle.monitoring.model import PlaneHealth, health
from falaj.lifecycle.monitoring.ports import DataPlane

_log = logger(__name__)


class MonitoringService:
    """What the data plane says of itself, in one word."""

    def __init__(self, plane: DataPlane) -> None:
        self._plane = plane

    def plane(self) -> PlaneHealth:
        """The home's data plane, now."""
        return health(self._plane.generation(), tuple(self._plane.workers()))


class Watch:
    """Looks after the data plane from a thread: writes the newest bundle again if it is missing, and audits
    what a worker refused to load, also when that happens long after the release."""

    def __init__(self, plane: DataPlane, seconds: float = 1.0) -> None:
        self._plane = plane
        self._seconds = seconds
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="plane-watch", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join()

    def tick(self) -> None:
        """Look once."""
        self._plane.project()
        for worker in self._plane.workers():
            for report in worker.releases:
                if report.state == "refused":
                    self._plane.record_refusal(report, worker.generation, SYSTEM.name)

    def _run(self) -> None:
        while not self._stopping.wait(self._seconds):
            try:
                self.tick()
            except (FalajError, OSError) as e:
                _log.error("watch_failed", error=str(e))
