"""The API: each stage's routes, put together over an open home."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
from fastapi import APIRouter, FastAPI

from falaj.bootstrap.control_plane import ControlPlane
from falaj.bootstrap.web import make_app
from falaj.governance.audit import routes as audit_routes
from falaj.governance.identity import routes as identity_routes
from falaj.governance.identity.guard import Guard
from falaj.governance.identity.oidc import routes as oidc_routes
from falaj.governance.policy import routes as policy_routes
from falaj.kernel.errors import NotFound
from falaj.lifecycle.data import routes as data_routes
from falaj.lifecycle.evidence import routes as evidence_routes
from falaj.lifecycle.features import routes as features_routes
from falaj.lifecycle.loop import overview, why
from falaj.lifecycle.loop.overview import OverviewService
from falaj.lifecycle.loop.routes import past as loop_past
from falaj.lifecycle.loop.routes import projects as loop_projects
from falaj.lifecycle.loop.routes import state as loop_state
from falaj.lifecycle.loop.routes import versions as loop_versions
from falaj.lifecycle.loop.why import WhyService
from falaj.lifecycle.monitoring import routes as monitoring_routes
from falaj.lifecycle.registry import routes as registry_routes
from falaj.lifecycle.rollout import routes as rollout_routes
from falaj.lifecycle.serving import routes as serving_routes
from falaj.lifecycle.serving.plane.journal import read_record
from falaj.lifecycle.training import routes as training_routes


def build(plane: ControlPlane, more: Sequence[APIRouter] = ()) -> FastAPI:
    """The API, with `more` routes beside it (the console's)."""
    guard, flows, clock = plane.guard, plane.workflows, plane.clock
    monitored = monitoring_routes.Ports(
        plane.quality, plane.external, plane.incidents, plane.backtests, flows, clock, plane.decisions.check_model
    )
    routers: list[APIRouter] = [
        identity_routes.build(plane.identity, plane.sessions, guard),
        oidc_routes.build(plane.sign_ins, plane.identity, guard),
        policy_routes.build(plane.policy, policy_routes.Known(plane.identity.principal, partial(_facts, plane)), guard),
        audit_routes.build(plane.audit, plane.shards, plane.door, plane.veil, guard),
        data_routes.build(plane.data, flows, guard, clock),
        features_routes.build(plane.features, flows, guard, clock),
        training_routes.build(plane.training, plane.decisions.check_model, guard),
        evidence_routes.build(plane.evidence, guard),
        registry_routes.build(plane.registry, plane.decisions.check_model, guard),
        rollout_routes.build(plane.rollout, plane.analyst, plane.decisions.check_model, guard),
        serving_routes.build(plane.journals, guard),
        monitoring_routes.build(monitored, guard),
        *_loop_routes(plane, guard),
        *plane.intake.routers(guard, plane.decisions),
        *plane.oversight.routers(guard, plane.decisions),
        *plane.keeping.routers(guard),
        *plane.vouching.routers(guard),
        monitoring_routes.external(monitored, guard),
        *plane.adoption.routers(guard),
    ]
    return make_app([*routers, *more], guard, plane.layout.home)


def _loop_routes(plane: ControlPlane, guard: Guard) -> list[APIRouter]:
    """The routes of what spans the stages."""
    project = loop_projects.Ports(
        plane.definitions, plane.build, plane.workflows, plane.cancelling, plane.steps, plane.clock, plane.door
    )
    state = loop_state.Ports(
        registry=plane.registry,
        environments=plane.environments,
        definitions=plane.definitions,
        monitoring=plane.monitoring,
        audit=plane.audit,
        overview=OverviewService(_known_of_the_loop(plane)),
        glass=plane.oversight.glass,
        set_clock=plane.set_clock,
        home=str(plane.layout.home),
        clock=plane.clock,
        door=plane.door,
    )
    past = loop_past.Ports(
        plane.registry,
        plane.lineage,
        WhyService(_known_of_predictions(plane)),
        partial(_record, plane.layout.plane / "journal"),
        plane.door,
    )
    return [
        loop_projects.build(project, guard),
        loop_versions.build(
            loop_versions.Ports(plane.registry, plane.decisions, plane.starts, plane.environments), guard
        ),
        loop_state.build(state, guard),
        loop_past.build(past, guard),
    ]


def _known_of_predictions(plane: ControlPlane) -> why.Ports:
    return why.Ports(
        record=partial(read_record, plane.layout.plane / "journal"),
        registry=plane.registry,
        changes=plane.changes,
        rollout=plane.rollout,
        training=plane.training,
        data=plane.data,
        quality=plane.quality,
        reviewed=plane.reviews.told_of,
        incidents=plane.incidents,
        audit=plane.audit,
    )


def _known_of_the_loop(plane: ControlPlane) -> overview.Ports:
    return overview.Ports(
        registry=plane.registry,
        definitions=plane.definitions,
        changes=plane.changes,
        rollout=plane.rollout,
        training=plane.training,
        quality=plane.quality,
        incidents=plane.incidents,
        retraining=plane.retraining,
        flows=plane.workflows,
    )


def _facts(plane: ControlPlane, kind: str, name: str) -> dict[str, Any]:
    """What the home knows of a resource that rules look at."""
    project = plane.oversight.tenants.of(kind, name)
    of_data = {**plane.oversight.restrictions.of(kind, name), **({"project": project} if project else {})}
    model, at, number = name.partition("@")
    if kind != "ModelVersion" or not at or not number.isdecimal():
        return of_data
    try:
        return {**of_data, "author": plane.registry.version(model, int(number)).author}
    except NotFound:
        return of_data


def _record(journal: Path, prediction: str) -> loop_past.Record | None:
    """A prediction's record from the journal, if there is one."""
    try:
        found = read_record(journal, prediction)
    except NotFound:
        return None
    return loop_past.Record(found.id, found.model, found.digest, msgspec.to_builtins(found))
