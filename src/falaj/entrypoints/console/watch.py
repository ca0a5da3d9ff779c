"""Rollouts, drift and incidents of a real home, for the console."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from msgspec.structs import replace

from falaj.bootstrap.control_plane import ControlPlane
from falaj.entrypoints.console import rides
from falaj.entrypoints.console.logbook import LogBook
from falaj.entrypoints.console.sights import (
    Bars,
    DriftPage,
    Followed,
    IncidentsPage,
    Named,
    Pane,
    Past,
    Ride,
    RolloutPage,
    Trouble,
)
from falaj.entrypoints.console.views import Curve, Line, Watched
from falaj.governance.door import Intent
from falaj.kernel.access import SYSTEM, Action, Principal, Resource
from falaj.kernel.clock import iso, parse_iso
from falaj.kernel.digests import short
from falaj.kernel.errors import Conflict, FalajError, NotFound
from falaj.lifecycle.loop.flows.retrain import flow_of
from falaj.lifecycle.monitoring.drift import DriftReport, Shift
from falaj.lifecycle.monitoring.model import INCIDENT_RESOLVE, Incident, WindowView
from falaj.lifecycle.rollout.strategy import ROLLOUT_STEER, Rollout

MOST_RESOLVED = 50
"""Resolved incidents on the page; the log has them all."""


class WatchReader:
    """Three pages over the services of one home, and the two orders that they take."""

    def __init__(self, plane: ControlPlane, log: LogBook) -> None:
        self._p = plane
        self._log = log

    # rollout

    def rollout(self, viewer: Principal, model: str) -> RolloutPage:
        """A model's rollouts, the running or else the newest one drawn."""
        found = self._p.rollout.rollouts(model)
        names = self._names(model)
        shown = next((r for r in found if not r.ended), found[0] if found else None)
        guards = (g for w in self._p.monitoring.plane().workers for g in w.guards)
        return RolloutPage(
            model=model,
            ride=self._ride(shown, names) if shown else None,
            trips=rides.trips(guards, model),
            history=tuple(_past(r, names) for r in found),
            may_steer=self._may(viewer, ROLLOUT_STEER, Resource("Model", model)),
        )

    def order(self, viewer: Principal, model: str, rollout: str, what: str) -> None:
        """Promote or abort the rollout that the person saw. Raises `Conflict` when another one runs, or none."""
        running = self._p.rollout.running(model)
        if running is None or running.id != rollout:
            raise Conflict(
                f"the rollout {rollout[:60]} of {model} does not run any more",
                hint="look at the page again: it shows what runs now",
                code="rollout_not_running",
            )
        self._p.rollout.order(viewer, model, what)

    def _ride(self, rollout: Rollout, names: dict[str, Named]) -> Ride:
        challenger, stable = _named(names, rollout.challenger), _named(names, rollout.stable)
        start = _us(rollout.started_at)
        end = max(start, _us(rollout.updated_at if rollout.ended else iso(self._p.clock.now())))
        width = rides.width_of((end - start) / 1e6)
        digests = {stable.digest: stable.alias, challenger.digest: challenger.alias}
        slots = self._p.quality.slots(rollout.model, list(digests), (start, end), width * 1_000_000)
        ride = Ride(
            id=rollout.id,
            stage=rollout.stage,
            ended=rollout.ended,
            order=rollout.order,
            challenger=challenger,
            stable=stable,
            actor=rollout.actor,
            reason=rollout.reason,
            started_at=rollout.started_at,
            updated_at=rollout.updated_at,
            weight=rollout.weight,
            reaches=rides.reaches(rollout, self._log.moves(rollout.model, rollout.id)),
            latency_ms=rollout.strategy.limits.latency_ms,
            curves=rides.curves(slots, digests, (start, end), width),
            every=f"{width}",
            unit=rides.unit_of(width)[0],
        )
        return self._judged(ride, rollout)

    def _judged(self, ride: Ride, rollout: Rollout) -> Ride:
        """With the figures of the analysis, or with the reason why there are none."""
        try:
            report = self._p.analyst.report(rollout)
        except FalajError as e:
            return replace(ride, problem=e.message)
        figures = rides.figures(report, rollout.strategy.limits)
        return replace(ride, requests=report.requests, verdict=report.verdict, judged=report.reason, figures=figures)

    # drift

    def drift(self, model: str, key: str) -> DriftPage:
        """`key` selects a window; an empty one the newest. Raises `NotFound` for a window that there is not."""
        reports = {_key(w.digest, _moment(w.start_us)): r for w, r in self._p.observer.windows(model)}
        views = self._p.quality.windows(model)
        names, now = self._names(model), iso(self._p.clock.now())
        panes = [_pane(w, names, now) for w in reversed(views)]
        selected = next((p for p in panes if p.key == key), None) if key else (panes[0] if panes else None)
        if key and selected is None:
            raise NotFound(
                f"there is no window {key[:80]!r} of {model}",
                hint="the page on drift lists the windows that there are",
                code="no_such_window",
            )
        policy = self._p.external.monitor(model)
        report = reports.get(selected.key) if selected else None
        unit, since, trends = _trends(panes[::-1])
        return DriftPage(
            model=model,
            windows=tuple(panes),
            selected=selected,
            bars=_bars(report, policy.psi) if report and policy else (),
            trends=trends,
            since=since,
            unit=unit,
            watched=next((w for w in self.watched() if w.model == model), None),
        )

    def watched(self) -> tuple[Watched, ...]:
        """The models that somebody else serves, each with its newest window."""
        found = []
        incidents = self.open_incidents()
        for told in self._p.external.all():
            name, views = told["name"], self._p.quality.windows(told["name"])
            found.append(
                Watched(
                    model=name,
                    task=told["task"],
                    served_by=told["served_by"],
                    heard_at=told["heard_at"],
                    silent=told["silent"],
                    claims=tuple(told["claims"]),
                    windows=len(views),
                    verdict=views[-1].verdict if views else "",
                    incidents=sum(i.model == name for i in incidents),
                )
            )
        return tuple(found)

    def newest_window(self, model: str, digest: str) -> tuple[str, str, DriftReport] | None:
        """The newest window of a version, if it can be judged: when it begins and ends, and the report."""
        live, report = self._p.observer.window(model, digest) or (None, None)
        return (_moment(live.start_us), _moment(live.end_us), report) if live and report else None

    # incidents

    def incidents(self, viewer: Principal, pages: frozenset[str]) -> IncidentsPage:
        """`pages` are the models that have a page."""
        found = self._p.incidents.all()
        names: dict[str, dict[str, Named]] = {}
        told = {"open": [i for i in found if i.state != "resolved"]}
        told["resolved"] = [i for i in found if i.state == "resolved"][:MOST_RESOLVED]
        for model in {i.model for group in told.values() for i in group}:
            names[model] = self._names(model) if model in pages else {}
        return IncidentsPage(
            open=tuple(self._trouble(viewer, i, names[i.model], pages) for i in told["open"]),
            resolved=tuple(self._trouble(viewer, i, names[i.model], pages) for i in told["resolved"]),
        )

    def open_incidents(self) -> list[Incident]:
        """Newest first."""
        return [i for i in self._p.incidents.all() if i.state != "resolved"]

    def resolve(self, viewer: Principal, incident: str) -> None:
        """Resolve an incident. Raises `NotFound`, `Denied`."""
        self._p.incidents.resolve(viewer, incident)

    def _trouble(
        self, viewer: Principal, incident: Incident, names: dict[str, Named], pages: frozenset[str]
    ) -> Trouble:
        is_open = incident.state != "resolved"
        resource = Resource("Incident", incident.id)
        return Trouble(
            id=incident.id,
            model=incident.model,
            kind=incident.kind,
            state=incident.state,
            reason=incident.reason,
            opened_at=incident.opened_at,
            closed_at=incident.closed_at,
            version=_named(names, incident.digest) if incident.digest else None,
            followed=self._followed(incident, names),
            may_resolve=is_open and self._may(viewer, INCIDENT_RESOLVE, resource),
            has_page=incident.model in pages,
        )

    def _followed(self, incident: Incident, names: dict[str, Named]) -> Followed | None:
        """The retraining that the platform started for an incident, if it did."""
        if incident.kind != "drift":
            return None
        flow = flow_of(incident.id)
        try:
            state = self._p.workflows.state(flow)
        except NotFound:
            return None
        run = next((str(e["run"]) for e in state.events if e.get("type") == "run"), "")
        version = None
        if run and any(r.id == run and r.author == SYSTEM.name for r in self._p.training.runs(incident.model)):
            became = [v for v in self._p.registry.versions(incident.model) if v.run == run]
            version = _named(names, became[-1].digest) if became else None
        reason = str((state.error or {}).get("error", ""))
        return Followed(flow, state.state, run, version, reason)

    # what several pages need

    def _may(self, viewer: Principal, action: Action, resource: Resource) -> bool:
        return self._p.door.allows(Intent(viewer, action, resource))

    def _names(self, model: str) -> dict[str, Named]:
        versions = self._p.registry.versions(model)
        claimed = {
            w.digest: Named(w.claims or "–", w.digest) for w in self._p.quality.windows(model) if w.claims is not None
        }
        return claimed | {v.digest: Named(v.alias, v.digest, v.alias.rpartition("@")[2], v.state) for v in versions}


