"""How what serves is doing."""

from __future__ import annotations

from falaj.kernel.access import SYSTEM
from falaj.kernel.lookout import Lookout
from falaj.lifecycle.monitoring.model import EVALUATOR, EVERY_MODEL, PlaneHealth, health
from falaj.lifecycle.monitoring.ports import Alarms, DataPlane, Evaluator
from falaj.lifecycle.serving.model import PlaneStatus


class MonitoringService:
    """What the data plane says of itself, in one word."""

    def __init__(self, plane: DataPlane) -> None:
        self._plane = plane

    def plane(self) -> PlaneHealth:
        """The home's data plane, now."""
        return health(self._plane.generation(), tuple(self._plane.workers()))


class DeadMan:
    """Tells when answers are given and nobody looks at them: drift, quality and rollouts would all seem quiet.

    An incident opens when the evaluator has not finished a look for `limit` seconds and the data plane has
    answered since that look; the next finished look resolves it.
    """

    def __init__(self, evaluator: Evaluator, alarms: Alarms, limit: float) -> None:
        self._evaluator = evaluator
        self._alarms = alarms
        self._limit = limit
        self._looks = -1
        self._answered: dict[tuple[str, int], int] = {}  # by worker and process, when the evaluator last looked
        self._quiet = False

    def check(self, workers: list[PlaneStatus]) -> None:
        """Compare heartbeat and counters."""
        silence, looks = self._evaluator.silence(), self._evaluator.looks
        answered = {(w.worker, w.pid): w.requests for w in workers}
        if looks != self._looks:
            self._looks, self._answered = looks, answered
        if silence <= self._limit:
            if not self._quiet and looks:
                self._alarms.settle(EVERY_MODEL, EVALUATOR)
                self._quiet = True
            return
        unseen = sum(count - self._answered.get(worker, 0) for worker, count in answered.items())
        if unseen > 0:
            self._quiet = False
            why = self._evaluator.trouble or "its thread does not answer"
            reason = f"nothing was judged for {silence:.0f} s while {unseen} requests were answered: {why}"
            self._alarms.open(EVERY_MODEL, EVALUATOR, "", reason)


class Watch(Lookout):
    """Looks after the data plane from a thread: writes the newest bundle again if it is missing, and audits
    what a worker refused to load, also when that happens long after the release. It watches the evaluator too."""

    def __init__(self, plane: DataPlane, dead_man: DeadMan, seconds: float = 1.0) -> None:
        super().__init__("plane-watch", seconds, "watch_failed", self._check, self.tick)
        self._plane = plane
        self._dead_man = dead_man

    def tick(self) -> None:
        """Look once."""
        self._plane.project()
        for worker in self._plane.workers():
            for report in worker.releases:
                if report.state == "refused":
                    self._plane.record_refusal(report, worker.generation, SYSTEM.name)

    def _check(self) -> None:
        self._dead_man.check(self._plane.workers())
