"""What evidence a model must bring: `fj.gate.metric("roc_auc", at_least=0.7)` and its siblings.

Parity, scan and provenance are asked of every model, whether it names them or not; `parity` can only
be made stricter.
"""

from __future__ import annotations

from dataclasses import dataclass

from falaj.kernel.errors import Invalid
from falaj.lifecycle.evidence.model import MANDATORY, GateSpec

_PARITY = next(g for g in MANDATORY if g.kind == "parity")


@dataclass(frozen=True)
class Approval:
    """A person with this role must approve the version, with its evidence before them."""

    role: str


def metric(name: str, *, at_least: float | None = None, at_most: float | None = None) -> GateSpec:
    """A figure on the holdout: roc_auc, log_loss, brier, accuracy; mae, rmse, r2 for a regression."""
    _one_limit(f"metric {name}", at_least, at_most)
    return GateSpec("metric", name, at_least, at_most)


def slice(  # read as fj.gate.slice
    by: str, name: str, *, at_least: float | None = None, at_most: float | None = None, min_rows: int = 200
) -> GateSpec:
    """The worst figure over the values of a column, counting those with at least `min_rows` holdout rows."""
    _one_limit(f"slice {by} {name}", at_least, at_most)
    if min_rows < 1:
        raise Invalid("min_rows is at least 1", hint="a slice needs rows to be judged by", code="wrong_gate")
    return GateSpec("slice", name, at_least, at_most, by=by, min_rows=min_rows)


def latency(*, p99_ms: float | None = None, p50_ms: float | None = None) -> GateSpec:
    """How long the data plane takes for one row, in milliseconds: give one of the two percentiles."""
    if (p99_ms is None) == (p50_ms is None):
        raise Invalid("a latency gate has one percentile", hint="write fj.gate.latency(p99_ms=20)", code="wrong_gate")
    if p99_ms is not None:
        return GateSpec("latency", "p99_ms", at_most=p99_ms)
    return GateSpec("latency", "p50_ms", at_most=p50_ms)


def scan() -> GateSpec:
    """Nothing in the model folder but an ONNX graph of standard operators and its contract."""
    return GateSpec("scan")


def parity(*, at_most: float = 1e-4) -> GateSpec:
    """The served model answers as the trained one: the largest difference, on unseen, null, unknown and extreme rows."""
    allowed = _PARITY.at_most or 0.0
    if not 0 < at_most <= allowed:
        raise Invalid(
            f"parity cannot be {at_most:g}: the limit for every model is {allowed:g}",
            hint="leave the gate out, or make it stricter",
            code="wrong_gate",
        )
    return GateSpec("parity", _PARITY.metric, at_most=at_most)


def approval(role: str) -> Approval:
    """Someone with this role must approve, and it cannot be the author."""
    if not role:
        raise Invalid("an approval names a role", hint="write fj.gate.approval('risk')", code="wrong_gate")
    return Approval(role)


def _one_limit(what: str, at_least: float | None, at_most: float | None) -> None:
    if (at_least is None) == (at_most is None):
        raise Invalid(
            f"the gate {what} has {'no limit' if at_least is None else 'two limits'}",
            hint="give exactly one of at_least= and at_most=",
            code="wrong_gate",
        )
