"""Turns journal records into scored rows and windows, and judges windows when their time is over."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import msgspec

from falaj.kernel.clock import Clock, iso
from falaj.kernel.errors import FalajError
from falaj.kernel.log import logger
from falaj.lifecycle.evidence.model import Verdict
from falaj.lifecycle.monitoring.drift import DriftReport, ReferenceProfile, Window, drift, read_reference, window
from falaj.lifecycle.monitoring.model import Scored, WindowRow
from falaj.lifecycle.monitoring.policy import MonitorPolicy
from falaj.lifecycle.monitoring.ports import Incidents, Policies, RecordStore, Versions
from falaj.lifecycle.serving.plane.journal import Prediction
from falaj.storage.sql.database import Database, Tx

_log = logger(__name__)
_Key = tuple[str, str, int]  # model, digest, start of the window in µs


class Ports(msgspec.Struct, frozen=True):
    """What observing works with. `database` is the one of metrics."""

    database: Database
    store: RecordStore
    versions: Versions
    policies: Policies
    incidents: Incidents
    clock: Clock


class Observer:
    """The sink of the journal's tail. Windows are kept with the cursor, so a restart goes on with them."""

    def __init__(self, ports: Ports) -> None:
        self._p = ports
        self._references: dict[str, ReferenceProfile | None] = {}
        self._scores: dict[str, str] = {}
        self._open: dict[_Key, Window] = {}
        self._judged: set[_Key] = set()
        self._left: set[_Key] = set()  # with nothing to judge it by: not asked for again
        self._lock = threading.Lock()

    def load(self, models: list[str]) -> None:
        """Take up the windows that were kept."""
        for model in models:
            for row in self._kept(model):
                key = (model, row.digest, row.start_us)
                self._open[key] = msgspec.json.decode(row.window, type=Window)
                if row.judged:
                    self._judged.add(key)

    def __call__(self, batch: list[Prediction], segment: str, end: int) -> None:
        """Take records in order, up to offset `end` of `segment`."""
        scored: list[Scored] = []
        touched: dict[_Key, Window] = {}
        for record in batch:
            scored += self._scored(record)
            if not record.primary or (record.error and record.role != "shadow"):
                self._count(record, touched)
        rows = [_kept_as(key, live, judged=key in self._judged) for key, live in touched.items()]

        def work(tx: Tx) -> None:
            self._p.store.add_predictions(tx, scored, segment, end)
            for row in rows:
                self._p.store.put_window(tx, row)

        self._p.database.change(work)
        with self._lock:
            self._open.update(touched)

    def judge(self, serving: Callable[[], dict[str, str]]) -> None:
        """Judge windows whose time is over; drift of the version that serves opens an incident.

        `serving` (model → digest) is asked only when a window has drifted: this is called several times a second.
        """
        now = int(self._p.clock.now().timestamp() * 1e6)
        with self._lock:
            closed = self._judged | self._left
            due = [(k, w) for k, w in self._open.items() if w.end_us <= now and k not in closed]
        for (model, digest, start), live in due:
            policy, reference = self._p.policies.monitor(model), self.reference(digest)
            if policy is None or reference is None:
                self._left.add((model, digest, start))
                continue
            report = drift(reference, live, policy)
            if report.verdict is Verdict.FAILED and serving().get(model) == digest:
                self._p.incidents.open(
                    model, "drift", digest, f"{_day(live.start_us)} to {_day(live.end_us)}: {report.reason}"
                )
            self._close((model, digest, start), live)

    def _close(self, key: _Key, live: Window) -> None:
        """Remember that a window was judged: only now, so that a failure before is made good by the next look."""
        row = _kept_as(key, live, judged=True)
        self._p.database.change(lambda tx: self._p.store.put_window(tx, row))
        with self._lock:
            self._judged.add(key)

    def windows(self, model: str) -> list[tuple[Window, DriftReport | None]]:
        """A model's windows, oldest first, with the report of those that can be judged."""
        return [(live, self._report(model, live)) for live in self._live(model)]

    def window(self, model: str, digest: str, at_us: int | None = None) -> tuple[Window, DriftReport | None] | None:
        """The window of a version that a moment (µs since 1970) falls into, or the newest, with its report."""
        found = [w for w in self._live(model) if w.digest == digest]
        if at_us is not None:
            found = [w for w in found if w.start_us <= at_us < w.end_us]
        return (found[-1], self._report(model, found[-1])) if found else None

    def _live(self, model: str) -> list[Window]:
        with self._lock:
            return [w for _, w in sorted((k, w) for k, w in self._open.items() if k[0] == model)]

    def _report(self, model: str, live: Window) -> DriftReport | None:
        policy, reference = self._p.policies.monitor(model), self.reference(live.digest)
        return drift(reference, live, policy) if reference and policy else None

    def reference(self, digest: str) -> ReferenceProfile | None:
        """The frozen reference of a version; None when it has none that can be read, and for an answer of no version."""
        if not digest:
            return None
        if digest not in self._references:
            try:
                contract = self._p.versions.contract(digest)
                self._references[digest] = read_reference(self._p.versions.profile_of(digest), contract)
                self._scores[digest] = contract.score
            except FalajError as e:
                _log.warning("no_reference", digest=digest, reason=e.message)
                self._references[digest] = None
        return self._references[digest]

    def scores(self, record: Prediction) -> list[Any]:
        """The judged output of each row; empty when there is no answer."""
        self.reference(record.digest)
        return record.outputs.get(self._scores.get(record.digest, ""), [])

    def _kept(self, model: str) -> list[WindowRow]:
        return self._p.database.read(lambda tx: self._p.store.windows(tx, model))

    def _scored(self, record: Prediction) -> list[Scored]:
        found = self.scores(record) or [None] * record.rows
        return [
            Scored(record.id, i, record.model, record.digest, record.role, record.at, _number(value), _vector(value))
            for i, value in enumerate(found)
        ]

    def _count(self, record: Prediction, touched: dict[_Key, Window]) -> None:
        reference, policy = self.reference(record.digest), self._p.policies.monitor(record.model)
        if reference is None or policy is None:
            return
        start, end = span(record.at, policy)
        key = (record.model, record.digest, start)
        with self._lock:
            kept = touched.get(key) or self._open.get(key)
        live = kept if kept and kept.reference == reference.digest else window(record.digest, reference, start, end)
        health = live.health.add(record.duration / 1e6, failed=bool(record.error))
        live = msgspec.structs.replace(live, health=health)
        if not record.error:
            live = live.add(reference, record.at, {**record.inputs, **record.features}, self.scores(record))
        touched[key] = live


def _kept_as(key: _Key, live: Window, *, judged: bool) -> WindowRow:
    return WindowRow(*key, msgspec.json.encode(live).decode(), judged)


def span(at_us: int, policy: MonitorPolicy) -> tuple[int, int]:
    """The window that a moment falls into, [start, end) in µs since 1970."""
    length = policy.window_seconds * 1_000_000
    start = at_us // length * length
    return start, start + length


def _number(value: Any) -> float | None:
    return float(value) if _finite(value) else None


def _vector(value: Any) -> tuple[float, ...] | None:
    """An answer of several finite numbers, such as class probabilities."""
    return tuple(float(v) for v in value) if isinstance(value, list) and all(_finite(v) for v in value) else None


def _finite(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _day(us: int) -> str:
    return iso(datetime.fromtimestamp(us / 1e6, UTC))[:10]
