"""Champion gates: the candidate beside the version that serves now, both answering the same rows."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from falaj.kernel.clock import iso
from falaj.kernel.digests import manifest, manifest_digest
from falaj.kernel.errors import FalajError, Invalid
from falaj.lifecycle.evidence.model import Baseline, GateSpec, Measurement
from falaj.lifecycle.evidence.steps.quality import Holdout, interval
from falaj.lifecycle.training.model import LOWER_IS_BETTER, ModelContract
from falaj.lifecycle.training.steps.contract import LoadedModel
from falaj.lifecycle.training.steps.metrics import NotMeasurable, measure


@dataclass(frozen=True)
class Beside:
    """The answers of both to the holdout rows that both accept; `facts` is what every gate's detail says of them."""

    task: str
    labels: NDArray[Any]
    candidate: NDArray[Any]
    champion: NDArray[Any]
    facts: dict[str, Any]


def beside(contract: ModelContract, holdout: Holdout, baseline: Baseline, at: str) -> Beside:
    """Let the champion answer the candidate's holdout, encoded as the champion's own contract says.

    The holdout is the candidate's, so it is recent. What a champion saw of it when it was trained can only
    speak for the champion. Raises `Invalid` when the two cannot be compared.
    """
    folder = Path(baseline.folder)
    if manifest_digest(manifest(folder)) != baseline.digest:
        raise _incomparable(f"the files of {baseline.alias} are not those that its digest names")
    champion = LoadedModel.read(folder)
    _check_comparable(contract, champion.contract, baseline.alias)
    frame = holdout.frame
    lacking = [n for n in (*(i.name for i in champion.contract.inputs), at) if n not in frame.columns]
    if lacking:
        raise _incomparable(
            f"{baseline.alias} cannot be compared: the holdout has no column {', '.join(lacking)} (slices= keeps a column)"
        )
    try:
        accepted = champion.accepts(frame)
        kept = frame.filter(pl.Series(accepted))
        scores = champion.answers(kept)[champion.contract.score] if kept.height else np.empty(0)
    except (FalajError, pl.exceptions.PolarsError) as e:
        said = e.message if isinstance(e, FalajError) else str(e)
        raise _incomparable(f"{baseline.alias} cannot read the holdout: {said[:300]}") from e
    if not kept.height:
        raise _incomparable(f"{baseline.alias} refuses every row of the holdout that the candidate accepts")
    facts = {
        "champion_alias": baseline.alias,
        "rows": kept.height,
        "refused_by_candidate": holdout.refused,
        "refused_by_champion": frame.height - kept.height,
        "period": [_moment(kept[at].min()), _moment(kept[at].max())],
        "views_changed": _views_changed(contract, champion.contract),
    }
    return Beside(holdout.task, holdout.labels[accepted], holdout.scores[accepted], scores, facts)


def not_worse(gate: GateSpec, pair: Beside, resamples: int, seed: int) -> Measurement:
    """By how much the candidate is better than the champion; negative when it is worse, whichever way is better.

    With the 95 % bootstrap interval of that difference in the detail: each draw takes the same rows for both,
    so that what makes rows hard for both falls out of it. The gate judges the difference, not the interval.
    """
    sign = -1.0 if gate.metric in LOWER_IS_BETTER else 1.0

    def figure(scores: NDArray[Any], rows: NDArray[np.int64] | slice) -> float:
        return measure(gate.metric, pair.task, pair.labels[rows], scores[rows])

    def better(rows: NDArray[np.int64]) -> float:
        return sign * (figure(pair.candidate, rows) - figure(pair.champion, rows))

    try:
        candidate, champion = (figure(scores, slice(None)) for scores in (pair.candidate, pair.champion))
    except (NotMeasurable, Invalid) as e:
        return Measurement(gate.name, None, pair.facts, str(e))
    detail = {**pair.facts, "candidate_value": candidate, "champion_value": champion}
    detail |= interval(better, len(pair.labels), resamples, seed)
    return Measurement(gate.name, sign * (candidate - champion) + 0.0, detail)  # +0.0: no difference has no sign


def _check_comparable(candidate: ModelContract, champion: ModelContract, alias: str) -> None:
    """The label is coded by the candidate's classes, so both must mean the same by it."""
    for what in ("model", "task", "label", "classes"):
        ours, theirs = getattr(candidate, what), getattr(champion, what)
        if ours != theirs:
            raise _incomparable(f"{alias} cannot be compared: its {what} is {theirs}, the candidate's {ours}")


def _views_changed(candidate: ModelContract, champion: ModelContract) -> list[str]:
    """The champion's views that the holdout was computed with another version of."""
    ours = {v.name: v.digest for v in candidate.views}
    return sorted(v.name for v in champion.views if ours.get(v.name) != v.digest)


def _moment(value: object) -> str:
    return iso(value) if isinstance(value, datetime) else str(value)


def _incomparable(why: str) -> Invalid:
    return Invalid(
        why,
        hint="train with what the champion reads in the holdout, or take the gate out for one release",
        code="not_comparable",
    )
