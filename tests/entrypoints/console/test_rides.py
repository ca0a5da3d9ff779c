"""A rollout's reaches, figures, curves and trips: rules over what the services say."""

from __future__ import annotations

from typing import Any

import pytest

from falaj.entrypoints.console import rides
from falaj.entrypoints.console.rides import Move
from falaj.lifecycle.evidence.model import Verdict
from falaj.lifecycle.monitoring.analysis import Answer, judge, trial
from falaj.lifecycle.monitoring.model import Slot
from falaj.lifecycle.rollout.strategy import Limits, Rollout, Strategy
from falaj.lifecycle.serving.model import GuardReport
from falaj.statistics.sequential import Arm

STRATEGY = Strategy(shadow=200, steps=(10, 50), requests=150)


def rollout(stage: str, step: int = 0, **more: Any) -> Rollout:
    fields: dict[str, Any] = {
        "id": "rol_1",
        "model": "m",
        "challenger": "c",
        "stable": "s",
        "strategy": STRATEGY,
        "generation": 1,
    }
    fields |= {"actor": "omar", "reason": "why", "started_at": "a", "updated_at": "z", **more}
    return Rollout(stage=stage, step=step, **fields)


def moves(begun: int, judged: int) -> list[Move]:
    """As the log has them: each step begins, then it is judged."""
    found = []
    for i in range(begun):
        found.append(Move(f"b{i}", {"generation": i}))
        if i < judged:
            found.append(Move(f"j{i}", {"verdict": "Successful", "reason": f"r{i}", "requests": 100 + i}))
    return found


@pytest.mark.parametrize(
    ("now", "log", "states", "walls"),
    [
        (rollout("shadow"), moves(1, 0), ["here", "ahead", "ahead", "ahead"], [(0, 0), (0, 10), (10, 50), (50, 100)]),
        (rollout("canary", 0), moves(2, 1), ["passed", "here", "ahead", "ahead"], [(0, 0), (0, 10), (10, 50), (50, 100)]),
        (rollout("canary", 1), moves(3, 2), ["passed", "passed", "here", "ahead"], [(0, 0), (0, 10), (10, 50), (50, 100)]),
        (rollout("promoted", 1), moves(3, 3), ["passed"] * 3 + ["here"], [(0, 0), (0, 10), (10, 50), (50, 100)]),
        (rollout("aborted", 0), moves(1, 1), ["passed", "skipped", "skipped", "here"], [(0, 0), (0, 10), (0, 50), (0, 0)]),
        (rollout("aborted", 0), moves(2, 2), ["passed", "passed", "skipped", "here"], [(0, 0), (0, 10), (10, 50), (10, 0)]),
        (rollout("aborted", 1), [], ["passed"] * 3 + ["here"], [(0, 0), (0, 10), (10, 50), (50, 0)]),
        (rollout("promoted", 0), moves(1, 1), ["passed", "skipped", "skipped", "here"], [(0, 0), (0, 10), (0, 50), (0, 100)]),
    ],
)  # fmt: skip
def test_a_rollout_stands_where_it_says(
    now: Rollout, log: list[Move], states: list[str], walls: list[tuple[int, int]]
) -> None:
    drawn = rides.reaches(now, log)
    assert [r.state for r in drawn] == states
    assert [(r.before, r.weight) for r in drawn] == walls
    assert [r.stage for r in drawn[:-1]] == ["shadow", "canary", "canary"]
    assert drawn[-1].stage == ("aborted" if now.stage == "aborted" else "promoted")


def test_each_step_has_the_figures_of_the_log() -> None:
    shadow, first, second, end = rides.reaches(rollout("canary", 0), moves(2, 1))
    assert (shadow.needed, shadow.requests, shadow.reason, shadow.began_at) == (200, 100, "r0", "b0")
    assert (first.needed, first.requests, first.reason, first.began_at) == (150, None, "", "b1")
    assert (second.began_at, end.reason) == ("", "")
    assert rides.reaches(rollout("promoted", 1), moves(3, 3))[-1].reason == "why"
    bare = rides.reaches(rollout("canary", 0, strategy=Strategy(steps=(5,))), [])
    assert [(r.stage, r.weight, r.state) for r in bare] == [("canary", 5, "here"), ("promoted", 100, "ahead")]


