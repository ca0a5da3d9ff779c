"""Falaj carries a model from raw data to production and lets nothing through that it cannot prove.

A project is a Python module that says what its data, features and models are:

    import falaj as fj

    flights = fj.Source.csv("flights", "data/flights-*.csv", event_time="scheduled_at",
                            known_at="arrived_at", contract=FlightContract)
    airport = fj.Entity("airport", key="origin")

    @fj.feature_view(entity=airport, source=weather, ttl="2h", features={"wind_speed": "float"})
    def airport_weather(weather): ...            # LazyFrame in, LazyFrame out

    @fj.model(name="flight-delay", task="binary", label="late", spine=flights, at="decided_at",
              features=[airport_weather, fj.request_features(distance="float")],
              gates=[fj.gate.metric("roc_auc", at_least=0.70), fj.gate.approval("risk-officer")])
    def train(data, params): ...                 # a TrainingSet in, a fitted estimator out

`falaj train flight-delay` then does the rest. The package, from the bottom up:

    kernel        the words all parts share: digests, errors, clock, settings
    statistics    pure figures: profiles, distances, intervals
    storage       SQL, blobs, lake, online store
    governance    the door that every change goes through; signing, identity, policy, audit, approvals
    workflow      durable flows, and the processes that steps run in
    lifecycle     the stages, in the order in which data flows down them
    authoring     the names below
    bootstrap     puts concrete parts together
    entrypoints   command line, console, control plane, data plane, step process

What passes between them: a *dataset version* goes into *feature views*; both into a *training set*;
a *run* makes a model folder with its *contract*; *evidence* about its digest decides whether the
*registry* admits it; an admitted *version* takes traffic by a signed *bundle*.

Importing this module imports none of that: each name below is loaded when it is first used.
"""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from falaj.authoring import gate
    from falaj.authoring.definitions import Entity, Source, feature_view, model, request_features
    from falaj.authoring.fallback import Fallback
    from falaj.authoring.monitor import Monitor, Retrain, Review
    from falaj.authoring.rollout import Canary, Limits, Shadow
    from falaj.lifecycle.training.steps.training_set import Estimator, Params, TrainingSet

__version__ = "0.2.0.dev0"

# ONNX Runtime reports its sessions and models to its maker from the moment it is imported, unless this was said before.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

__all__ = [
    "Canary",
    "Entity",
    "Estimator",
    "Fallback",
    "Limits",
    "Monitor",
    "Params",
    "Retrain",
    "Review",
    "Shadow",
    "Source",
    "TrainingSet",
    "__version__",
    "feature_view",
    "gate",
    "model",
    "request_features",
]

_DEFINITIONS = "falaj.authoring.definitions"
_TRAINING = "falaj.lifecycle.training.steps.training_set"
_WHERE = {
    "Entity": _DEFINITIONS,
    "Source": _DEFINITIONS,
    "feature_view": _DEFINITIONS,
    "model": _DEFINITIONS,
    "request_features": _DEFINITIONS,
    "Canary": "falaj.authoring.rollout",
    "Limits": "falaj.authoring.rollout",
    "Shadow": "falaj.authoring.rollout",
    "Fallback": "falaj.authoring.fallback",
    "Monitor": "falaj.authoring.monitor",
    "Retrain": "falaj.authoring.monitor",
    "Review": "falaj.authoring.monitor",
    "Estimator": _TRAINING,
    "Params": _TRAINING,
    "TrainingSet": _TRAINING,
}


def __getattr__(name: str) -> Any:
    if name == "gate":
        return importlib.import_module("falaj.authoring.gate")
    if name not in _WHERE:
        raise AttributeError(f"falaj has no {name!r}; it has {', '.join(__all__)}")
    value = getattr(importlib.import_module(_WHERE[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
