"""Live objects → frozen definitions, with every check that needs more than one of them."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgspec

from falaj.authoring.definitions import Entity, FeatureView, Model, Source, span
from falaj.authoring.fallback import check_fallback
from falaj.authoring.gate import Approval
from falaj.governance.changes.inventory import Declared, check_tier
from falaj.kernel.digests import digest_of
from falaj.kernel.errors import Invalid
from falaj.lifecycle.data.model import SourceSpec
from falaj.lifecycle.evidence.model import CHAMPION, MANDATORY, GateSpec
from falaj.lifecycle.features.model import ViewSpec
from falaj.lifecycle.loop.model import ModelDefinition, ProjectDefinition
from falaj.lifecycle.training.model import METRICS, TASKS, Input, JoinKey, ViewUse

_SEEDS = 1 << 31  # what every training library takes
_LONGEST = 2000


@dataclass(frozen=True)
class Described:
    """What a project's module was found to hold."""

    name: str
    code: str
    sources: tuple[Source, ...]
    entities: tuple[Entity, ...]
    views: tuple[FeatureView, ...]
    models: tuple[Model, ...]


def describe(found: Described) -> ProjectDefinition:
    """The frozen definition. Raises `Invalid` for what does not fit together, naming the thing."""
    sources = {s.name: source_spec(s) for s in found.sources}
    views = {v.name: view_spec(v, sources[v.source.name]) for v in found.views}
    return ProjectDefinition(
        name=found.name,
        code=found.code,
        sources=tuple(sources.values()),
        entities=tuple(e.spec() for e in found.entities),
        views=tuple(views.values()),
        models=tuple(model_definition(m, views) for m in found.models),
    )


def source_spec(source: Source) -> SourceSpec:
    """A source without its code, but with that code's digest."""
    parts = [part for part in (source.contract, source.prepare) if part is not None]
    return SourceSpec(
        name=source.name,
        format=source.format,
        files=source.files,
        event_time=source.event_time,
        known_at=source.known_at,
        contract=_reference(source.contract) if source.contract else "",
        prepare=_reference(source.prepare) if source.prepare else "",
        max_bad=source.max_bad,
        region=source.region,
        purposes=tuple(source.purposes),
        null_values=tuple(source.null_values),
        code=digest_of([_code(part) for part in parts]) if parts else "",
    )


def view_spec(view: FeatureView, source: SourceSpec) -> ViewSpec:
    """A view under its digest: of its function's source, its schema, its times, and its source's code."""
    clash = [c.name for c in view.columns if c.name in (view.entity.key, view.event_time, view.known_at)]
    if clash:
        raise _wrong(
            f"the view {view.name} uses {clash[0]} as a feature and as a key or time", "give the feature its own name"
        )
    digest = digest_of(
        {
            "code": _code(view.transform),
            "name": view.name,
            "columns": [[c.name, c.type] for c in view.columns],
            "entity": [view.entity.name, view.entity.key],
            "times": [view.event_time, view.known_at],
            "ttl": view.ttl_seconds,
            "lookback": view.lookback_seconds,
            "source": [source.name, source.format, list(source.null_values), source.code],
        }
    )
    return ViewSpec(
        name=view.name,
        entity=view.entity.spec(),
        source=source.name,
        event_time=view.event_time,
        known_at=view.known_at,
        ttl_seconds=view.ttl_seconds,
        columns=view.columns,
        transform=_reference(view.transform),
        digest=digest,
        lookback_seconds=view.lookback_seconds,
        source_known_at=source.known_at,
    )


