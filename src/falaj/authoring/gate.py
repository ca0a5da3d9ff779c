"""What evidence a model must bring: `fj.gate.metric("roc_auc", at_least=0.7)` and its siblings.

Parity, scan and provenance are asked of every model, whether it names them or not; `parity` can only
be made stricter.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from falaj.governance.identity.model import ROLES
from falaj.kernel.errors import Invalid
from falaj.lifecycle.evidence.model import CHAMPION, MANDATORY, GateSpec

_PARITY = next(g for g in MANDATORY if g.kind == "parity")


@dataclass(frozen=True)
class Approval:
    """Someone who holds this role must be among those who approve the version on its evidence."""

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


def not_worse_than_champion(name: str, *, margin: float) -> GateSpec:
    """At most `margin` worse than the version that serves now, on the same rows of the candidate's holdout.

    The margin is in the metric's own unit and the difference is taken so that positive is better: 0.01 allows a
    ROC AUC of 0.74 beside a champion's 0.75, 0.5 an absolute error of 20.5 minutes beside 20. Bootstrap
    uncertainty is told, not judged. A model without a champion passes. A version is admitted only while the
    champion that it was compared with still serves.
    """
    if not (math.isfinite(margin) and margin >= 0):
        raise Invalid(
            f"the margin of {name} is {margin:g}",
            hint="write how much worse the figure may be, such as margin=0.005",
            code="wrong_gate",
        )
    return GateSpec(CHAMPION, name, at_least=0.0 - margin)


def better_than_champion(name: str, *, by: float = 0.0) -> GateSpec:
    """At least `by` better than the version that serves now, in the metric's own unit; else as `not_worse_than_champion`."""
    if not (math.isfinite(by) and by >= 0):
        raise Invalid(
            f"{name} shall be better by {by:g}",
            hint="write by how much it must be better, such as by=0.005, or nothing for: no worse at all",
            code="wrong_gate",
        )
    return GateSpec(CHAMPION, name, at_least=by)


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
    """Someone who holds this role when deciding must be among the approvers, and it cannot be the author.

    A version needs as many approvers as it names roles, all of them different people, and at least as many as the
    home's setting `approvals` says. Who may approve at all is the policy's: by default risk-officer and
    platform-admin. Raises `Invalid` for a role that does not exist.
    """
    if role not in ROLES:
        raise Invalid(
            f"an approval asks for the role {role!r}, which does not exist",
            hint=f"write fj.gate.approval('risk-officer'); the roles are {', '.join(ROLES)}",
            code="wrong_gate",
        )
    return Approval(role)


def _one_limit(what: str, at_least: float | None, at_most: float | None) -> None:
    if (at_least is None) == (at_most is None):
        raise Invalid(
            f"the gate {what} has {'no limit' if at_least is None else 'two limits'}",
            hint="give exactly one of at_least= and at_most=",
            code="wrong_gate",
        )
