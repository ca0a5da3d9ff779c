"""What flows say while they run: kept in memory for those who watch, and in `metrics.db` for later.

Survives a process crash, not a power cut: events are news, the truth is in the audit log.
"""

from __future__ import annotations

import contextlib
import threading
from collections import OrderedDict
from typing import Any

import msgspec
from sqlalchemy import Column, Float, Integer, MetaData, String, Table, insert, select

from falaj.kernel.clock import Clock, iso
from falaj.kernel.errors import Unavailable
from falaj.storage.keychain import keys_of, not_held
from falaj.storage.sealed import open_text, seal_text
from falaj.storage.sql.sqlite import SqliteDatabase

metadata = MetaData()
flow_events = Table(
    "flow_events",
    metadata,
    Column("flow", String, primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("event", String, nullable=False),
)
metric_points = Table(
    "metric_points",
    metadata,
    Column("run", String, primary_key=True),
    Column("key", String, primary_key=True),
    Column("step", Integer, primary_key=True),
    Column("value", Float, nullable=False),
    Column("at", String, nullable=False),
)
_KEPT = 64  # flows kept in memory
_IDENTITY = "events"


class EventLog:
    """Events by flow, numbered from 1, and the points of learning curves."""

    def __init__(self, database: SqliteDatabase, clock: Clock) -> None:
        self._database = database
        self._clock = clock
        self._flows: OrderedDict[str, list[dict[str, Any]]] = OrderedDict()
        self._changed = threading.Condition()
        self._closed = False
        self._stirred = 0
        database.change(metadata.create_all)

    def append(self, flow: str, event: dict[str, Any]) -> None:
        """Keep an event. A metric that names its run is a point of that run's curves too, unless it is not a number
        (JSON has no NaN: it comes as null). While the process stops, events are dropped: news never fails a flow."""
        with contextlib.suppress(Unavailable):
            self._append(flow, event)

    def _append(self, flow: str, event: dict[str, Any]) -> None:
        with self._changed:
            events = self._load(flow)
            event = {"number": len(events) + 1, "at": iso(self._clock.now()), **event}
            events.append(event)
            row = {"flow": flow, "number": event["number"], "event": self._sealed(msgspec.json.encode(event).decode())}
            self._database.submit(lambda tx: tx.execute(insert(flow_events).prefix_with("OR REPLACE"), row))
            self._changed.notify_all()
        if event.get("type") == "metric" and event.get("run") and isinstance(event.get("value"), float | int):
            self.points(event["run"], [(event["key"], event["step"], event["value"])])

    def wait(self, flow: str, after: int, seconds: float) -> tuple[dict[str, Any], ...]:
        """Events after number `after`; waits up to `seconds` for the first."""
        with self._changed:
            began = self._stirred
            self._changed.wait_for(
                lambda: self._closed or self._stirred > began or len(self._load(flow)) > after, timeout=seconds
            )
            return tuple(self._load(flow)[after:])

    def stir(self) -> None:
        """Let those who wait look again, also when the news could not be kept."""
        with self._changed:
            self._stirred += 1
            self._changed.notify_all()

    def close(self) -> None:
        """Let nobody wait any longer: the process is about to end."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def points(self, run: str, points: list[tuple[str, int, float]]) -> None:
        """Keep points of learning curves: (key, step, value). A repeated point replaces the first."""
        at = iso(self._clock.now())
        rows = [{"run": run, "key": k, "step": s, "value": v, "at": at} for k, s, v in points]
        self._database.submit(lambda tx: tx.execute(insert(metric_points).prefix_with("OR REPLACE"), rows))

    def curves(self, run: str) -> dict[str, list[tuple[int, float]]]:
        """Learning curves of a run: key → [(step, value)]."""
        query = select(metric_points.c.key, metric_points.c.step, metric_points.c.value).where(
            metric_points.c.run == run
        )
        curves: dict[str, list[tuple[int, float]]] = {}
        rows = self._database.read(
            lambda tx: tx.execute(query.order_by(metric_points.c.key, metric_points.c.step)).all()
        )
        for key, step, value in rows:
            curves.setdefault(key, []).append((step, value))
        return curves

    def _sealed(self, event: str) -> str:
        keys = keys_of(self._database.path).flows
        if not keys:
            raise not_held("the news of flows")
        return seal_text(event, keys[0], _IDENTITY)

    def _load(self, flow: str) -> list[dict[str, Any]]:
        if flow not in self._flows:
            query = select(flow_events.c.event).where(flow_events.c.flow == flow).order_by(flow_events.c.number)
            # Through the writer, after what was appended before: a number is never given twice.
            rows = self._database.change(lambda tx: tx.execute(query).scalars().all())
            self._flows[flow] = [
                msgspec.json.decode(open_text(r, keys_of(self._database.path).flows, _IDENTITY)) for r in rows
            ]
            while len(self._flows) > _KEPT:
                self._flows.popitem(last=False)
        return self._flows[flow]
