"""Gates, measurements and verdicts: frozen types and pure rules.

No evidence is not a pass: a gate without a measurement is an Error, and only Successful passes.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any

import msgspec

from falaj.kernel.access import Action
from falaj.kernel.errors import Invalid
from falaj.lifecycle.training.model import DatasetUse

EVIDENCE_READ = Action("evidence.read", "read", "ModelVersion", "see a version's evidence")
EVIDENCE_RECORD = Action("evidence.record", "system", "ModelVersion", "sign and keep measurements with their verdicts")
ACTIONS = (EVIDENCE_READ, EVIDENCE_RECORD)


class Verdict(enum.StrEnum):
    """Ordered from best to worst; the worst of a set is the set's.

    Missing is said of imported versions only: what cannot be known of them, and was not measured. It never passes.
    """

    SUCCESSFUL = "Successful"
    INCONCLUSIVE = "Inconclusive"
    MISSING = "Missing"
    FAILED = "Failed"
    ERROR = "Error"


_ORDER = list(Verdict)


def worst(verdicts: list[Verdict]) -> Verdict:
    """The worst verdict; of none, Error."""
    return max(verdicts, key=_ORDER.index) if verdicts else Verdict.ERROR


class GateSpec(msgspec.Struct, frozen=True):
    """A question that the evidence must answer, as declared or as mandatory for every model.

    kind: metric | slice | champion | latency | parity | scan | provenance
    `metric` is a name such as roc_auc, log_loss, brier, accuracy, mae, rmse, r2, p99_ms.
    Exactly one of `at_least` and `at_most` is set for a measured value. A champion gate's `at_least` is
    −margin: its value is by how much the candidate is better than the champion, whichever way is better.
    """

    kind: str
    metric: str = ""
    at_least: float | None = None
    at_most: float | None = None
    by: str = ""  # slice: the column
    min_rows: int = 200  # slice: smaller slices are reported, not judged

    @property
    def name(self) -> str:
        """How the gate is called in evidence and refusals: 'metric roc_auc', 'slice carrier roc_auc', 'parity'."""
        return " ".join(part for part in (self.kind, self.by, self.metric) if part)

    @property
    def limit(self) -> str:
        """The limit in words: '>= 0.7' or '<= 5'."""
        if self.at_least is not None:
            return f">= {self.at_least:g}"
        return f"<= {self.at_most:g}" if self.at_most is not None else ""


MANDATORY = (GateSpec("parity", "max_abs_difference", at_most=1e-4), GateSpec("scan"), GateSpec("provenance"))
"""Gates that no project can leave out."""

CHAMPION = "champion"
"""The kind of gate that compares with the version that serves, and in its readings the digest of that version."""


def asks_champion(gates: Iterable[str]) -> bool:
    """Whether one of these gates, by name, compares with the champion."""
    return any(gate.partition(" ")[0] == CHAMPION for gate in gates)


class Measurement(msgspec.Struct, frozen=True):
    """One reading for one gate. `value` is None when it could not be taken; then `problem` says why.

    The detail of a champion gate names the digest of both versions, as `candidate` and `champion`. Where no
    version serves, `champion` is empty and `value` is None: there was nothing to take, and no problem.
    """

    gate: str
    value: float | None
    detail: dict[str, Any] = {}
    problem: str = ""


class Finding(msgspec.Struct, frozen=True):
    """A gate with its measurement and verdict: the content of one attestation."""

    gate: GateSpec
    measurement: Measurement
    verdict: Verdict
    reason: str


def judge(gate: GateSpec, measurement: Measurement | None) -> Finding:
    """Compare a measurement with its gate. Missing, NaN or without a limit is an Error.

    That a model has no champion yet is a fact, and passes; that it is not said which champion the value
    was compared with is an Error.
    """
    if measurement is None:
        return Finding(gate, Measurement(gate.name, None, problem="not measured"), Verdict.ERROR, "it was not measured")
    if gate.kind == CHAMPION and not measurement.problem:
        champion = measurement.detail.get(CHAMPION)
        if not isinstance(champion, str) or (champion == "" and measurement.value is not None):
            return Finding(gate, measurement, Verdict.ERROR, "it does not say which version it was compared with")
        if champion == "":
            return Finding(gate, measurement, Verdict.SUCCESSFUL, "there is no champion yet")
    if measurement.problem or measurement.value is None or math.isnan(measurement.value):
        return Finding(gate, measurement, Verdict.ERROR, measurement.problem or "the value is not a number")
    if gate.kind in ("scan", "provenance"):
        passed = measurement.value == 0
        return Finding(
            gate,
            measurement,
            Verdict.SUCCESSFUL if passed else Verdict.FAILED,
            f"{int(measurement.value)} problems found",
        )
    if gate.at_least is not None:
        passed = measurement.value >= gate.at_least
    elif gate.at_most is not None:
        passed = measurement.value <= gate.at_most
    else:
        return Finding(gate, measurement, Verdict.ERROR, "the gate has no limit")
    reason = f"{measurement.value:.6g} {'meets' if passed else 'misses'} {gate.limit}"
    if gate.kind == CHAMPION:
        reason += f" against {measurement.detail.get('champion_alias') or measurement.detail[CHAMPION]}"
        changed = measurement.detail.get("views_changed")
        reason += f", fed by other versions of its views {', '.join(changed)}" if changed else ""
    return Finding(gate, measurement, Verdict.SUCCESSFUL if passed else Verdict.FAILED, reason)


def findings(
    gates: tuple[GateSpec, ...],
    measurements: tuple[Measurement, ...],
    missing: Mapping[str, str] = MappingProxyType({}),
) -> tuple[Finding, ...]:
    """Judge every gate; one that no measurement names was not measured, which is an Error.

    `missing` says of an imported version which gates could not be measured, and why; one that was measured all the
    same is judged.
    """
    taken = {m.gate: m for m in measurements}

    def found(gate: GateSpec) -> Finding:
        why = missing.get(gate.name, "")
        if why and gate.name not in taken:
            return Finding(gate, Measurement(gate.name, None, problem=why), Verdict.MISSING, why)
        return judge(gate, taken.get(gate.name))

    return tuple(found(gate) for gate in gates)


class BuildFacts(msgspec.Struct, frozen=True):
    """How a model version came to be. Provenance fails while one of them is missing."""

    project: str = ""  # digest of the project's code
    datasets: tuple[DatasetUse, ...] = ()
    views: dict[str, str] = {}  # view → digest, for every view the contract names
    runtime: str = ""  # digest of the locked dependencies
    training_set: str = ""
    as_of: str = ""
    run: str = ""
    params: dict[str, Any] = {}


class Origin(msgspec.Struct, frozen=True):
    """Where an imported version came from, in the place of `BuildFacts`. `source` is the digest of what was imported.

    `claims` is what the source says of itself, which nobody checked; `unknown` what is not known of how it was made.
    """

    imported: str  # the import's id
    uri: str
    source: str
    format: str
    how: str
    claims: dict[str, str] = {}
    unknown: tuple[str, ...] = ()


class Baseline(msgspec.Struct, frozen=True):
    """The champion, as data: the version that serves the model now, with its files in `folder`."""

    digest: str
    alias: str
    folder: str


class EvidenceTask(msgspec.Struct, frozen=True):
    """All gates of one model version, measured in one step process.

    `baseline` is the champion, None when no version of the model serves; `at` the holdout's column with the
    moment of decision, for saying over which period the two were compared.

    `plane` is the address of a data plane that serves this version for measurement; empty when no
    gate needs one. Its token is handed to the step apart, so that no task file holds a secret.
    """

    model: str  # the model folder
    holdout: str  # parquet
    parity: str  # parquet
    gates: tuple[GateSpec, ...]
    facts: BuildFacts = BuildFacts()
    baseline: Baseline | None = None
    at: str = ""
    plane: str = ""
    seed: int = 0
    resamples: int = 200  # bootstrap
    requests: int = 300
    warm_up: int = 30


class EvidenceOutcome(msgspec.Struct, frozen=True):
    """The readings, and the digest of the very folder that was measured."""

    digest: str
    measurements: tuple[Measurement, ...]
    seconds: float


class Proven(msgspec.Struct, frozen=True):
    """What the verified statements about a version say, and the digest of the whole set.

    `champion` is the digest that every champion gate was compared with: empty when there was none, None
    when no statement says, or two say different things.
    """

    verdicts: dict[str, Verdict]
    evidence: str
    champion: str | None = None
    reasons: dict[str, str] = {}  # why each verdict is what it is, by gate


def proven(held: Iterable[Finding], evidence: str) -> Proven:
    """What findings prove together; each must come from a statement that was verified."""
    found = tuple(held)
    compared = [f.measurement.detail.get(CHAMPION) for f in found if f.gate.kind == CHAMPION]
    agreed = bool(compared) and isinstance(compared[0], str) and all(c == compared[0] for c in compared)
    return Proven(
        {f.gate.name: f.verdict for f in found},
        evidence,
        compared[0] if agreed else None,
        {f.gate.name: f.reason for f in found},
    )


class Statement(msgspec.Struct, frozen=True):
    """A stored attestation: the gate it answers, its verdict, and the digest of its DSSE envelope."""

    gate: str
    verdict: Verdict
    reason: str
    predicate_type: str
    envelope: str  # blob digest
    created_at: str


class PredictionsTask(msgspec.Struct, frozen=True):
    """Gates to measure on a table of predictions that somebody else's model made.

    `label` is the column with what became true, `scores` those with the score: one, or one for each of `classes`.
    `champion` are the same of the model that it is compared with, empty for none. `artifact` is the model's file: its
    bytes are hashed and never read otherwise. With `sure`, a gate passes only if its whole 95 % interval does. `model`
    names a model of the project whose gates, task and label count instead of those here.
    """

    predictions: str
    format: str
    gates: tuple[GateSpec, ...] = ()
    task: str = ""
    label: str = ""
    scores: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()
    positive: str = "true"
    champion: tuple[str, ...] = ()
    artifact: str = ""
    model: str = ""
    sure: bool = False
    only: tuple[str, ...] = ()
    resamples: int = 200
    seed: int = 0


class PredictionsOutcome(msgspec.Struct, frozen=True):
    """The findings about a table of predictions; `subject` is the digest of what they are about, by `name`.

    `unlabelled` rows have no label yet and are in no figure.
    """

    name: str
    subject: str
    predictions: str
    rows: int
    unlabelled: int
    findings: tuple[Finding, ...]

    @property
    def passed(self) -> bool:
        """Whether there is a gate and every one is Successful."""
        return bool(self.findings) and all(f.verdict is Verdict.SUCCESSFUL for f in self.findings)


def asked_for(gates: Iterable[GateSpec], only: tuple[str, ...]) -> tuple[GateSpec, ...]:
    """The gates that are asked for, by kind or by name; all where nothing is said. Raises `Invalid` for none."""
    found = tuple(gates)
    unknown = [o for o in only if not any(o in (g.kind, g.name) for g in found)]
    if unknown or not found:
        raise Invalid(
            f"there is no gate {unknown[0][:60]!r}" if unknown else "there is no gate to check",
            hint=f"there is {', '.join(g.name for g in found)}" if found else "write one: [[gate]]",
            code="no_such_gate",
        )
    return tuple(g for g in found if not only or g.kind in only or g.name in only)


def in_doubt(finding: Finding) -> Finding:
    """Successful becomes Inconclusive where the 95 % interval has the limit inside, or there is none."""
    gate, interval = finding.gate, finding.measurement.detail.get("interval_95")
    if finding.verdict is not Verdict.SUCCESSFUL:
        return finding
    if not interval:
        return msgspec.structs.replace(
            finding, verdict=Verdict.INCONCLUSIVE, reason=f"{finding.reason}; too few rows for an interval"
        )
    low, high = interval
    sure = (gate.at_least is None or low >= gate.at_least) and (gate.at_most is None or high <= gate.at_most)
    if sure:
        return finding
    reason = f"{finding.reason}, but its 95 % interval is {low:.4g} to {high:.4g}"
    return msgspec.structs.replace(finding, verdict=Verdict.INCONCLUSIVE, reason=reason)
