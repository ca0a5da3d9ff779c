"""Judges a challenger by what the journal, the labels and the data plane's guard say: the `Analyst` of rollouts."""

from __future__ import annotations

import threading
from array import array
from pathlib import Path

import msgspec

from falaj.kernel.clock import parse_iso
from falaj.kernel.errors import FalajError
from falaj.kernel.log import logger
from falaj.lifecycle.evidence.model import Verdict
from falaj.lifecycle.monitoring.analysis import LABEL_LOSS, Answer, Trial, TrialReport, judge, trial
from falaj.lifecycle.monitoring.losses import can_judge, loss, scale_of
from falaj.lifecycle.monitoring.model import Arrival, Scored
from falaj.lifecycle.monitoring.observer import Observer
from falaj.lifecycle.monitoring.ports import DataPlane, RecordStore, Versions
from falaj.lifecycle.monitoring.tail import Tail
from falaj.lifecycle.rollout.strategy import Analysis, Rollout
from falaj.lifecycle.serving.plane.journal import BATCH_ROLE, SUFFIX, Prediction, records_from
from falaj.statistics.sequential import Arm
from falaj.storage.sql.database import Database

_BATCH = 5000  # labels
_log = logger(__name__)


class Ports(msgspec.Struct, frozen=True):
    """What judging works with. `journal` is the folder; `database` is the one of metrics."""

    journal: Path
    observer: Observer
    plane: DataPlane
    tail: Tail
    database: Database
    store: RecordStore
    versions: Versions


class _Followed(msgspec.Struct):
    """A trial and what is in it: the journal up to some offsets, the first labels up to a number.

    `requests` counts the challenger's by generation; `labelled` holds when each of its answers was given whose label
    has come, in µs since 1970. `task` and `scale` say how the loss is counted.
    """

    trial: Trial
    offsets: dict[str, int]
    requests: dict[int, int]
    task: str
    scale: float
    label: int
    labelled: array[int]


