"""What data carries with it wherever it goes: whether it may be used now, and which regions it may not leave.

A version rests on the dataset versions that its training read, a model on the newest of the datasets that it would read. A
source keeps the region that a project last gave it, also when no project names it any more.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from falaj.governance.changes.holding import QuarantineService
from falaj.kernel.access import Question
from falaj.kernel.errors import NotFound
from falaj.lifecycle.data.service import DataService
from falaj.lifecycle.loop.service import DefinitionService
from falaj.lifecycle.registry.model import ModelVersion
from falaj.lifecycle.registry.service import RegistryService
from falaj.lifecycle.training.service import TrainingService

USES = frozenset({
    "training.start", "training.import", "features.materialize", "serving.score", "changes.approve", "changes.approve_own",
    "registry.admit", "registry.admit_approved", "registry.promote",
})  # fmt: skip
"""What nothing that is in quarantine may be used for."""
MOVES = frozenset({
    "data.ingest", "training.start", "training.import", "features.materialize", "serving.score", "evidence.export",
})  # fmt: skip
"""What is done with data in one place, or takes it to another."""


class Ports(msgspec.Struct, frozen=True):
    """Who knows. `region` is where this home is; empty when it does not say."""

    quarantine: QuarantineService
    definitions: DefinitionService
    data: DataService
    registry: RegistryService
    training: TrainingService
    region: str


class DataFacts:
    """Facts about what rests on data, for the rules about quarantine and regions."""

    def __init__(self, ports: Ports) -> None:
        self._p = ports

    def __call__(self, question: Question) -> dict[str, Any]:
        """The facts that rules need for a question; where an export goes is as whoever asks for it says."""
        if question.action not in USES | MOVES:
            return {}
        facts = self.of(question.resource.type, question.resource.id)
        if question.action == "evidence.export" and "region" in question.resource.attributes:
            facts.pop("region", None)
        return facts

    def of(self, kind: str, name: str) -> dict[str, Any]:
        """What is known of a thing; nothing of one that is not there."""
        if kind == "ModelVersion":
            return self._of_version(name)
        if kind == "Model":
            return self._facts((), self._of_model(name))
        if kind == "FeatureView":
            return self._facts((), self._heads(self._of_views(name)))
        if kind == "Dataset":
            return {"region": self._p.region, "regions": self._regions((name,))}
        return {}

    def _of_version(self, name: str) -> dict[str, Any]:
        model, numbered, _ = name.partition("@")
        if not numbered:  # nothing but a name is asked about, before it is known which version
            return {"region": self._p.region, "regions": []}
        version = next((v for v in self._p.registry.versions(model) if v.alias == name), None)
        if version is None:
            return {}
        return self._facts((version.alias,), (*self.read(version), *self._heads(self._joined(version))))

    def read(self, version: ModelVersion) -> tuple[str, ...]:
        """The dataset versions that its training read; none of one that was imported."""
        try:
            run = self._p.training.run(version.run)
        except NotFound:
            return ()
        return tuple(f"{name}@{version}" for name, version in run.datasets.items())

    def _joined(self, version: ModelVersion) -> set[str]:
        """The sources whose views are joined to what it is asked about."""
        applied = self._p.definitions.newest()
        if applied is None or all(f.path != "signature.json" for f in version.files):
            return set()
        views = {u.name for u in self._p.registry.contract(version.digest).views}
        return {v.source for v in applied.definition.views if v.name in views}

    def _of_model(self, name: str) -> tuple[str, ...]:
        applied = self._p.definitions.newest()
        model = next((m for m in applied.definition.models if m.name == name), None) if applied else None
        if applied is None or model is None:
            return ()
        views = {v.name for v in model.views}
        used = {model.spine, *(v.source for v in applied.definition.views if v.name in views)}
        return self._heads(used)

    def _of_views(self, name: str) -> set[str]:
        applied = self._p.definitions.newest()
        return {v.source for v in applied.definition.views if name in ("*", v.name)} if applied else set()

    def _heads(self, sources: Iterable[str]) -> tuple[str, ...]:
        """The newest version of each; what was never loaded counts as its version 0, for its region."""
        heads = {h.name: h.version for h in self._p.data.heads()}
        return tuple(f"{name}@{heads.get(name, 0)}" for name in sorted(sources))

    def _facts(self, versions: tuple[str, ...], datasets: tuple[str, ...]) -> dict[str, Any]:
        return {
            "quarantined": bool(self._p.quarantine.holding(versions, datasets)),
            "region": self._p.region,
            "regions": self._regions(d.partition("@")[0] for d in datasets),
        }

    def _regions(self, sources: Iterable[str]) -> list[str]:
        known = self._p.definitions.regions()
        return sorted({known[name] for name in sources if known.get(name)})