def _named(names: dict[str, Named], digest: str) -> Named:
    return names.get(digest) or Named(short(digest), digest)


def _past(rollout: Rollout, names: dict[str, Named]) -> Past:
    return Past(
        id=rollout.id,
        stage=rollout.stage,
        challenger=_named(names, rollout.challenger),
        stable=_named(names, rollout.stable),
        actor=rollout.actor,
        started_at=rollout.started_at,
        ended_at=rollout.updated_at if rollout.ended else "",
        reason=rollout.reason,
    )


def _pane(window: WindowView, names: dict[str, Named], now: str) -> Pane:
    return Pane(
        key=_key(window.digest, window.start),
        version=_named(names, window.digest),
        start=window.start,
        end=window.end,
        rows=window.rows,
        verdict=window.verdict,
        reason=window.reason,
        score_psi=window.score_psi,
        drifted=window.drifted,
        labels=window.labels,
        metric=window.metric,
        quality=window.quality,
        open=window.end > now,
        errors=window.errors,
        p99_ms=window.p99_ms,
    )


def _bars(report: DriftReport, limit: float) -> tuple[Bars, ...]:
    """The score first, then the features, those that moved farthest first."""

    def bars(shift: Shift, score: bool) -> Bars:
        return Bars(
            name=shift.name,
            state=shift.state,
            psi=shift.psi,
            limit=limit,
            floor=shift.critical,
            threshold=shift.threshold,
            rows=shift.rows,
            labels=shift.labels,
            reference=shift.reference,
            current=shift.current,
            score=score,
        )

    features = sorted(report.features, key=lambda s: (-s.psi, s.name))
    return (*(bars(s, True) for s in report.score), *(bars(s, False) for s in features))


