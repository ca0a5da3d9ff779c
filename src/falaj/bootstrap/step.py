"""What a step process can do: kinds of steps, and which code each one runs.

Only here do step functions meet the project's live objects.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import msgspec

from falaj.authoring.project import Project, load_project
from falaj.kernel.errors import Invalid, NotFound
from falaj.lifecycle.data.model import IngestTask
from falaj.lifecycle.evidence.model import EvidenceTask, PredictionsTask
from falaj.lifecycle.features.model import FrameTask, MaterializeTask
from falaj.lifecycle.loop.model import ProjectDefinition
from falaj.lifecycle.monitoring.model import BACKTEST, EXTERNAL, BacktestTask, ReferenceTask
from falaj.lifecycle.registry.model import PackageTask
from falaj.lifecycle.serving.model import REHEARSE, SCORE, SHIP, RehearseTask, ScoreTask, ShipTask
from falaj.lifecycle.training.foreign import IMPORT_FLOW, ImportTask
from falaj.lifecycle.training.model import TrainTask
from falaj.workflow.reporting import Reporter
from falaj.workflow.steps import StepTask


def perform(task: StepTask, report: Reporter) -> dict[str, Any]:
    """Do one step; returns its outcome as JSON. Raises what the step raises."""
    kind = _KINDS.get(task.kind)
    if kind is None:
        raise Invalid(
            f"there is no step {task.kind[:40]!r}", hint=f"the steps are {', '.join(_KINDS)}", code="no_such_step"
        )
    outcome: dict[str, Any] = msgspec.to_builtins(kind(task, report))
    return outcome


def _describe(task: StepTask, _report: Reporter) -> Any:
    return load_project(task.project).definition()


def _ingest(task: StepTask, report: Reporter) -> Any:
    ingest = _function("falaj.lifecycle.data.steps.ingest", "ingest")
    load = msgspec.convert(task.input, IngestTask)
    source = load_project(task.project).source(load.source.name)
    return ingest(load, source.contract, source.prepare, report)


def _materialize(task: StepTask, report: Reporter) -> Any:
    materialize = _function("falaj.lifecycle.features.steps.materialize", "materialize")
    fill = msgspec.convert(task.input, MaterializeTask)
    return materialize(fill, _transforms(load_project(task.project), fill.views), report)


def _train(task: StepTask, report: Reporter) -> Any:
    train = _function("falaj.lifecycle.training.steps.run", "run")
    build_frame = _function("falaj.lifecycle.features.steps.frame", "build_frame")
    training = msgspec.convert(task.input["task"], TrainTask)
    frame = msgspec.convert(task.input["frame"], FrameTask)
    project = load_project(task.project)
    transforms = _transforms(project, frame.views)
    return train(training, lambda: build_frame(frame, transforms), project.model(training.spec.model).train, report)


def _import(task: StepTask, report: Reporter) -> Any:
    bring_in = _function("falaj.lifecycle.training.steps.foreign.run", "run")
    told = msgspec.convert(task.input["task"], ImportTask)
    if task.input["frame"] is None:
        return bring_in(told, None, report)
    build_frame = _function("falaj.lifecycle.features.steps.frame", "build_frame")
    frame = msgspec.convert(task.input["frame"], FrameTask)
    transforms = _transforms(load_project(task.project), frame.views)
    return bring_in(told, lambda: build_frame(frame, transforms), report)


def _package(task: StepTask, report: Reporter) -> Any:
    return _function("falaj.lifecycle.registry.steps", "run")(msgspec.convert(task.input, PackageTask), report)


def _evidence(task: StepTask, report: Reporter) -> Any:
    measure = _function("falaj.lifecycle.evidence.steps.run", "run")
    return measure(msgspec.convert(task.input, EvidenceTask), report, task.secrets.get("token", ""))


def _ship(task: StepTask, report: Reporter) -> Any:
    return _function("falaj.lifecycle.serving.steps.ship", "ship")(msgspec.convert(task.input, ShipTask), report)


def _rehearse(task: StepTask, report: Reporter) -> Any:
    rehearse = _function("falaj.lifecycle.serving.steps.rehearse", "rehearse")
    return rehearse(msgspec.convert(task.input, RehearseTask), report, task.secrets.get("token", ""))


def _backtest(task: StepTask, report: Reporter) -> Any:
    run = _function("falaj.lifecycle.monitoring.steps.backtest", "run")
    return run(msgspec.convert(task.input, BacktestTask), report)


def _predictions(task: StepTask, report: Reporter) -> Any:
    asked = msgspec.convert(task.input, PredictionsTask)
    if asked.model:
        asked = _declared(asked, load_project(task.project).definition())
    return _function("falaj.lifecycle.evidence.steps.predictions", "run")(asked, report)


def _declared(asked: PredictionsTask, project: ProjectDefinition) -> PredictionsTask:
    """What a project's model says of its gates; columns that are not named are those that `falaj score` writes."""
    model = next((m for m in project.models if m.name == asked.model), None)
    if model is None:
        raise NotFound(
            f"the project has no model {asked.model[:80]!r}",
            hint=f"it has {', '.join(m.name for m in project.models) or 'none'}; or name a file of gates (.toml)",
            code="no_such_model",
        )
    classes = tuple(s.removeprefix("probabilities_") for s in asked.scores) if model.task == "multiclass" else ()
    usual = {"binary": ("probability",), "regression": ("value",)}
    return msgspec.structs.replace(
        asked,
        gates=model.gates,
        task=model.task,
        label=model.label,
        positive=model.positive,
        classes=classes,
        scores=asked.scores or usual.get(model.task, ()),
    )


def _reference(task: StepTask, report: Reporter) -> Any:
    freeze = _function("falaj.lifecycle.monitoring.steps.reference", "run")
    return freeze(msgspec.convert(task.input, ReferenceTask), report)


def _score(task: StepTask, report: Reporter) -> Any:
    run = _function("falaj.lifecycle.serving.steps.score", "run")
    made = _function("falaj.lifecycle.serving.steps.score", "Code")
    asked = msgspec.convert(task.input, ScoreTask)

    def code() -> Any:
        project = load_project(task.project)
        source = project.source(asked.source.name) if asked.source else None
        raw = (source.contract, source.prepare) if source else (None, None)
        return made(_transforms(project, asked.views), *raw)

    return run(asked, code, report, task.secrets.get("key", ""))


def _transforms(project: Project, views: tuple[Any, ...]) -> dict[str, Any]:
    return {v.name: project.view(v.name).transform for v in views}


def _function(module: str, name: str) -> Callable[..., Any]:
    """A step function, imported when its kind is asked for: a step that signs needs no Polars."""
    found: Callable[..., Any] = getattr(importlib.import_module(module), name)
    return found


_KINDS: dict[str, Callable[[StepTask, Reporter], Any]] = {
    "describe": _describe,
    "ingest": _ingest,
    "materialize": _materialize,
    "train": _train,
    IMPORT_FLOW: _import,
    "package": _package,
    "evidence": _evidence,
    SHIP: _ship,
    REHEARSE: _rehearse,
    SCORE: _score,
    EXTERNAL: _reference,
    "predictions": _predictions,
    BACKTEST: _backtest,
}
