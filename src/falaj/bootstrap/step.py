"""What a step process can do: kinds of steps, and which code each one runs.

Only here do step functions meet the project's live objects.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import msgspec

from falaj.authoring.project import Project, load_project
from falaj.kernel.errors import Invalid
from falaj.lifecycle.data.model import IngestTask
from falaj.lifecycle.evidence.model import EvidenceTask
from falaj.lifecycle.features.model import FrameTask, MaterializeTask
from falaj.lifecycle.monitoring.model import BACKTEST, BacktestTask
from falaj.lifecycle.registry.model import PackageTask
from falaj.lifecycle.serving.model import REHEARSE, SHIP, RehearseTask, ShipTask
from falaj.lifecycle.training.model import TrainTask
from falaj.workflow.reporting import Reporter
from falaj.workflow.steps import StepTask


def perform(task: StepTask, report: Reporter) -> dict[str, Any]:
    """Do one step; returns its outcome as JSON. Raises what the step raises."""
    kind = _KINDS.get(task.kind)
    if kind is None:
        raise Invalid(f"there is no step {task.kind[:40]!r}", hint=f"the steps are {', '.join(_KINDS)}")
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
    "package": _package,
    "evidence": _evidence,
    SHIP: _ship,
    REHEARSE: _rehearse,
    BACKTEST: _backtest,
}
