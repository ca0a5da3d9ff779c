"""A challenger that is worse fails on the metric in which it is worse; one that is alike passes in the end."""

from __future__ import annotations

import random
from collections.abc import Iterator

import msgspec
import pytest

from falaj.kernel.errors import Invalid
from falaj.lifecycle.evidence.model import Verdict
from falaj.lifecycle.monitoring.analysis import Answer, Trial, TrialReport, judge, trial
from falaj.lifecycle.rollout.strategy import Limits
from falaj.statistics.sequential import Arm

LIMITS = Limits(margin=0.05, shift=0.2, latency_ms=100)


def answers(n: int, seed: int = 1, *, ratio: int = 1, worse: dict[str, float] | None = None) -> Iterator[Answer]:
    """`ratio` stable answers for each of the challenger's `n`; `worse` is added to the challenger's rates."""
    chance = random.Random(seed)
    for _ in range(n):
        for arm in (*[Arm.STABLE] * ratio, Arm.CHALLENGER):
            more = worse if worse and arm is Arm.CHALLENGER else {}
            error = chance.random() < 0.01 + more.get("error", 0)
            odd = chance.random() < more.get("odd", 0)
            seconds = 0.2 if chance.random() < 0.05 + more.get("slow", 0) else 0.01
            rank = min(max(chance.random() + more.get("shift", 0), 0.0), 1.0)
            yield Answer(arm, seconds, error or odd, odd, () if error else (rank,))


def seen(n: int, *, ratio: int = 1, worse: dict[str, float] | None = None) -> Trial:
    return trial("sha256:old", "sha256:new", LIMITS, group=ratio).add(answers(n, ratio=ratio, worse=worse))


def test_nothing_seen_is_inconclusive() -> None:
    found = judge(trial("a", "b", LIMITS))
    assert found.verdict is Verdict.INCONCLUSIVE and found.requests == 0
    assert [m.metric for m in found.metrics] == [
        "error_rate", "non_finite", "slow", "score_up", "score_down", "label_loss",
    ]  # fmt: skip
    assert {m.verdict for m in found.metrics} == {Verdict.INCONCLUSIVE}
    assert found.analysis().detail == {}


@pytest.mark.parametrize("ratio", [1, 9])
def test_a_challenger_that_is_alike_passes(ratio: int) -> None:
    found = judge(seen(1_200, ratio=ratio))
    assert found.verdict is Verdict.SUCCESSFUL, found
    assert found.requests == 1_200
    assert judge(seen(20, ratio=ratio)).verdict is Verdict.INCONCLUSIVE


@pytest.mark.parametrize(
    ("worse", "metrics"),
    [
        ({"error": 0.3}, ["error_rate"]),
        ({"odd": 0.3}, ["error_rate", "non_finite"]),
        ({"slow": 0.4}, ["slow"]),
        ({"shift": 0.45}, ["score_up"]),
        ({"shift": -0.45}, ["score_down"]),
    ],
)
def test_a_challenger_that_is_worse_fails_where_it_is_worse(worse: dict[str, float], metrics: list[str]) -> None:
    found = judge(seen(600, worse=worse))
    assert found.verdict is Verdict.FAILED
    assert [m.metric for m in found.metrics if m.verdict is Verdict.FAILED] == metrics
    assert all(name in found.reason for name in metrics)


def test_a_better_challenger_passes_too() -> None:
    limits = Limits(margin=0.02, latency_ms=100)
    better = trial("a", "b", limits).add(answers(1_500, worse={"slow": -0.05, "error": -0.01}))
    assert judge(better).verdict is Verdict.SUCCESSFUL


def test_alike_without_a_margin_stays_open_and_is_not_failed() -> None:
    strict = trial("a", "b", Limits(margin=0.0, shift=0.0, latency_ms=100)).add(answers(2_000, seed=3))
    assert judge(strict).verdict is Verdict.INCONCLUSIVE


def test_scores_that_are_missing_leave_their_metric_open() -> None:
    blind = trial("a", "b", LIMITS).add(msgspec.structs.replace(a, ranks=()) for a in answers(1_200))
    found = {m.metric: m for m in judge(blind).metrics}
    assert found["score_up"].verdict is Verdict.INCONCLUSIVE and found["score_up"].requests == 0
    assert found["slow"].verdict is Verdict.SUCCESSFUL
    without = trial("a", "b", LIMITS, columns=0).add(answers(1_200))
    assert judge(without).verdict is Verdict.SUCCESSFUL


def test_each_column_of_a_score_is_compared() -> None:
    start = trial("a", "b", LIMITS, columns=2)
    pairs = (
        msgspec.structs.replace(a, ranks=(r, r if a.arm is Arm.STABLE else 1.0)) for a in answers(300) for r in [0.5]
    )
    found = judge(start.add(pairs))
    assert [m.metric for m in found.metrics if m.verdict is Verdict.FAILED] == ["score_up[1]"]
    nan = trial("a", "b", LIMITS).add([Answer(Arm.STABLE, 0.0, ranks=(float("nan"),))])
    assert nan.metrics["score_up"].stable.n == 0 and nan.metrics["slow"].stable.n == 1


