"""How wrong an answer was, as one number from 0 (right) to 1: what a rollout compares once labels come. Pure rules.

    binary      Brier score: (probability − label)², the label being 0 or 1
    multiclass  half the Brier score of the vector: Σ (pₖ − yₖ)² / 2, the label being the class's position, from 0
    regression  |value − label| as a part of the stable version's range, at most 1

That range lies between the 5 % and the 95 % quantile of the stable version's scores in its frozen reference, for both
versions; an error of a whole range or more counts 1. Without a range there is no loss of a regression.

Brier (1950), Verification of forecasts expressed in terms of probability.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from falaj.lifecycle.monitoring.drift import ReferenceProfile
from falaj.lifecycle.training.model import QUANTILES

Score = float | Sequence[float]
_LOW, _HIGH = QUANTILES.index(0.05), QUANTILES.index(0.95)


def loss(task: str, score: Score, label: float, scale: float = 0.0) -> float | None:
    """The loss of one answered row, 0 … 1; None where it cannot be told. `scale` is the range of a regression."""
    if not math.isfinite(label):
        return None
    if task == "multiclass":
        return _vector(score, label)
    if isinstance(score, Sequence) or not math.isfinite(score):
        return None
    if task == "binary":
        return min((score - label) ** 2, 1.0) if label in (0.0, 1.0) and 0 <= score <= 1 else None
    if task == "regression" and scale > 0:
        return min(abs(score - label) / scale, 1.0)
    return None


def scale_of(reference: ReferenceProfile | None) -> float:
    """The range that errors of a regression are parts of; 0 when the reference has none."""
    quantiles = reference.score[0].quantiles if reference is not None and len(reference.score) == 1 else ()
    spread = quantiles[_HIGH] - quantiles[_LOW] if len(quantiles) == len(QUANTILES) else 0.0
    return spread if math.isfinite(spread) else 0.0


def can_judge(task: str, scale: float) -> bool:
    """Whether labels of this task can be compared at all."""
    return task in ("binary", "multiclass") or (task == "regression" and scale > 0)


def _vector(score: Score, label: float) -> float | None:
    if not isinstance(score, Sequence) or not all(math.isfinite(p) for p in score):
        return None
    total = math.fsum(score)
    if min(score, default=-1.0) < 0 or total <= 0 or not (label.is_integer() and 0 <= label < len(score)):
        return None
    return min(math.fsum((p / total - (k == label)) ** 2 for k, p in enumerate(score)) / 2, 1.0)
