"""Judges a challenger by what the journal and the data plane's guard say: the `Analyst` of rollouts."""

from __future__ import annotations

import threading
from pathlib import Path

import msgspec

from falaj.kernel.clock import parse_iso
from falaj.lifecycle.evidence.model import Verdict
from falaj.lifecycle.monitoring.analysis import Answer, Trial, TrialReport, judge, trial
from falaj.lifecycle.monitoring.observer import Observer
from falaj.lifecycle.monitoring.ports import DataPlane
from falaj.lifecycle.monitoring.tail import Tail
from falaj.lifecycle.rollout.strategy import Analysis, Rollout
from falaj.lifecycle.serving.plane.journal import SUFFIX, Prediction, records_from
from falaj.statistics.sequential import Arm


class _Followed(msgspec.Struct):
    """A trial, the journal offsets that are in it, and how many of the challenger's requests each generation had."""

    trial: Trial
    offsets: dict[str, int]
    requests: dict[int, int]


class JournalAnalyst:
    """Reads the journal for each rollout by itself, from the rollout's start, so a restart changes nothing."""

    def __init__(self, journal: Path, observer: Observer, plane: DataPlane, tail: Tail) -> None:
        self._journal = journal
        self._observer = observer
        self._plane = plane
        self._tail = tail
        self._followed: dict[str, _Followed] = {}
        self._lock = threading.Lock()

    def analyse(self, rollout: Rollout) -> Analysis:
        """Judge now. A trip of the data plane's guard is a failure whatever the trial says."""
        with self._lock:
            followed = self._follow(rollout)
            requests = followed.requests.get(rollout.generation, 0)
            report = judge(followed.trial)
        for worker in self._plane.workers():
            for trip in worker.guards:
                if trip.digest == rollout.challenger and trip.generation >= rollout.generation:
                    reason = f"the data plane's guard stopped it: {trip.reason} {trip.observed:.3g}, at most {trip.limit:.3g}"
                    detail = {"bad_answers": float(trip.bad_answers), "count": float(trip.count)}
                    return Analysis(Verdict.FAILED, reason, requests, detail)
        return msgspec.structs.replace(report.analysis(), requests=requests)

    def report(self, rollout: Rollout) -> TrialReport:
        """Every metric as it stands now, or as it stood when the rollout ended."""
        with self._lock:
            return judge(self._follow(rollout).trial)

    def wait(self, seconds: float) -> None:
        """Until the tail has read something, or the time is over."""
        with self._tail.news:
            self._tail.news.wait(seconds)

    def _follow(self, rollout: Rollout) -> _Followed:
        """Bring the rollout's trial up to the end of the journal."""
        followed = self._followed.get(rollout.id)
        if followed is None:
            reference = self._observer.reference(rollout.stable)
            columns = len(reference.score) if reference else 0
            start = trial(rollout.stable, rollout.challenger, rollout.strategy.limits, columns=columns)
            followed = self._followed[rollout.id] = _Followed(start, {}, {})
        since = _us(rollout.started_at)
        until = _us(rollout.updated_at) if rollout.ended else None  # what both versions answer later is no trial
        for path in sorted(self._journal.glob(f"*{SUFFIX}")):
            answers: list[Answer] = []
            for record, behind in records_from(path, followed.offsets.get(path.name, 0)):
                followed.offsets[path.name] = behind
                if (
                    record.model == rollout.model
                    and record.at >= since
                    and (until is None or record.at <= until)
                    and record.digest in (rollout.stable, rollout.challenger)
                ):
                    answers.append(self._answer(record, rollout, followed))
            followed.trial = followed.trial.add(answers)
        return followed

    def _answer(self, record: Prediction, rollout: Rollout, followed: _Followed) -> Answer:
        arm = Arm.CHALLENGER if record.digest == rollout.challenger else Arm.STABLE
        if arm is Arm.CHALLENGER:
            followed.requests[record.generation] = followed.requests.get(record.generation, 0) + 1
        reference = self._observer.reference(rollout.stable)
        rows = [s if isinstance(s, list) else [s] for s in self._observer.scores(record)]
        ranked = [reference.ranks(row) for row in rows] if reference and not record.error else []
        means = tuple(sum(column) / len(column) for column in zip(*ranked, strict=True)) if ranked else ()
        seconds = record.duration / 1e6
        return Answer(arm, seconds, bool(record.error), record.error == "no_finite_answer", means)


def _us(moment: str) -> int:
    """µs since 1970."""
    return int(parse_iso(moment).timestamp() * 1e6)
