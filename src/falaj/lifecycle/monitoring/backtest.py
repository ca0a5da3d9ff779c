"""What another version would have answered: the question is authorised, the step is given what it needs, the end is
audited. Reading and measuring is done in a step process (`steps.backtest`)."""

from __future__ import annotations

import csv
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import msgspec

from falaj.governance.door import Done, Door, Intent
from falaj.kernel.access import Principal, Resource
from falaj.kernel.clock import parse_iso
from falaj.kernel.digests import digest_of
from falaj.kernel.errors import FalajError, Invalid, NotFound
from falaj.lifecycle.monitoring.model import (
    PERIODS,
    VERSION_BACKTEST,
    Answerer,
    BacktestAsk,
    BacktestOutcome,
    BacktestTask,
    Recorded,
)
from falaj.lifecycle.monitoring.ports import RecordStore, Registry, Runs, Segments
from falaj.lifecycle.registry.ports import Blobs
from falaj.storage.sql.database import Database, Tx

_MODEL, _LABELS = "model", "labels.csv"


class Ports(msgspec.Struct, frozen=True):
    """What a backtest works with. `metrics` is the database of labels, `journal` the folder of the journal's segments,
    `tables` that of the predictions tables."""

    metrics: Database
    store: RecordStore
    registry: Registry
    runs: Runs
    blobs: Blobs
    segments: Segments
    journal: Path
    tables: Path


class BacktestService:
    """What another version would have answered on recorded traffic."""

    def __init__(self, door: Door, ports: Ports) -> None:
        self._door = door
        self._p = ports

    def ask(self, actor: Principal, version: tuple[str, int], since: str, until: str, by: str) -> BacktestAsk:
        """What is asked, once it is clear that it may be: `since` and `until` are days or moments, empty for no end.

        Raises `Denied`, `NotFound` for a version that is not there and `Invalid` for a range or period that is none.
        """
        found = self._p.registry.version(*version)
        self._door.check(self._intent(actor, found.alias))
        if by not in PERIODS:
            raise Invalid(f"{by[:20]!r} is no period", hint=f"use one of {', '.join(PERIODS)}", code="bad_period")
        start, end = _moment(since), _moment(until)
        if start is not None and end is not None and start >= end:
            raise Invalid(
                f"the range from {since} to {until} is empty",
                hint="let --from be before --until, which is not in the range itself",
                code="empty_range",
            )
        return BacktestAsk(found.model, found.alias, found.digest, by, start, end)

    def lay_out(self, ask: BacktestAsk, workspace: Path) -> BacktestTask:
        """The step's task; the version's files and the labels are written to the workspace."""
        version = self._p.registry.by_digest(ask.digest)
        for file in version.files:
            path = workspace / _MODEL / file.path
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            path.write_bytes(self._p.blobs.get(file.sha256))
        self._write_labels(ask.model, workspace / _LABELS)
        return BacktestTask(
            ask=ask,
            folder=str(workspace / _MODEL),
            recorded=self._recorded(ask.model),
            labels=str(workspace / _LABELS),
            answerers=self._answerers(ask.model),
            as_of_us=self._as_of(version.run),
        )

    def record(self, actor: Principal, ask: BacktestAsk, outcome: BacktestOutcome, operation_id: str) -> dict[str, Any]:
        """Audit what was asked and on how much the answer rests; returns the answer."""
        result: dict[str, Any] = msgspec.to_builtins(outcome)

        def do(_tx: Tx) -> Done[dict[str, Any]]:
            return Done(result)

        total = outcome.total
        detail = {
            "rows": total.rows,
            "labelled": total.labelled,
            "compared": total.compared,
            "result": digest_of(result),
        }
        return self._door.change(self._intent(actor, ask.alias, operation_id, {**_facts(ask), **detail}), do)

    def refuse(self, actor: Principal, ask: BacktestAsk, error: FalajError, operation_id: str) -> None:
        """Audit that it could not be said."""
        self._door.refuse(self._intent(actor, ask.alias, operation_id, _facts(ask)), error)

    def _recorded(self, model: str) -> Recorded:
        segments = self._p.segments.segments()
        versions = [t.version for s in segments for t in s.tables if t.model == model]
        return Recorded(
            model=model,
            journal=str(self._p.journal),
            table=str(self._p.tables / model),
            version=max(versions, default=-1),
            shipped=tuple(s.segment for s in segments),
        )

    def _answerers(self, model: str) -> dict[str, Answerer]:
        """The versions that may have answered. One whose contract cannot be read is left out: if it answered, the step
        refuses."""
        found: dict[str, Answerer] = {}
        for version in self._p.registry.versions(model):
            try:
                c = self._p.registry.contract(version.digest)
            except FalajError:
                continue
            views = {v.name: v.digest for v in c.views}
            found[version.digest] = Answerer(version.alias, c.task, c.label, c.classes, c.score, views)
        return found

    def _as_of(self, run: str) -> int | None:
        """What the version could have learnt from ends here, in µs since 1970; None for a run that is not known here."""
        try:
            return int(parse_iso(self._p.runs.run(run).as_of).timestamp() * 1e6)
        except (NotFound, ValueError):
            return None

    def _write_labels(self, model: str, path: Path) -> None:
        def write(tx: Tx) -> None:
            with path.open("w", encoding="ascii", newline="") as f:
                csv.writer(f).writerows(self._p.store.label_rows(tx, model))

        self._p.metrics.read(write)

    @staticmethod
    def _intent(actor: Principal, alias: str, operation_id: str = "", detail: dict[str, Any] | None = None) -> Intent:
        return Intent(actor, VERSION_BACKTEST, Resource("ModelVersion", alias), operation_id, detail=detail or {})


def _facts(ask: BacktestAsk) -> dict[str, Any]:
    return {"digest": ask.digest, "by": ask.by, "start_us": ask.start_us, "end_us": ask.end_us}


def _moment(text: str) -> int | None:
    """A day or a moment in µs since 1970; None for nothing. Raises `Invalid`."""
    if not text:
        return None
    try:
        if len(text) == len("2013-04-01"):
            day = date.fromisoformat(text)
            return int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp()) * 1_000_000
        return int(parse_iso(text).timestamp() * 1e6)
    except ValueError as e:
        raise Invalid(
            f"{text[:60]!r} is neither a day nor a moment: {e}",
            hint="write it like 2013-04-01 or 2013-04-01T06:00:00Z",
            code="bad_moment",
        ) from e
