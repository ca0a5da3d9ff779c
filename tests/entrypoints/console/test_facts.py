"""What the stages have to say about a model: rules over counts, verdicts and states."""

from __future__ import annotations

import pytest

from falaj.entrypoints.console import facts
from falaj.lifecycle.evidence.model import Verdict
from falaj.lifecycle.monitoring.drift import DriftReport
from falaj.lifecycle.monitoring.model import health
from falaj.lifecycle.registry.model import ModelVersion
from falaj.lifecycle.rollout.model import Route, TrafficPlan, all_to
from falaj.lifecycle.rollout.strategy import Rollout, Strategy
from falaj.lifecycle.serving.model import LATENCY_SECONDS, LoadReport, PlaneStatus, VersionCounts
from falaj.lifecycle.training.model import Run


def status(digest: str, counts: VersionCounts | None = None, generation: int = 3, **report: str) -> PlaneStatus:
    loaded = LoadReport(digest, "m@1", report.get("state", "loaded"), reason=report.get("reason", ""))
    seen = (counts,) if counts else ()
    return PlaneStatus("w0", 1, generation, "production", "", "", (loaded,), "", "", "", versions=seen)


def counted(digest: str, requests: int, errors: int, present: int, expired: int) -> VersionCounts:
    latency = tuple([requests] + [0] * len(LATENCY_SECONDS))
    found = {"present": present, "expired": expired}
    return VersionCounts("m", "m@1", digest, requests, errors, requests, 0.1, latency, found)


@pytest.mark.parametrize(
    ("worker", "expected", "why"),
    [
        (None, "down", "no data plane runs"),
        (status("d", counted("d", 100, 1, 9, 1)), "well", ""),
        (status("d", counted("d", 100, 2, 9, 1)), "attention", "2 of 100 requests failed"),
        (status("d", counted("d", 100, 0, 4, 6)), "attention", "60 % of the feature look-ups"),
        (status("d", generation=2), "attention", "generation 2 of 3"),
        (status("d", state="refused", reason="bad signature"), "down", "bad signature"),
    ],
)
def test_a_model_is_as_well_as_its_data_plane(worker: PlaneStatus | None, expected: str, why: str) -> None:
    plane = health(3, (worker,) if worker else ())
    plan = all_to("m", "d")
    seen = facts.traffic((c for w in plane.workers for c in w.versions), {"d"})
    state, reason = facts.model_health(plan, plane, seen)
    assert state == expected and (why in reason if why else not reason)
    assert facts.model_health(None, plane, seen) == ("idle", "")


def test_quantiles_are_linear_within_a_bucket_and_end_at_the_last_bound() -> None:
    empty = [0] * (len(LATENCY_SECONDS) + 1)
    assert facts.quantile_ms(tuple(empty), 0.5) is None and facts.quantile_ms((), 0.5) is None
    first = (100, *empty[1:])
    assert facts.quantile_ms(first, 0.5) == pytest.approx(0.25) and facts.quantile_ms(first, 1.0) == pytest.approx(0.5)
    assert facts.quantile_ms((50, 50, *empty[2:]), 0.75) == pytest.approx(0.75)
    assert facts.quantile_ms((*empty[:-1], 7), 0.5) == 5000


def test_counts_of_all_workers_add_up_and_other_versions_stay_out() -> None:
    both = [counted("d", 10, 1, 3, 1), counted("d", 5, 0, 2, 0), counted("other", 99, 99, 0, 99)]
    seen = facts.traffic(both, {"d"})
    assert (seen.requests, seen.errors, seen.features) == (15, 1, {"present": 5, "expired": 1})
    assert seen.latency[0] == 15 and sum(seen.latency) == 15


def test_curves_are_joined_by_metric() -> None:
    points = {"train_auc": [(0, 0.5)], "validation_auc": [(0, 0.4)], "lr": [(0, 0.1)], "train_": [(0, 1.0)]}
    found = facts.curves(points)
    assert [(c.metric, [line.name for line in c.lines]) for c in found] == [
        ("auc", ["train", "validation"]),
        ("lr", ["lr"]),
        ("train_", ["train_"]),
    ]
    assert facts.main_curve(found[::-1]) == found[0] and facts.main_curve(()) is None


def version(state: str, number: int = 2) -> ModelVersion:
    return ModelVersion("m", number, f"sha256:{number:064x}", state, "huda", "run_x", (), "", ("scan",), approvals=2)


@pytest.mark.parametrize(
    ("state", "expected", "words"),
    [
        ("awaiting approval", "waiting", "@2 awaits approval: 1 of 2 approvals"),
        ("approved", "flowing", "@2 has 1 approval"),
        ("serving", "flowing", "@2 has 1 approval"),
        ("rejected", "stopped", "@2 was rejected"),
        ("refused", "stopped", "@2 was refused"),
    ],
)
def test_the_registry_tells_of_its_newest_version(state: str, expected: str, words: str) -> None:
    fact = facts.registry_fact([version(state)], facts.Judged(version(state), {}, 1))
    assert (fact.state, fact.headline, fact.detail) == (expected, "1 version", words)


