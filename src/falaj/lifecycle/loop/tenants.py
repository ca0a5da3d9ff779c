"""Which project a thing belongs to, for tokens that are bound to one.

A source, a view or a model belongs to the project whose definitions named it, if only one project's ever did; what was made of
it belongs there too. Of everything else nobody knows a project, and a bound token does not reach it: what concerns all
projects, the log as a whole, the platform itself.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from falaj.governance.audit.service import AuditService
from falaj.governance.audit.veil import Veil
from falaj.governance.changes.holding import QuarantineService
from falaj.governance.changes.holds import DATASET
from falaj.governance.changes.records import change_id, entry_of
from falaj.governance.identity.model import WHO_AM_I
from falaj.kernel.access import Question
from falaj.kernel.errors import FalajError
from falaj.lifecycle.loop.service import DefinitionService
from falaj.lifecycle.monitoring.incidents import IncidentService
from falaj.lifecycle.registry.service import RegistryService
from falaj.lifecycle.training.service import TrainingService
from falaj.workflow.flow import Workflows


class Ports(msgspec.Struct, frozen=True):
    """Who knows. `imported` is the model of an import, `predicted` that of a prediction, `reviewed` that of a review, `rolled`
    that of a rollout; empty, or `NotFound`, for none."""

    definitions: DefinitionService
    registry: RegistryService
    training: TrainingService
    incidents: IncidentService
    quarantine: QuarantineService
    audit: AuditService
    veil: Veil
    flows: Workflows
    imported: Callable[[str], str]
    predicted: Callable[[str], str]
    reviewed: Callable[[str], str]
    rolled: Callable[[str], str]


class ProjectFacts:
    """The fact `project` of what a bound token asks for; whoever is bound to none is not asked for it."""

    def __init__(self, ports: Ports) -> None:
        self._p = ports

    def __call__(self, question: Question) -> dict[str, Any]:
        """The project, if it is known."""
        own = question.principal.project
        if not own:
            return {}
        if question.action == WHO_AM_I.name:  # says nothing but who asks
            return {"project": own}
        name = question.resource.id
        if question.resource.type == "Change":  # a bound token knows changes by its project's own numbers
            name = self._unveiled(own, name)
        return {"project": self.of(question.resource.type, name)}

    def of(self, kind: str, name: str) -> str:
        """The project that a thing belongs to; empty when nobody knows."""
        try:
            return self._of(kind, name)
        except FalajError:  # it is not there, or its name is none: nobody knows a project of it
            return ""

    def models(self) -> dict[str, str]:
        """Model → its project, where it has one."""
        return {name: project for name, project in self._p.definitions.owners("models").items() if project}

    def _of(self, kind: str, name: str) -> str:
        if kind == "Project":
            return name if name != "*" else ""
        if kind == "Dataset":
            return self._p.definitions.owners("sources").get(name, "")
        if kind == "FeatureView":
            return self._p.definitions.owners("views").get(name, "")
        if kind == "Flow":
            return self._of_flow(name)
        if kind == "Quarantine":
            hold = next((h for h in self._p.quarantine.all() if h.id == name), None)
            held = hold.name.partition("@")[0] if hold else ""
            return self._of("Dataset" if hold and hold.kind == DATASET else "Model", held)
        if kind == "Change":
            entry = self._p.audit.entry(entry_of(name))
            if entry is None or entry.resource_type in (
                "Change",
                "Project",
            ):  # another definition replaces any project's
                return ""
            return self._of(entry.resource_type, entry.resource_id)
        return self._p.definitions.owners("models").get(self._model(kind, name), "")

    def _model(self, kind: str, name: str) -> str:
        if kind == "ModelVersion" and name.startswith("sha256:"):
            return self._p.registry.by_digest(name).model
        if kind == "Run" and name.startswith("run_"):
            return self._p.training.run(name).model
        if kind == "Import" and name.startswith("imp_"):
            return self._p.imported(name)
        if kind == "Prediction":
            return self._p.predicted(name)
        if kind == "Review":
            return self._p.reviewed(name)
        if kind == "Incident":
            found = self._p.incidents.find(name)
            return found.model if found else ""
        if kind in ("Model", "ModelVersion", "Run", "Import"):
            return name.partition("@")[0]
        return ""

    def _of_flow(self, name: str) -> str:
        """By what it was started with: a source, a model, a version, a rollout, or what was asked about one."""
        payload = self._p.flows.payload(name)
        if "source" in payload:
            return self._of("Dataset", str(payload["source"]))
        if "digest" in payload:
            return self._of("ModelVersion", str(payload["digest"]))
        if "rollout" in payload:
            return self._of("Model", self._p.rolled(str(payload["rollout"])))
        asked = payload.get("ask", payload)
        model = asked.get("model") if isinstance(asked, dict) else None
        return self._of("Model", model) if isinstance(model, str) else ""

    def _unveiled(self, project: str, change: str) -> str:
        try:
            return change_id(self._p.veil.index(project, entry_of(change)))
        except FalajError:  # it names no change
            return ""
