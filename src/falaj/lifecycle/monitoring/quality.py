"""Labels, and windows with their drift and quality, as people ask for them."""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import msgspec

from falaj.governance.door import Done, Door, Intent
from falaj.kernel.access import Principal, Resource
from falaj.kernel.clock import iso
from falaj.kernel.digests import digest_of
from falaj.kernel.errors import Invalid
from falaj.lifecycle.monitoring.drift import DriftReport, Window
from falaj.lifecycle.monitoring.model import LABELS_PUSH, Claimed, Label, Slot, WindowView
from falaj.lifecycle.monitoring.observer import Observer
from falaj.lifecycle.monitoring.ports import RecordStore, Versions
from falaj.lifecycle.serving.plane.journal import segment_of
from falaj.statistics.ranking import roc_auc
from falaj.storage.sql.database import Database, Tx

_ROW_DIGITS = 9  # no request has more rows


class Ports(msgspec.Struct, frozen=True):
    """What quality works with. `database` is the one of metrics."""

    database: Database
    store: RecordStore
    versions: Versions
    observer: Observer
    claim: Callable[[str], Claimed | None]


class QualityService:
    """Labels as they come, and quality by window."""

    def __init__(self, door: Door, ports: Ports) -> None:
        self._door = door
        self._p = ports

    def push(self, actor: Principal, model: str, rows: list[tuple[str, float]]) -> dict[str, Any]:
        """Take labels: (prediction id, with /row unless it is the first row; value). A label that comes again corrects the first.

        Labels of rows that the model did not answer, or whose record was not read yet, are counted as unknown and not
        kept: send them again. Raises `Denied`, and `Invalid` for an id that names no row or a value that is not finite.
        """
        now = self._door.clock.now()
        at = int(now.timestamp() * 1e6)
        parsed = [(_parse(prediction), _finite(prediction, value)) for prediction, value in rows]
        known = self._p.database.read(lambda tx: self._p.store.known(tx, model, sorted({place for place, _ in parsed})))
        kept = [Label(*place, model, value, at) for place, value in parsed if place in known]
        if kept:
            self._p.database.change(lambda tx: self._p.store.add_labels(tx, kept))
        answer = {"accepted": len(kept), "unknown": len(parsed) - len(kept)}

        def do(_tx: Tx) -> Done[dict[str, Any]]:
            return Done(answer)

        detail = {**answer, "root": digest_of([[k.prediction, k.row, k.value] for k in kept])}
        return self._door.change(Intent(actor, LABELS_PUSH, Resource("Model", model), detail=detail), do)

    def windows(self, model: str) -> list[WindowView]:
        """A model's windows, oldest first."""
        return [self._view(model, live, report) for live, report in self._p.observer.windows(model)]

    def window(self, model: str, digest: str, at_us: int | None = None) -> WindowView | None:
        """The window of a version that a moment (µs since 1970) falls into, or its newest; None when there is none."""
        found = self._p.observer.window(model, digest, at_us)
        return self._view(model, *found) if found else None

    def label(self, prediction: str, row: int) -> Label | None:
        """What became true of a row, if it was sent."""
        found = self._p.database.read(lambda tx: self._p.store.labels_of(tx, prediction))
        return next((label for label in found if label.row == row), None)

    def slots(self, model: str, digests: list[str], span_us: tuple[int, int], width_us: int) -> list[Slot]:
        """Requests and mean scores of these versions within `span_us` (µs since 1970, both ends), in slots of `width_us`."""
        return self._p.database.read(lambda tx: self._p.store.slots(tx, model, digests, span_us, width_us))

    def _view(self, model: str, live: Window, report: DriftReport | None) -> WindowView:
        pairs = self._p.database.read(
            lambda tx: self._p.store.labelled(tx, model, live.digest, live.start_us, live.end_us)
        )
        task = self._p.versions.contract(live.digest).task
        metric, quality = measure(task, pairs)
        score = max((s.psi for s in report.score), default=0.0) if report else 0.0
        claimed = self._p.claim(live.digest)
        return WindowView(
            model=model,
            digest=live.digest,
            start=_moment(live.start_us),
            end=_moment(live.end_us),
            rows=live.rows,
            verdict=report.verdict.value if report else "Inconclusive",
            reason=report.reason if report else "there is no reference to compare with",
            score_psi=score,
            drifted=report.drifted if report else (),
            features={s.name: round(s.psi, 4) for s in report.features} if report else {},
            labels=len(pairs),
            metric=metric,
            quality=quality,
            errors=live.health.errors,
            p50_ms=live.health.quantile_ms(0.5),
            p99_ms=live.health.quantile_ms(0.99),
            claims=None if claimed is None else claimed.claims,
        )


def measure(task: str, pairs: list[tuple[float, float]]) -> tuple[str, float | None]:
    """The quality of scored and labelled rows: ROC AUC for binary, mean absolute error for regression; None without enough."""
    if task == "binary":
        value = roc_auc((score, label > 0.5) for score, label in pairs)
        return "roc_auc", None if value != value else value
    if task == "regression":
        return "mae", sum(abs(s - y) for s, y in pairs) / len(pairs) if pairs else None
    return "", None


def _finite(prediction: str, value: float) -> float:
    if not math.isfinite(value):
        raise Invalid(
            f"the label of {prediction[:80]!r} is not a finite number",
            hint="send 1 or 0 for a binary label, the class's position for several, the value for a regression",
            code="bad_label",
        )
    return value


def _parse(prediction: str) -> tuple[str, int]:
    """The prediction's id and the row that are meant. Raises `Invalid`."""
    identifier, _, row = prediction.partition("/")
    segment_of(identifier)
    if row and not (row.isascii() and row.isdigit() and len(row) <= _ROW_DIGITS):
        raise Invalid(
            f"{prediction[:80]!r} names no row",
            hint="write the prediction's id, and /row for a later row",
            code="bad_prediction_id",
        )
    return identifier, int(row or 0)


def _moment(us: int) -> str:
    return iso(datetime.fromtimestamp(us / 1e6, UTC))