def model_definition(model: Model, views: dict[str, ViewSpec]) -> ModelDefinition:
    """A model with its features laid out in order, the mandatory gates added, and everything checked."""
    if model.task not in TASKS:
        raise _wrong(
            f"{model.name} has the task {model.task!r}, which does not exist", f"use one of {', '.join(TASKS)}"
        )
    if not (0 < model.holdout < 1 and 0 <= model.validation < 1):
        raise _wrong(f"the shares of {model.name} are not between 0 and 1", "hold out a part, such as holdout=0.2")
    if type(model.seed) is not int or not 0 <= model.seed < _SEEDS:
        raise _wrong(f"the seed of {model.name} is {model.seed!r}", f"take a whole number from 0 to {_SEEDS - 1}")
    for source in (model.spine, *(f.source for f in model.features if isinstance(f, FeatureView))):
        if source.purposes and model.purpose not in source.purposes:
            allowed = ", ".join(source.purposes)
            raise _wrong(
                f"{model.name} is for {model.purpose or 'no purpose'}, and {source.name} may be used for {allowed}",
                "state one of these purposes, or do not use the source",
            )
    used = [views[f.name] for f in model.features if isinstance(f, FeatureView)]
    inputs = _inputs(model)
    gates = _gates(model)
    slices = dict.fromkeys([*(g.by for g in gates if g.kind == "slice"), *model.slices])
    return ModelDefinition(
        name=model.name,
        task=model.task,
        label=model.label,
        spine=model.spine.name,
        at=model.at,
        inputs=inputs,
        keys=tuple({v.entity.name: JoinKey(v.entity.name, v.entity.key) for v in used}.values()),
        views=tuple(
            ViewUse(v.name, v.digest, v.entity.key, v.ttl_seconds, tuple(c.name for c in v.columns)) for v in used
        ),
        gates=gates,
        train=_reference(model.train),
        code=digest_of(_code(model.train)),
        positive=model.positive,
        purpose=model.purpose,
        approvals=tuple(dict.fromkeys(g.role for g in model.gates if isinstance(g, Approval))),
        params=_params(model),
        holdout=model.holdout,
        validation=model.validation,
        slices=tuple(slices),
        strategy=model.rollout.strategy() if model.rollout else None,
        monitor=model.monitor.policy(),
        retrain=model.retrain.policy(),
        history_seconds=span(f"history of {model.name}", model.history),
        seed=model.seed,
        oversight=_oversight(model),
        review=model.review.policy(model.name, model.task) if model.review else None,
    )


def _oversight(model: Model) -> Declared:
    """What the inventory is told. Raises `Invalid` for a tier or a fallback that cannot be."""
    texts = {"owner": model.owner, "intended_use": model.intended_use, "impact": model.impact, "risk": model.risk}
    wrong = [name for name, text in texts.items() if not isinstance(text, str) or len(text) > _LONGEST]
    if wrong or not isinstance(model.regulated, bool):
        raise _wrong(
            f"the {wrong[0] if wrong else 'regulated'} of {model.name} cannot be kept",
            f"write texts of up to {_LONGEST} characters; regulated is True or False",
        )
    if model.risk:
        check_tier(model.risk, regulated=model.regulated)
    check_fallback(model.name, model.fallback)
    fallback = model.fallback.spec(model.task) if model.fallback else None
    return Declared(model.owner, model.intended_use, model.impact, model.risk, model.regulated, fallback)


def _inputs(model: Model) -> tuple[Input, ...]:
    inputs: list[Input] = []
    for feature in model.features:
        if isinstance(feature, FeatureView):
            inputs += [Input(c.name, c.type, "view", feature.name) for c in feature.columns]
        else:
            inputs += [Input(r.name, r.type) for r in feature.features]
    names = [i.name for i in inputs]
    twice = sorted({n for n in names if names.count(n) > 1})
    if twice:
        raise _wrong(f"{model.name} has two features called {twice[0]}", "rename one of them where it is computed")
    if not inputs:
        raise _wrong(f"{model.name} has no features", "give it views or fj.request_features(...)")
    if model.label in names:
        raise _wrong(
            f"{model.name} has its label {model.label} among its features", "leave it out: it is what is predicted"
        )
    if model.at in names:
        raise _wrong(f"{model.name} has the time {model.at} among its features", "use its hour or weekday instead")
    return tuple(inputs)


def _gates(model: Model) -> tuple[GateSpec, ...]:
    declared = [g for g in model.gates if isinstance(g, GateSpec)]
    for gate in declared:
        if gate.kind in ("metric", "slice", CHAMPION) and gate.metric not in METRICS[model.task]:
            raise _wrong(
                f"{model.name} has the gate {gate.name}, and {gate.metric} is not measured for {model.task}",
                f"use one of {', '.join(METRICS[model.task])}",
            )
    names = [g.name for g in declared]
    twice = sorted({n for n in names if names.count(n) > 1})
    if twice:
        raise _wrong(f"{model.name} has the gate {twice[0]} twice", "keep the stricter one")
    return (*declared, *(g for g in MANDATORY if g.name not in names))


def _params(model: Model) -> dict[str, Any]:
    try:
        params: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(dict(model.params)))
    except (TypeError, msgspec.MsgspecError) as e:
        raise _wrong(
            f"the parameters of {model.name} are not JSON: {e}", "use numbers, strings, lists and objects"
        ) from None
    return params


def _reference(thing: Callable[..., Any]) -> str:
    return f"{thing.__module__}:{thing.__qualname__}"


def _code(thing: Callable[..., Any]) -> str:
    try:
        return inspect.getsource(thing)
    except (OSError, TypeError):
        raise _wrong(
            f"the code of {getattr(thing, '__qualname__', thing)} cannot be read", "define it in a file of the project"
        ) from None


def _wrong(message: str, hint: str) -> Invalid:
    return Invalid(message, hint=hint, code="wrong_definition")