def test_figures_say_what_decides() -> None:
    limits = Limits(alpha=0.05)
    state = trial("s", "c", limits, columns=2)
    answers = [Answer(arm, 0.01, arm is Arm.CHALLENGER, ranks=(0.5, 0.5)) for _ in range(200) for arm in Arm]
    found = {(f.metric, f.column): f for f in rides.figures(judge(state.add(answers)), limits)}
    assert set(found) == {
        ("error_rate", None), ("non_finite", None), ("slow", None),
        ("score_up", 0), ("score_up", 1), ("score_down", 0), ("score_down", 1), ("label_loss", None),
    }  # fmt: skip
    errors = found["error_rate", None]
    assert (errors.stable, errors.challenger, errors.verdict, errors.pairs) == (0, 1, Verdict.FAILED, 200)
    assert errors.worse_needed == pytest.approx(8 / 0.05) and errors.fine_needed == pytest.approx(20)
    for f in found.values():
        assert (f.verdict is Verdict.FAILED) == (f.worse >= f.worse_needed)
        assert f.verdict is not Verdict.SUCCESSFUL or f.fine >= f.fine_needed


@pytest.mark.parametrize(
    ("seconds", "width", "unit"),
    [(0, 1, "s"), (120, 1, "s"), (121, 5, "s"), (7200, 60, "min"), (90_000, 900, "min"), (1e6, 21_600, "h"), (1e9, 86_400, "d")],
)  # fmt: skip
def test_slots_are_as_narrow_as_the_span_allows(seconds: float, width: int, unit: str) -> None:
    assert rides.width_of(seconds) == width and rides.unit_of(width)[0] == unit


def test_curves_count_from_the_first_slot_and_a_silent_slot_is_a_zero() -> None:
    minute = 60_000_000
    slots = [Slot("s", 10, 7, 0.5), Slot("c", 12, 3, None), Slot("s", 12, 5, 0.25)]
    asked, scored = rides.curves(slots, {"s": "m@1", "c": "m@2"}, (10 * minute + 5, 13 * minute), 60)
    assert [(line.name, line.points) for line in asked.lines] == [
        ("m@1", ((0, 7), (1, 0), (2, 5), (3, 0))),
        ("m@2", ((0, 0), (1, 0), (2, 3), (3, 0))),
    ]
    assert [(line.name, line.points) for line in scored.lines] == [("m@1", ((0, 0.5), (2, 0.25)))]
    assert rides.curves([], {"s": "m@1"}, (0, minute), 60) == ()
    (only,) = rides.curves([Slot("s", 0, 1, None)], {"s": "m@1"}, (0, 1), 900)
    assert only.metric == "requests"


def test_a_trip_is_told_once_and_by_the_worker_that_knows_most() -> None:
    first = GuardReport(
        "c", "m@2", "2013-04-01T08:00:02.000Z", "slow", 0.3, 0.2, 50, 4, "2013-04-01T08:00:00.500Z",
        "2013-04-01T08:00:02.000Z", "", "m", 7,
    )  # fmt: skip
    later = GuardReport(**{f: getattr(first, f) for f in first.__struct_fields__} | {"bad_answers": 9, "zero_traffic_at": "2013-04-01T08:00:02.006Z"})  # fmt: skip
    other = GuardReport(**{f: getattr(first, f) for f in first.__struct_fields__} | {"model": "another"})
    older = GuardReport(
        **{f: getattr(first, f) for f in first.__struct_fields__} | {"generation": 6, "tripped_at": "2013"}
    )
    told = rides.trips([older, first, later, other, first], "m")
    assert [(t.generation, t.bad_answers) for t in told] == [(7, 9), (6, 4)]
    assert (told[0].to_verdict_ms, told[0].to_zero_ms) == (1500, 6) and told[1].to_zero_ms is None
