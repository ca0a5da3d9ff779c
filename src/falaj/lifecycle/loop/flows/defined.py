"""What the applied project says of a model, and what its labelled rows are made of."""

from __future__ import annotations

from typing import overload

import msgspec

from falaj.governance.privacy.model import allowed_purposes
from falaj.kernel.errors import FalajError
from falaj.lifecycle.data.service import DataService
from falaj.lifecycle.features.model import FrameTask
from falaj.lifecycle.loop.model import ModelDefinition
from falaj.lifecycle.loop.service import DefinitionService
from falaj.lifecycle.training.model import DatasetUse
from falaj.lifecycle.training.service import Allowed


class Reading(msgspec.Struct, frozen=True):
    """How a model's labelled rows are read: by which project's code, from which versions of which datasets."""

    frame: FrameTask
    datasets: tuple[DatasetUse, ...]
    project: str  # digest of the code
    code: str  # the folder that it lies in


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

    def needed(self, name: str) -> ModelDefinition:
        """The model of this name. Raises `NotFound`, also before the first definition."""
        return self._definitions.model(name)

    def model(self, name: str) -> ModelDefinition | None:
        """The model of this name; None when no project defines it."""
        applied = self._definitions.newest()
        models = applied.definition.models if applied else ()
        return next((m for m in models if m.name == name), None)

    @overload
    def allowed(self, model: ModelDefinition) -> Allowed: ...
    @overload
    def allowed(self, model: None) -> None: ...
    @overload
    def allowed(self, model: ModelDefinition | None) -> Allowed | None: ...
    def allowed(self, model: ModelDefinition | None) -> Allowed | None:
        """The purpose that a model serves and those that its sources allow; None for a model that no project defines."""
        if model is None:
            return None
        definition = self._definitions.definition()
        views = {v.name: v.source for v in definition.views}
        used = {model.spine, *(views[v.name] for v in model.views if v.name in views)}
        return Allowed(model.purpose, allowed_purposes(x.purposes for x in definition.sources if x.name in used))

    def reading(self, model: ModelDefinition, as_of: str) -> Reading:
        """Where a model's labelled rows are, as they were known at a moment. Raises `NotFound` for data not ingested."""
        definition = self._definitions.definition()
        views = tuple(v for v in definition.views if v.name in {u.name for u in model.views})
        heads = [self._data.head(name) for name in sorted({model.spine, *(v.source for v in views)})]
        versions = {h.name: h.version for h in heads}
        tables = {name: str(self._data.table(name)) for name in versions}
        known_at = self._definitions.source(model.spine).known_at
        frame = FrameTask(model.spine, model.at, known_at, as_of, views, tables, versions, model.history_seconds)
        datasets = tuple(DatasetUse(h.name, h.version, h.digest) for h in heads)
        return Reading(frame, datasets, definition.code, self._definitions.code())

    def rows(self, model: ModelDefinition, as_of: str) -> Rows:
        """The same, where the data are there; else why not."""
        try:
            reading = self.reading(model, as_of)
        except FalajError as e:
            return Rows(problem=e.message)
        return Rows(reading.frame, reading.code)
