"""The inventory as people look at it: what was said of a model, and what the platform knows of it by itself, in one record."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from falaj.governance.changes.inventory import Declared, Fact, Kill, Validation, due
from falaj.governance.changes.oversight import InventoryService
from falaj.kernel.environments import PRODUCTION
from falaj.lifecycle.loop.model import ModelDefinition, ProjectDefinition
from falaj.lifecycle.loop.service import DefinitionService
from falaj.lifecycle.monitoring.incidents import IncidentService
from falaj.lifecycle.monitoring.model import Incident, WindowView
from falaj.lifecycle.monitoring.quality import QualityService
from falaj.lifecycle.registry.model import ModelVersion
from falaj.lifecycle.registry.service import RegistryService
from falaj.lifecycle.rollout.model import champion
from falaj.lifecycle.rollout.service import RolloutService
from falaj.lifecycle.serving.killing import Fallbacks
from falaj.lifecycle.training.service import TrainingService

_LAST = 5  # incidents of a model in its record


class Stands(msgspec.Struct, frozen=True):
    """A version in the inventory, with the environments that it takes traffic in, and the marks that it bears for good."""

    alias: str
    digest: str
    state: str
    author: str
    created_at: str
    serving: tuple[str, ...]
    marks: tuple[str, ...]


class Source(msgspec.Struct, frozen=True):
    """Data that the model is made from, with what it may be used for and where."""

    name: str
    purposes: tuple[str, ...]
    region: str


class InForce(msgspec.Struct, frozen=True):
    """What follows from all that is known. `tier_from` says who put it there: code, a person, the default, or its use."""

    tier: str
    tier_from: str
    regulated: bool
    approvals: int
    roles: tuple[str, ...]
    approval_days: int
    retrains: bool
    promotes: bool
    fallback: str
    fallback_now: str
    validate_by: str
    frozen: tuple[str, ...]


class Record(msgspec.Struct, frozen=True):
    """A model in the inventory. `facts` are what people said, the newest of each; empty texts are not known."""

    model: str
    task: str
    purpose: str
    owner: str
    intended_use: str
    impact: str
    retired: bool
    killed: Kill | None
    in_force: InForce
    declared: Declared
    facts: dict[str, Fact]
    validations: tuple[Validation, ...]
    versions: tuple[Stands, ...]
    data: tuple[Source, ...]
    drift: WindowView | None
    incidents: tuple[Incident, ...]
    runs: int


class Ports(msgspec.Struct, frozen=True):
    """Whom the record asks. `rollouts` by environment; `default_tier` is the home's."""

    inventory: InventoryService
    definitions: DefinitionService
    registry: RegistryService
    training: TrainingService
    rollouts: Mapping[str, RolloutService]
    quality: QualityService
    incidents: IncidentService
    fallbacks: Fallbacks


class InventoryView:
    """Records of the inventory."""

    def __init__(self, ports: Ports) -> None:
        self._p = ports

    def all(self) -> list[Record]:
        """Every model that is defined, has a version, or that somebody said something of."""
        applied = self._p.definitions.newest()
        defined = [m.name for m in applied.definition.models] if applied else []
        return [self.record(m) for m in sorted({*defined, *self._p.registry.models(), *self._p.inventory.models()})]

    def record(self, model: str) -> Record:
        """One model."""
        p = self._p
        known = p.inventory.known(model)
        applied = p.definitions.newest()
        definition = next((m for m in applied.definition.models if m.name == model), None) if applied else None
        versions = p.registry.versions(model)
        plan = p.rollouts[PRODUCTION].present(model)
        serving = champion(plan)
        return Record(
            model=model,
            task=definition.task if definition else "",
            purpose=definition.purpose if definition else "",
            owner=known.said("owner", known.declared.owner),
            intended_use=known.said("intended_use", known.declared.intended_use),
            impact=known.said("impact", known.declared.impact),
            retired=bool(known.said("retired", False)),
            killed=known.kill,
            in_force=self._in_force(model),
            declared=known.declared,
            facts=known.facts,
            validations=known.validations,
            versions=tuple(self._stands(v) for v in versions if v.number),
            data=_data(applied.definition, definition) if applied and definition else (),
            drift=p.quality.window(model, serving) if serving else None,
            incidents=tuple(i for i in p.incidents.all() if i.model == model)[:_LAST],
            runs=len(p.training.runs(model)),
        )

    def _in_force(self, model: str) -> InForce:
        known, governed = self._p.inventory.known(model), self._p.inventory.governed(model)
        tier, fallback = governed.tier, known.fallback
        killed, less = self._p.fallbacks.of(model, fallback)
        now = f"refusal: {less}" if less else fallback.words
        if killed.digest:
            now = self._p.registry.by_digest(killed.digest).alias
        return InForce(
            tier=tier.name,
            tier_from=_tier_from(tier.name, known.declared.tier, known.facts.get("tier"), known.tiers),
            regulated=governed.regulated,
            approvals=tier.approvals,
            roles=tier.roles,
            approval_days=governed.approval_days,
            retrains=tier.retrains,
            promotes=tier.promotes,
            fallback=fallback.words,
            fallback_now=now,
            validate_by=due(known),
            frozen=tuple(f"{f.error.code}: {f.error.message}" for f in governed.freezes),
        )

    def _stands(self, version: ModelVersion) -> Stands:
        serving = tuple(
            name
            for name, rollout in self._p.rollouts.items()
            if any(r.digest == version.digest for r in rollout.present(version.model).routes)
        )
        return Stands(
            version.alias, version.digest, version.state, version.author, version.created_at, serving,
            self._p.registry.marks(version.digest),
        )  # fmt: skip


def _data(project: ProjectDefinition, model: ModelDefinition) -> tuple[Source, ...]:
    """What the model reads, by its definition."""
    used = {u.name for u in model.views}
    names = {model.spine, *(v.source for v in project.views if v.name in used)}
    return tuple(Source(s.name, s.purposes, s.region) for s in project.sources if s.name in names)


def _tier_from(tier: str, declared: str, said: Fact | None, tiers: tuple[str, ...]) -> str:
    if said is not None and said.value == tier:
        return f"{said.by}, {said.at[:10]}"
    if tier == declared:
        return "the project's code"
    if tier in tiers:
        return "the project's code before; a person confirms a lower one"
    return "the home's default" if said is None else "its use is regulated"
