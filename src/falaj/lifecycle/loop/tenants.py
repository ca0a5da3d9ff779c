"""Which project a thing belongs to, for tokens that are bound to one.

A source, a view or a model belongs to the project whose definitions named it, if only one project's ever did; what was made of
it belongs there too. Of everything else nobody knows a project, and a bound token does not reach it: lists of all that
there is, the log, the platform itself.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from falaj.governance.identity.model import WHO_AM_I
from falaj.kernel.access import Question
from falaj.kernel.errors import FalajError
from falaj.lifecycle.loop.service import DefinitionService
from falaj.lifecycle.monitoring.incidents import IncidentService
from falaj.lifecycle.registry.service import RegistryService
from falaj.lifecycle.training.service import TrainingService


class Ports(msgspec.Struct, frozen=True):
    """Who knows. `imported` is the model of an import, `predicted` that of a prediction; empty, or `NotFound`, for none."""

    definitions: DefinitionService
    registry: RegistryService
    training: TrainingService
    incidents: IncidentService
    imported: Callable[[str], str]
    predicted: Callable[[str], str]


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
        return {"project": self.of(question.resource.type, question.resource.id)}

    def of(self, kind: str, name: str) -> str:
        """The project that a thing belongs to; empty when nobody knows."""
        if kind == "Project":
            return name if name != "*" else ""
        if kind == "Dataset":
            return self._p.definitions.owners("sources").get(name, "")
        if kind == "FeatureView":
            return self._p.definitions.owners("views").get(name, "")
        try:
            model = self._model(kind, name)
        except FalajError:  # it is not there, or its name is none: nobody knows a project of it
            return ""
        return self.models().get(model, "")

    def models(self) -> dict[str, str]:
        """Model → its project, where it has one."""
        return {name: project for name, project in self._p.definitions.owners("models").items() if project}

    def _model(self, kind: str, name: str) -> str:
        if kind == "ModelVersion" and name.startswith("sha256:"):
            return self._p.registry.by_digest(name).model
        if kind == "Run" and name.startswith("run_"):
            return self._p.training.run(name).model
        if kind == "Import" and name.startswith("imp_"):
            return self._p.imported(name)
        if kind == "Prediction":
            return self._p.predicted(name)
        if kind == "Incident":
            found = next((i for i in self._p.incidents.all() if i.id == name), None)
            return found.model if found else ""
        if kind in ("Model", "ModelVersion", "Run", "Import"):
            return name.partition("@")[0]
        return ""
