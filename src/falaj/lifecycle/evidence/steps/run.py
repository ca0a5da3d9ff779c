"""All gates of one model version, in one process."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from falaj.kernel.digests import manifest, manifest_digest
from falaj.kernel.errors import FalajError, Invalid
from falaj.lifecycle.evidence.model import CHAMPION, BuildFacts, EvidenceOutcome, EvidenceTask, GateSpec, Measurement
from falaj.lifecycle.evidence.steps.champion import Beside, beside, not_worse
from falaj.lifecycle.evidence.steps.latency import Prober, Refused, latency
from falaj.lifecycle.evidence.steps.parity import parity
from falaj.lifecycle.evidence.steps.quality import Holdout, by_slice, metric, read_holdout, read_rows
from falaj.lifecycle.evidence.steps.scan import scan
from falaj.lifecycle.training.steps.contract import LoadedModel
from falaj.workflow.reporting import Reporter


def run(task: EvidenceTask, report: Reporter, token: str = "") -> EvidenceOutcome:
    """Measure every gate of the task.

    A gate that cannot be measured gets a Measurement with a `problem`, never a value; nothing one gate
    meets stops the others. `token` is for the data plane of the latency gates. Raises `Invalid` only
    when the model folder itself cannot be named by a digest, or changes while it is measured.
    """
    started = time.perf_counter()
    folder = Path(task.model)
    digest = manifest_digest(manifest(folder))
    bench = Bench(task, token, digest)
    measurements = []
    for n, gate in enumerate(task.gates):
        report.progress(f"measuring {gate.name}", n, len(task.gates))
        measurements.append(bench.take(gate))
    if manifest_digest(manifest(folder)) != digest:
        raise Invalid("the model folder changed while it was measured", hint="measure it again", code="model_changed")
    report.progress("measured", len(task.gates), len(task.gates))
    return EvidenceOutcome(digest, tuple(measurements), round(time.perf_counter() - started, 3))


class Bench:
    """Takes readings; model, holdout and data plane are each asked once, when the first gate needs them."""

    def __init__(self, task: EvidenceTask, token: str, digest: str) -> None:
        self._task = task
        self._token = token
        self._digest = digest
        self._once: dict[str, Any] = {}

    def take(self, gate: GateSpec) -> Measurement:
        """One reading. What goes wrong while taking it becomes its problem."""
        kinds: dict[str, Callable[[GateSpec], Measurement]] = {
            "metric": lambda g: metric(g, self._holdout(), self._task.resamples, self._task.seed),
            "slice": lambda g: by_slice(g, self._holdout()),
            CHAMPION: self._champion,
            "parity": lambda g: parity(g, self._model(), Path(self._task.parity)),
            "scan": lambda g: scan(g, Path(self._task.model)),
            "provenance": self._provenance,
            "latency": self._latency,
        }
        if gate.kind not in kinds:
            return Measurement(gate.name, None, problem=f"there is no gate of kind {gate.kind!r}")
        try:
            return kinds[gate.kind](gate)
        except FalajError as e:
            return Measurement(gate.name, None, problem=e.message)
        except Refused as e:
            return Measurement(gate.name, None, problem=str(e))
        except Exception as e:  # a reading that breaks off, for any reason, is an Error of its own gate only
            return Measurement(gate.name, None, problem=f"{type(e).__name__}: {str(e)[:300]}")

    def _model(self) -> LoadedModel:
        model: LoadedModel = self._keep("model", lambda: LoadedModel.read(Path(self._task.model)))
        return model

    def _holdout(self) -> Holdout:
        holdout: Holdout = self._keep("holdout", lambda: read_holdout(self._model(), Path(self._task.holdout)))
        return holdout

    def _champion(self, gate: GateSpec) -> Measurement:
        task, baseline = self._task, self._task.baseline
        named = {"candidate": self._digest, CHAMPION: baseline.digest if baseline else ""}
        if baseline is None:
            return Measurement(gate.name, None, named)
        try:
            contract, holdout = self._model().contract, self._holdout()
            pair: Beside = self._keep(CHAMPION, lambda: beside(contract, holdout, baseline, task.at))
        except FalajError as e:
            return Measurement(gate.name, None, named, e.message)
        measurement = not_worse(gate, pair, task.resamples, task.seed)
        return msgspec.structs.replace(measurement, detail={**named, **measurement.detail})

    def _latency(self, gate: GateSpec) -> Measurement:
        task = self._task
        if not task.plane:
            return Measurement(gate.name, None, problem="no data plane was given to measure")

        def probe() -> dict[str, Any]:
            rows = read_rows(self._model(), Path(task.holdout))
            prober = Prober(self._model(), rows, task.plane, self._token)
            return prober.measure(task.requests, task.warm_up, task.seed)

        return latency(gate, self._keep("latency", probe), self._digest)

    def _provenance(self, gate: GateSpec) -> Measurement:
        missing = missing_facts(self._task.facts, tuple(v.name for v in self._model().contract.views))
        return Measurement(gate.name, float(len(missing)), {"missing": missing})

    def _keep(self, name: str, get: Callable[[], Any]) -> Any:
        if name not in self._once:
            self._once[name] = get()
        return self._once[name]


def missing_facts(facts: BuildFacts, views: tuple[str, ...]) -> list[str]:
    """What is not known of how a version was built, in words."""
    missing = [
        words
        for words, value in (
            ("the digest of the project's code", facts.project),
            ("the datasets that it read", facts.datasets),
            ("the digest of its runtime", facts.runtime),
            ("the digest of its training set", facts.training_set),
        )
        if not value
    ]
    missing += [f"the digest of dataset {d.name}" for d in facts.datasets if not d.digest]
    missing += [f"the digest of view {name}" for name in views if not facts.views.get(name)]
    return missing