def _trends(panes: Sequence[Pane]) -> tuple[str, str, tuple[Curve, ...]]:
    """The unit of the curves' iterations, the moment they count from, the curves: a line for each version."""
    starts = [_us(p.start) // 1_000_000 for p in panes]
    if len(set(starts)) < 2:  # one point is no trend
        return "", "", ()
    shortest = min(_us(p.end) // 1_000_000 - start for p, start in zip(panes, starts, strict=True))
    unit, seconds = next(((u, s) for u, s in rides.UNITS if shortest >= s), ("s", 1))
    psi: dict[str, list[tuple[int, float]]] = {}
    quality: dict[str, list[tuple[int, float]]] = {}
    metric = ""
    for pane, start in zip(panes, starts, strict=True):
        x = (start - starts[0]) // seconds
        psi.setdefault(pane.version.alias, []).append((x, pane.score_psi))
        if pane.quality is not None:
            metric = pane.metric
            quality.setdefault(pane.version.alias, []).append((x, pane.quality))
    trends = [Curve("score_psi", tuple(Line(name, tuple(points)) for name, points in psi.items()))]
    if quality:
        lines = {name: quality.get(name, []) for name in psi}  # the same order, so the same look, in both pictures
        trends.append(Curve(metric, tuple(Line(name, tuple(points)) for name, points in lines.items())))
    return unit, panes[0].start, tuple(trends)


def _key(digest: str, start: str) -> str:
    """A window's name in an address: its version and when it began."""
    return f"{short(digest)}-{_us(start) // 1_000_000}"


def _us(moment: str) -> int:
    return int(parse_iso(moment).timestamp() * 1e6)


def _moment(us: int) -> str:
    return iso(datetime.fromtimestamp(us / 1e6, UTC))