class JournalAnalyst:
    """Reads journal and labels for each rollout by itself, from the rollout's start, so a restart loses nothing.

    What comes between two looks is put in the order of time. After a restart all of it is one look, so where segments
    lagged behind each other the figures may differ a little from those of the looks before.
    """

    def __init__(self, ports: Ports) -> None:
        self._p = ports
        self._followed: dict[str, _Followed] = {}
        self._lock = threading.Lock()

    def analyse(self, rollout: Rollout) -> Analysis:
        """Judge now. A trip of the data plane's guard is a failure whatever the trial says."""
        with self._lock:
            followed = self._follow(rollout)
            requests = sum(n for g, n in followed.requests.items() if g >= rollout.generation)
            begun = _us(rollout.updated_at)
            labels = sum(at >= begun for at in followed.labelled)
            report = _judged(rollout, followed)
        for worker in self._p.plane.workers():
            for trip in worker.guards:
                if trip.digest == rollout.challenger and trip.generation >= rollout.generation:
                    reason = f"the data plane's guard stopped it: {trip.reason} {trip.observed:.3g}, at most {trip.limit:.3g}"
                    detail = {"bad_answers": float(trip.bad_answers), "count": float(trip.count)}
                    return Analysis(Verdict.FAILED, reason, requests, detail, labels)
        found = msgspec.structs.replace(report.analysis(), requests=requests, labels=labels)
        needed = 0 if rollout.stage == "shadow" else rollout.strategy.labels
        if found.verdict is not Verdict.SUCCESSFUL or labels >= needed:
            return found
        waiting = f"{labels:,} of {needed:,} labels have come in this step"
        if LABEL_LOSS not in followed.trial.metrics:
            waiting = "labels of this model cannot be compared: promote or abort it by hand"
        return msgspec.structs.replace(found, reason=waiting)

    def report(self, rollout: Rollout) -> TrialReport:
        """Every metric as it stands now, or as it stood when the rollout ended."""
        with self._lock:
            return _judged(rollout, self._follow(rollout))

    def wait(self, seconds: float) -> None:
        """Until the tail has read something, or the time is over."""
        with self._p.tail.news:
            self._p.tail.news.wait(seconds)

    def _begin(self, rollout: Rollout) -> _Followed:
        """Nothing read yet."""
        reference = self._p.observer.reference(rollout.stable)
        columns, scale = len(reference.score) if reference else 0, scale_of(reference)
        try:
            task = self._p.versions.contract(rollout.stable).task
        except FalajError as e:
            _log.warning("labels_not_judged", digest=rollout.stable, reason=e.message)
            task = ""
        labels = rollout.strategy.labels if can_judge(task, scale) else None
        limits = rollout.strategy.limits
        start = trial(rollout.stable, rollout.challenger, limits, columns=columns, labels=labels)
        since = _us(rollout.started_at)
        before = self._p.database.read(lambda tx: self._p.store.arrived_before(tx, rollout.model, since))
        return _Followed(start, {}, {}, task, scale, before, array("q"))

    def _follow(self, rollout: Rollout) -> _Followed:
        """Bring the rollout's trial up to the end of the journal, and to the last label."""
        followed = self._followed.get(rollout.id)
        if followed is None:
            followed = self._followed[rollout.id] = self._begin(rollout)
        since = _us(rollout.started_at)
        until = _us(rollout.updated_at) if rollout.ended else None  # what both versions answer later is no trial
        found: list[tuple[int, str, Answer]] = []
        for path in sorted(self._p.journal.glob(f"*{SUFFIX}")):
            for record, behind in records_from(path, followed.offsets.get(path.name, 0)):
                followed.offsets[path.name] = behind
                if (
                    record.model == rollout.model
                    and record.role != BATCH_ROLE  # a scored table says nothing about traffic
                    and record.at >= since
                    and (until is None or record.at <= until)
                    and record.digest in (rollout.stable, rollout.challenger)
                ):
                    found.append((record.at, record.id, self._answer(record, rollout, followed)))
        # Workers and shadows write segments of their own; only in the order of time do both versions' answers meet.
        answers = (answer for _, _, answer in sorted(found, key=lambda f: f[:2]))
        followed.trial = followed.trial.add(answers)
        while LABEL_LOSS in followed.trial.metrics and self._take_labels(rollout, followed, since, until):
            pass
        return followed

    def _answer(self, record: Prediction, rollout: Rollout, followed: _Followed) -> Answer:
        arm = Arm.CHALLENGER if record.digest == rollout.challenger else Arm.STABLE
        if arm is Arm.CHALLENGER:
            followed.requests[record.generation] = followed.requests.get(record.generation, 0) + 1
        reference = self._p.observer.reference(rollout.stable)
        rows = [s if isinstance(s, list) else [s] for s in self._p.observer.scores(record)]
        width = len(reference.score) if reference else 0
        # A score of another width, such as that of a challenger that knows one class more, has no ranks in it.
        ranked = [reference.ranks(row) for row in rows if len(row) == width] if reference and not record.error else []
        means = tuple(sum(column) / len(column) for column in zip(*ranked, strict=True)) if ranked else ()
        seconds = record.duration / 1e6
        return Answer(arm, seconds, bool(record.error), record.not_finite, means)

    def _take_labels(self, rollout: Rollout, followed: _Followed, since: int, until: int | None) -> bool:
        """Take the next labels into the trial; whether there may be more.

        One a request, the first that came: rows of one request rise and fall together, and would make the evidence
        look stronger than it is. What comes after the end changes the trial no more.
        """
        arrivals, scored = self._arrived(rollout.model, followed.label)
        losses: list[tuple[Arm, float]] = []
        for arrival in arrivals:
            row = scored.get((arrival.label.prediction, arrival.label.row))
            late = until is not None and arrival.label.at_us > until
            if row is None or late or row.at_us < since or row.digest not in (rollout.stable, rollout.challenger):
                continue
            score = row.score if row.vector is None else row.vector
            value = None if score is None else loss(followed.task, score, arrival.label.value, followed.scale)
            if value is None or row.role == "shadow":
                continue
            arm = Arm.CHALLENGER if row.digest == rollout.challenger else Arm.STABLE
            losses.append((arm, value))
            if arm is Arm.CHALLENGER:
                followed.labelled.append(row.at_us)
        followed.trial = followed.trial.labelled(losses)
        followed.label = arrivals[-1].number if arrivals else followed.label
        return len(arrivals) == _BATCH

    def _arrived(self, model: str, after: int) -> tuple[list[Arrival], dict[tuple[str, int], Scored]]:
        """The next first labels, and the rows that they are of."""
        store = self._p.store
        arrivals = self._p.database.read(lambda tx: store.arrivals(tx, model, after, _BATCH))
        ids = [a.label.prediction for a in arrivals]
        return arrivals, self._p.database.read(lambda tx: store.scored(tx, ids)) if ids else {}


def _judged(rollout: Rollout, followed: _Followed) -> TrialReport:
    """The trial's report. A shadow waits for no labels: nobody gets its answers, so nobody sends what became of them."""
    waits = followed.trial.waits_for_labels and rollout.stage != "shadow"
    return judge(msgspec.structs.replace(followed.trial, waits_for_labels=waits))


def _us(moment: str) -> int:
    """µs since 1970."""
    return int(parse_iso(moment).timestamp() * 1e6)
