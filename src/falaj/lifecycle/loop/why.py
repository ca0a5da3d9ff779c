"""Why one prediction is as it is: everything that is known of it, from its inputs to whoever approved its version.

The record comes from the data plane's journal, the rest from the stages. How the version got its traffic is
read from the audit log by the order of its entries, not by their times: a home's clock may have been moved.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import msgspec

from falaj.governance.audit.model import MAX_FOUND, Conditions, Found
from falaj.governance.audit.service import AuditService
from falaj.governance.changes.model import Approval
from falaj.governance.changes.service import ChangeService
from falaj.kernel.clock import iso
from falaj.kernel.environments import PRODUCTION
from falaj.kernel.errors import NotFound
from falaj.lifecycle.data.service import DataService
from falaj.lifecycle.monitoring.incidents import IncidentService
from falaj.lifecycle.monitoring.model import EVERY_MODEL, Incident, Label, WindowView
from falaj.lifecycle.monitoring.quality import QualityService
from falaj.lifecycle.registry.model import ModelVersion
from falaj.lifecycle.registry.service import RegistryService
from falaj.lifecycle.rollout.model import PLAN_SET
from falaj.lifecycle.rollout.service import RolloutService
from falaj.lifecycle.rollout.strategy import ROLLOUT_START, ROLLOUT_STEER, ROLLOUT_STEP, Rollout
from falaj.lifecycle.serving.model import BUNDLE_PUBLISH
from falaj.lifecycle.serving.plane.journal import Prediction, row_of
from falaj.lifecycle.training.model import ModelContract, Run
from falaj.lifecycle.training.service import TrainingService


class Lookup(msgspec.Struct, frozen=True):
    """What was looked up of one view for the row. `age_seconds` is how old the value was; None when nothing was found.

    status: present · expired (older than the TTL, or from the future: not used) · missing.
    """

    view: str
    key: str
    entity: Any
    status: str
    values: dict[str, Any]
    event_time: str
    age_seconds: float | None
    ttl_seconds: int


class Dataset(msgspec.Struct, frozen=True):
    """A dataset version that the training run read; the digest is empty when it is not known any more."""

    name: str
    version: int
    digest: str


class Traffic(msgspec.Struct, frozen=True):
    """How the version came to answer: the generation and its plan, and the flow that brought the version in.

    how: release (at once) · rollout (step by step) · roll back · unknown. `ordered` says who started it by hand or
    gave the traffic back, and why, when that was so.
    """

    generation: int
    published_at: str
    role: str
    weight: int | None
    how: str
    flow: str
    since: str
    rollout: Rollout | None
    approvals: tuple[Approval, ...]
    ordered: dict[str, Any] | None


class Why(msgspec.Struct, frozen=True):
    """The whole answer. `row` is the row that features and label are of; `log` the audit entries of the release."""

    prediction: dict[str, Any]
    row: int
    features: tuple[Lookup, ...]
    version: dict[str, Any]
    traffic: Traffic
    run: Run | None
    datasets: tuple[Dataset, ...]
    label: Label | None
    review: dict[str, Any] | None
    window: WindowView | None
    incidents: tuple[Incident, ...]
    log: tuple[dict[str, Any], ...]


class Ports(msgspec.Struct, frozen=True):
    """Whom the answer is asked of. `record` raises `NotFound`, `Invalid`, `Integrity`; `reviewed` gives what people said of a row."""

    record: Callable[[str], Prediction]
    registry: RegistryService
    changes: ChangeService
    rollout: RolloutService
    training: TrainingService
    data: DataService
    quality: QualityService
    reviewed: Callable[[str, int], dict[str, Any] | None]
    incidents: IncidentService
    audit: AuditService


class WhyService:
    """One prediction, explained from its record back to its data."""

    def __init__(self, ports: Ports) -> None:
        self._p = ports

    def explain(self, prediction: str) -> Why:
        """Everything about a prediction, or about one row of it (`ID/ROW`). Raises `NotFound`, `Invalid`."""
        p, record = self._p, self._p.record(prediction)
        row = row_of(prediction, record)
        version = p.registry.by_digest(record.digest)
        run = self._run(version.run)
        window = p.quality.window(record.model, record.digest, record.at)
        published = self._published(record.generation)
        brought = self._brought(record, published)
        traffic = self._traffic(record, version, published, brought)
        return Why(
            prediction=msgspec.to_builtins(record),
            row=row,
            features=looked_up(record, p.registry.contract(record.digest), row),
            version={
                "alias": version.alias,
                **msgspec.to_builtins(version),
                "imported": msgspec.to_builtins(p.registry.lacking(version)),
            },
            traffic=traffic,
            run=run,
            datasets=tuple(self._dataset(n, v) for n, v in run.datasets.items()) if run else (),
            label=p.quality.label(record.id, row),
            review=p.reviewed(record.id, row),
            window=window,
            incidents=tuple(self._incidents(record)),
            log=tuple(_told(f) for f in self._log(version, traffic.flow)),
        )

    def _run(self, run: str) -> Run | None:
        try:
            return self._p.training.run(run)
        except NotFound:
            return None

    def _dataset(self, name: str, version: int) -> Dataset:
        found = (d.digest for d in self._p.data.versions(name) if d.version == version)
        return Dataset(name, version, next(found, ""))

    def _incidents(self, record: Prediction) -> Iterator[Incident]:
        """Those of the model, or of all, that were open at that moment."""
        at = iso(_moment(record.at))
        for i in self._p.incidents.all():
            if i.model in (record.model, EVERY_MODEL) and i.opened_at <= at and (not i.closed_at or at < i.closed_at):
                yield i

    # how it got its traffic

    def _published(self, generation: int) -> Found | None:
        """The entry of the bundle that answered."""
        for entry in self._entries(action=BUNDLE_PUBLISH.name, resource_id=PRODUCTION):
            number = entry.entry.detail.get("generation", generation + 1)
            if number <= generation:
                return entry if number == generation else None
        return None

    def _brought(self, record: Prediction, published: Found | None) -> list[Found]:
        """The plans with the version in them up to that bundle, without a break, newest first."""
        if published is None:
            return []
        found: list[Found] = []
        for entry in self._entries(action=PLAN_SET.name, resource_id=record.model, before_index=published.index):
            if entry.entry.detail.get("environment") != PRODUCTION:  # staging's plans are about the same model
                continue
            if not any(r["digest"] == record.digest for r in entry.entry.detail.get("routes", ())):
                break
            found.append(entry)
        return found

    def _traffic(
        self, record: Prediction, version: ModelVersion, published: Found | None, brought: list[Found]
    ) -> Traffic:
        flow = brought[-1].entry.operation_id.partition(":")[0] if brought else ""
        routes = brought[0].entry.detail["routes"] if brought else ()
        rollout = self._rollout(flow)
        approvals = tuple(a for a in self._p.changes.of(version.digest) if a.evidence == version.evidence)
        approved = any(flow.partition("_")[2] == a.id.partition("_")[2] for a in approvals)
        ordered = None if rollout or approved or not brought else self._ordered(record, brought[-1], flow)
        given_back = bool(ordered and ordered["given_back"])
        how = "rollout" if rollout else "roll back" if given_back else "release" if approved or ordered else "unknown"
        return Traffic(
            generation=record.generation,
            published_at=published.entry.at if published else "",
            role=record.role,
            weight=next((r["weight"] for r in routes if r["digest"] == record.digest), None),
            how=how,
            flow=flow,
            since=brought[-1].entry.at if brought else "",
            rollout=rollout,
            approvals=approvals,
            ordered=ordered,
        )

    def _rollout(self, flow: str) -> Rollout | None:
        try:
            return self._p.rollout.rollout(flow) if flow.startswith("rol_") else None
        except NotFound:
            return None

    def _ordered(self, record: Prediction, plan: Found, flow: str) -> dict[str, Any] | None:
        """Who started this flow by hand, or gave the traffic back to this version, if somebody did."""
        where: dict[str, Any] = {"resource_id": record.model, "before_index": plan.index}
        started = self._entries(action=ROLLOUT_START.name, **where)
        by_hand = next((f for f in started if f.entry.detail.get("flow") == flow), None)
        steered = self._entries(action=ROLLOUT_STEER.name, **where)
        found = by_hand or next((f for f in steered if f.entry.detail.get("back_to") == record.digest), None)
        if found is None:
            return None
        return {
            "given_back": by_hand is None,
            "principal": found.entry.principal,
            "at": found.entry.at,
            "reason": found.entry.detail.get("reason", ""),
        }

    def _log(self, version: ModelVersion, flow: str) -> list[Found]:
        """What was done to the version, and by the flow that brought it into traffic; oldest first."""
        names = {version.alias, msgspec.structs.replace(version, number=0).alias}
        found = {f.index: f for n in names for f in self._entries(resource_type="ModelVersion", resource_id=n)}
        if flow:
            of_model = [(action, version.model) for action in (PLAN_SET, ROLLOUT_START, ROLLOUT_STEP)]
            for action, resource in (*of_model, (BUNDLE_PUBLISH, PRODUCTION)):
                entries = self._entries(action=action.name, resource_id=resource)
                found.update((f.index, f) for f in entries if f.entry.operation_id.startswith(f"{flow}:"))
        return [found[index] for index in sorted(found)]

    def _entries(self, before_index: int | None = None, **conditions: str) -> Iterator[Found]:
        """Entries that were done or refused, newest first, page by page."""
        while True:
            page = self._p.audit.search(Conditions(limit=MAX_FOUND, before_index=before_index, **conditions))  # type: ignore[arg-type]
            yield from page
            if len(page) < MAX_FOUND:
                return
            before_index = page[-1].index


def looked_up(record: Prediction, contract: ModelContract, row: int) -> tuple[Lookup, ...]:
    """What the data plane found in each view for a row, and how old it was then."""
    found = []
    for view in contract.views:
        moment = _at(record.event_times.get(view.name, []), row)
        found.append(
            Lookup(
                view=view.name,
                key=view.key,
                entity=_at(record.inputs.get(view.key, []), row),
                status=_at(record.statuses.get(view.name, []), row) or "",
                values={name: _at(record.features.get(name, []), row) for name in view.columns},
                event_time="" if moment is None else iso(_moment(moment)),
                age_seconds=None if moment is None else (record.at - moment) / 1e6,
                ttl_seconds=view.ttl_seconds,
            )
        )
    return tuple(found)


def _told(found: Found) -> dict[str, Any]:
    return {"index": found.index, "signed": found.signed, **msgspec.to_builtins(found.entry)}


def _at(values: list[Any], row: int) -> Any:
    return values[row] if row < len(values) else None


def _moment(us: int) -> datetime:
    return datetime.fromtimestamp(us / 1e6, UTC)