def test_evidence_counts_what_was_verified_only() -> None:
    passed = facts.evidence_fact(facts.Judged(version("awaiting approval"), {"scan": Verdict.SUCCESSFUL}, 0))
    assert (passed.state, passed.headline) == ("flowing", "1 of 1 gate passed")
    unproven = facts.evidence_fact(facts.Judged(version("awaiting approval"), {}, 0))
    assert (unproven.state, unproven.detail) == ("stopped", "@2; scan: no evidence")
    assert facts.evidence_fact(facts.Judged(version("candidate", 0), {}, 0)).state == "waiting"
    ungated = ModelVersion("m", 1, "sha256:" + "0" * 64, "refused", "huda", "run_x", (), "")
    assert facts.evidence_fact(facts.Judged(ungated, {}, 0)).state == "stopped"


def test_a_plan_shows_shares_and_what_is_under_way() -> None:
    approved = version("approved")
    assert facts.rollout_fact(None, {}, None).state == "dry"
    assert facts.rollout_fact(None, {}, approved).headline == "@2 is approved and not released"
    plan = TrafficPlan("m", (Route("a", 95), Route(approved.digest, 5, "canary"), Route("c", 0, "shadow")))
    fact = facts.rollout_fact(plan, {"a": "1", approved.digest: "2", "c": "3"}, approved)
    assert (fact.state, fact.headline) == ("waiting", "95 % to @1, 5 % to @2")
    assert fact.detail == "shadow @3; @2 is being released"


def test_a_running_rollout_is_told_first_and_a_rolled_back_version_closes_the_gate() -> None:
    def rollout(stage: str) -> Rollout:
        steps = Strategy(shadow=9, steps=(10, 50))
        return Rollout("rol_1", "m", "b", "a", steps, stage, 1, 3, "omar", "", "", "")

    plan, names = all_to("m", "a"), {"a": "1", "b": "2"}
    shadow = facts.rollout_fact(plan, names, None, rollout("shadow"))
    assert (shadow.state, shadow.headline, shadow.detail) == ("waiting", "@2 as a shadow", "100 % to @1")
    canary = facts.rollout_fact(plan, names, None, rollout("canary"))
    assert (canary.headline, canary.detail) == ("canary @2 at 50 %", "50 % to @1")
    assert facts.rollout_fact(plan, names, None, rollout("promoted")).headline == "100 % to @1"
    back = facts.rollout_fact(plan, names, version("rolled back"), rollout("aborted"))
    assert (back.state, back.detail) == ("stopped", "@2 was rolled back")


@pytest.mark.parametrize(
    ("verdict", "words", "state"),
    [
        (Verdict.FAILED, "drifted", "waiting"),
        (Verdict.SUCCESSFUL, "no drift", "flowing"),
        (Verdict.INCONCLUSIVE, "not decided", "waiting"),
    ],
)
def test_monitoring_tells_the_verdict_of_the_last_window(verdict: Verdict, words: str, state: str) -> None:
    report = DriftReport(verdict, "3 of 5 features drifted", "d", 0, 1, 400, (), ())
    days = ("2013-03-28T00:00:00.000Z", "2013-04-04T00:00:00.000Z", report)
    silent = facts.monitoring_fact(all_to("m", "d"), health(3, ()), facts.Traffic(), days)
    assert (silent.headline, silent.state) == (f"{words}, 2013-03-28 to 2013-04-04", state)
    plane = health(3, (status("d", counted("d", 100, 2, 9, 1)),))
    seen = facts.monitoring_fact(all_to("m", "d"), plane, facts.Traffic(100, 2), days)
    assert seen.detail == "3 of 5 features drifted; 2 errors in 100 requests"


def test_training_tells_of_its_newest_run() -> None:
    def run(state: str, metrics: dict[str, float], reason: str = "") -> Run:
        return Run("r", "m", state, "huda", {}, "", {}, {}, "", "", "", metrics, {}, "", reason=reason)

    done = run("finished", {"validation_roc_auc": 0.71234})
    assert facts.training_fact("binary", []).state == "dry"
    assert facts.training_fact("binary", [done]).detail == "roc_auc 0.7123 on validation"
    failed = facts.training_fact("binary", [run("failed", {}, "no rows"), done])
    assert (failed.state, failed.headline, failed.detail) == (
        "stopped",
        "2 training runs",
        "the newest failed: no rows",
    )
    assert facts.training_fact("", [run("running", {})]).state == "waiting"