def test_workers_trials_add_up_and_travel_as_json() -> None:
    parts = [trial("a", "b", LIMITS).add(answers(250, seed)) for seed in (5, 6, 7)]
    travelled = [msgspec.json.decode(msgspec.json.encode(p), type=Trial) for p in parts]
    assert travelled == parts
    left = judge((travelled[0] + travelled[1]) + travelled[2])
    right = judge(travelled[0] + (travelled[1] + travelled[2]))
    assert left.requests == right.requests == 750 and left.verdict is right.verdict
    for a, b in zip(left.metrics, right.metrics, strict=True):
        assert a.fine == pytest.approx(b.fine) and a.worse == pytest.approx(b.worse)
    assert max(m.fine for m in left.metrics) > max(m.fine for p in parts for m in judge(p).metrics)
    report = judge(parts[0])
    assert msgspec.json.decode(msgspec.json.encode(report), type=TrialReport) == report


def test_trials_of_other_versions_or_limits_do_not_add_up() -> None:
    mine = trial("a", "b", LIMITS)
    others = (
        trial("a", "c", LIMITS), trial("a", "b", Limits()), trial("a", "b", LIMITS, columns=0),
        trial("a", "b", LIMITS, labels=None), trial("a", "b", LIMITS, labels=20),
    )  # fmt: skip
    for other in others:
        with pytest.raises(Invalid) as e:
            mine + other
        assert e.value.code == "other_trial"


def test_rollout_reads_the_report() -> None:
    report = judge(seen(600, worse={"error": 0.3}))
    analysis = report.analysis()
    assert analysis.verdict is Verdict.FAILED and analysis.requests == 600 and analysis.reason == report.reason
    assert analysis.detail["error_rate.challenger"] > 0.2 > analysis.detail["error_rate.stable"]


# ── Labels ────────────────────────────────────────────────────────────────────────────────────────


def losses(n: int, challenger: float, seed: int = 4) -> Iterator[tuple[Arm, float]]:
    """Squared errors of `n` labelled answers a version; the challenger's are worse by about `challenger`."""
    chance = random.Random(seed)
    for _ in range(n):
        for arm in Arm:
            more = challenger if arm is Arm.CHALLENGER else 0.0
            yield arm, min(chance.random() * 0.3 + more, 1.0)


def test_labels_that_do_not_come_keep_nobody_waiting() -> None:
    found = judge(seen(1_200))
    assert found.verdict is Verdict.SUCCESSFUL
    open_ = next(m for m in found.metrics if m.metric == "label_loss")
    assert (open_.verdict, open_.requests, open_.margin) == (Verdict.INCONCLUSIVE, 0, LIMITS.loss)


def test_a_challenger_that_is_worse_on_labels_fails_in_words() -> None:
    found = judge(seen(1_200).labelled(losses(300, 0.3)))
    assert found.verdict is Verdict.FAILED
    assert found.reason.startswith("worse than the stable version: label loss 0.4") and "against 0.1" in found.reason
    assert found.reason.endswith("on 300 labelled answers")
    assert found.analysis().detail["label_loss.challenger"] > found.analysis().detail["label_loss.stable"] + 0.2


def test_one_that_is_worse_by_less_than_the_limit_does_not_fail() -> None:
    assert judge(seen(1_200).labelled(losses(3_000, 0.03))).verdict is Verdict.SUCCESSFUL


def test_a_trial_that_waits_for_labels_passes_with_them_only() -> None:
    waiting = trial("a", "b", LIMITS, labels=100).add(answers(1_200))
    before = judge(waiting)
    assert before.verdict is Verdict.INCONCLUSIVE and before.reason == "1,200 requests do not decide label loss yet"
    assert judge(waiting.labelled(losses(3_000, 0.0))).verdict is Verdict.SUCCESSFUL


@pytest.mark.parametrize(("limits", "labels"), [(Limits(loss=None), 0), (Limits(), None)])
def test_labels_may_be_left_alone(limits: Limits, labels: int | None) -> None:
    blind = trial("a", "b", limits, labels=labels)
    assert "label_loss" not in blind.metrics and blind.labelled(losses(300, 0.3)) == blind


def test_each_metric_has_its_part_of_alpha() -> None:
    """Six metrics: the evidence that would be enough for one alone is not enough."""
    state = trial("a", "b", LIMITS)
    for loss in losses(400, 0.12):
        state = state.labelled([loss])
        evidence = state.metrics["label_loss"].against_equal
        assert (judge(state).verdict is Verdict.FAILED) == (evidence >= 6 / LIMITS.alpha)
        if evidence >= 6 / LIMITS.alpha:
            return
    raise AssertionError("it was never found out")
