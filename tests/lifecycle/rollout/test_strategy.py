"""Where a rollout goes next, and which strategies can be followed."""

from __future__ import annotations

import msgspec
import pytest

from falaj import Canary, Shadow
from falaj.kernel.errors import Invalid
from falaj.lifecycle.evidence.model import Verdict
from falaj.lifecycle.rollout.model import MAX_WINDOW
from falaj.lifecycle.rollout.strategy import Analysis, Limits, Rollout, Strategy, check_strategy, decide, first_stage

STRATEGY = Strategy(shadow=100, steps=(10, 50), requests=200, labels=30)


def at(stage: str, step: int = 0, strategy: Strategy = STRATEGY, order: str = "") -> Rollout:
    return Rollout("rol_1", "m", "b", "a", strategy, stage, step, 5, "risk", "", "", "", order)


def fine(requests: int, labels: int = 0, verdict: Verdict = Verdict.SUCCESSFUL) -> Analysis:
    return Analysis(verdict, "as it is", requests, labels=labels)


@pytest.mark.parametrize(
    ("rollout", "analysis", "following"),
    [
        (at("shadow"), fine(99), None),
        (at("shadow"), fine(100), ("canary", 0)),  # nobody sends labels of what nobody got
        (at("canary"), fine(200, 29), None),
        (at("canary"), fine(199, 30), None),
        (at("canary"), fine(200, 30), ("canary", 1)),
        (at("canary", 1), fine(200, 30), ("promoted", 1)),
        (at("canary", 1), fine(900, 900, Verdict.INCONCLUSIVE), None),
        (at("canary", 1), fine(1, 0, Verdict.FAILED), ("aborted", 1)),
        (at("canary", 0, Strategy()), fine(200), ("canary", 1)),
        (at("canary", 0, order="promote"), fine(0, 0, Verdict.FAILED), ("promoted", 0)),
        (at("shadow", 0, order="abort"), fine(900, 900), ("aborted", 0)),
    ],
)
def test_where_it_goes(rollout: Rollout, analysis: Analysis, following: tuple[str, int] | None) -> None:
    assert decide(rollout, analysis) == following


def test_a_project_says_the_same() -> None:
    canary = Shadow(requests=100) >> Canary(steps=[10, 50], requests=200, limits=Limits(loss=0.1), labels=30)
    assert canary.strategy() == msgspec.structs.replace(STRATEGY, limits=Limits(loss=0.1))
    assert first_stage(canary.strategy()) == ("shadow", 0)
    assert Canary().strategy().labels == 0 and Canary().strategy().limits.loss == 0.05


@pytest.mark.parametrize(
    "strategy",
    [
        Strategy(steps=()),
        Strategy(steps=(50, 10)),
        Strategy(steps=(0, 10)),
        Strategy(steps=(10, 100)),
        Strategy(requests=0),
        Strategy(requests=10**9),
        Strategy(shadow=-1),
        Strategy(shadow=10**9),
        Strategy(labels=-1),
        Strategy(labels=10, limits=Limits(loss=None)),
        Strategy(limits=Limits(loss=-0.1)),
        Strategy(limits=Limits(loss=1.0)),
        Strategy(limits=Limits(shift=float("nan"))),
        Strategy(limits=Limits(margin=1.0)),
        Strategy(limits=Limits(errors=1.1)),
        Strategy(limits=Limits(alpha=0.0)),
        Strategy(limits=Limits(latency_ms=float("inf"))),
        Strategy(limits=Limits(least=0)),
        Strategy(limits=Limits(least=MAX_WINDOW + 1)),  # no guard could be made of it
    ],
)
def test_what_cannot_be_followed(strategy: Strategy) -> None:
    with pytest.raises(Invalid) as refusal:
        check_strategy(strategy)
    assert refusal.value.hint


def test_what_can() -> None:
    for strategy in (
        Strategy(),
        STRATEGY,
        Strategy(limits=Limits(loss=None)),
        Strategy(limits=Limits(errors=1.0, slow=1.0)),
    ):
        assert check_strategy(strategy) is strategy
