"""What the applied project says of a model, and what its labelled rows are made of."""

from __future__ import annotations

import msgspec

from falaj.governance.privacy.model import allowed_purposes
from falaj.kernel.errors import FalajError
from falaj.lifecycle.data.service import DataService
from falaj.lifecycle.features.model import FrameTask
from falaj.lifecycle.loop.model import ModelDefinition
from falaj.lifecycle.loop.service import DefinitionService
from falaj.lifecycle.training.service import Allowed


class Rows(msgspec.Struct, frozen=True):
    """How labelled rows are read, and the folder of the project's code; else why there are none."""

    frame: FrameTask | None = None
    code: str = ""
    problem: str = ""


class Defined:
    """Models as the applied project defines them, where it does."""

    def __init__(self, definitions: DefinitionService, data: DataService) -> None:
        self._definitions = definitions
        self._data = data

    def model(self, name: str) -> ModelDefinition | None:
        """The model of this name; None when no project defines it."""
        applied = self._definitions.newest()
        models = applied.definition.models if applied else ()
        return next((m for m in models if m.name == name), None)

    def allowed(self, model: ModelDefinition | None) -> Allowed | None:
        """The purpose that a model serves and those that its sources allow; None for a model that no project defines."""
        if model is None:
            return None
        definition = self._definitions.definition()
        views = {v.name: v.source for v in definition.views}
        used = {model.spine, *(views[v.name] for v in model.views if v.name in views)}
        return Allowed(model.purpose, allowed_purposes(x.purposes for x in definition.sources if x.name in used))

    def rows(self, model: ModelDefinition, as_of: str) -> Rows:
        """Where a model's labelled rows are, as they were known at a moment."""
        definition = self._definitions.definition()
        views = tuple(v for v in definition.views if v.name in {u.name for u in model.views})
        try:
            heads = {name: self._data.head(name) for name in sorted({model.spine, *(v.source for v in views)})}
        except FalajError as e:
            return Rows(problem=e.message)
        versions = {h.name: h.version for h in heads.values()}
        tables = {name: str(self._data.table(name)) for name in versions}
        known_at = self._definitions.source(model.spine).known_at
        frame = FrameTask(model.spine, model.at, known_at, as_of, views, tables, versions, model.history_seconds)
        return Rows(frame, self._definitions.code())
