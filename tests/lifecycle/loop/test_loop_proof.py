"""What the proof of the loop reads in a telling, and which tellings it lets pass."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import msgspec
import pytest

from tests.scripts import loaded

PROOF = Path(__file__).parents[3] / "proofs" / "loop.py"
GOOD: dict[str, dict[str, Any]] = {
    "usual": {"incidents": 8, "retrainings": 2, "promoted": 2, "serving": "flight-delay@3"},
    "shuffled": {"incidents": 0, "retrainings": 0, "serving": "flight-delay@1"},
    "unbeaten": {"incidents": 8, "retrainings": 3, "unbeaten": 3, "serving": "flight-delay@1"},
    "airport": {"incidents": 1, "serving": "flight-delay@1"},
    "late": {"retrainings": 1, "promoted": 1, "incidents": 3, "serving": "flight-delay@2"},
    "seed": {"incidents": 8, "retrainings": 2, "promoted": 1, "unbeaten": 1, "serving": "flight-delay@2"},
}
"""A telling of each kind that ended as it must."""


@pytest.fixture(scope="module")
def proof() -> Iterator[ModuleType]:
    with loaded(PROOF) as module:
        yield module


def event(kind: str, subject: str, **detail: Any) -> dict[str, Any]:
    return {"stage": "any", "event": kind, "subject": subject, "digest": "", "seconds": 0.0, "detail": detail}


def events(serving: str = "flight-delay@2", **year: int) -> list[dict[str, Any]]:
    """A telling in short, as the demo says it."""
    rows = [
        ["flight-delay@1", "retired", "3e85", "engineer", "another version took its traffic"],
        ["flight-delay@40e6", "refused", "40e6", "engineer", "metric roc_auc: Failed"],
        [serving, "serving", "d42c", "falaj", "9 gates passed"],
        ["flight-delay-minutes@1", "serving", "cfba", "engineer", "8 gates passed"],
    ]
    counted = {"incidents": 8, "retrainings": 2, "failed": 0} | year
    return [
        event("begin", "7  The year goes on", about="promoted step by step"),
        event("done", "flight-delay@2: promoted step by step (in 30 days of traffic: 2,070 by @1 stable; 0 failed)"),
        event("refused", "the retrained version does not beat the champion", code="gate_failed"),
        event("note", "the retrained version does not beat the champion"),
        event("done", "137 times the clock moved on: 21,207 flights asked for, 0 requests failed", **counted),
        event("done", "bad answers served 500; verdict → no traffic 0.000 s; failed requests 0", bad_answers=500),
        event("note", "What stands where, and why", columns=["what", "state"], rows=rows),
        event("done", "39,598 predictions, 898 audited changes, 168 s"),
    ]


def test_what_a_telling_came_to(proof: ModuleType) -> None:
    t = proof.read(events(), 168.0)
    assert t == proof.Telling(
        incidents=8,
        retrainings=2,
        promoted=1,
        unbeaten=1,
        failed=0,
        ended=True,
        serving="flight-delay@2",
        seconds=168.0,
    )


def test_a_request_that_failed_is_counted_wherever_it_was(proof: ModuleType) -> None:
    told = events(failed=4)
    assert proof.read([e for e in told if "no traffic" not in e["subject"]], 1.0).failed == 4
    (rolled,) = (e for e in told if "no traffic" in e["subject"])
    rolled["subject"] = rolled["subject"].replace("failed requests 0", "failed requests 5")
    assert proof.read(told, 1.0).failed == 5


@pytest.mark.parametrize("lost", ["audited changes", "verdict → no traffic"])
def test_a_telling_that_stops_before_its_end_has_not_ended(proof: ModuleType, lost: str) -> None:
    kept = [e for e in events() if lost not in e["subject"]]
    assert len(kept) == len(events()) - 1 and not proof.read(kept, 1.0).ended


@pytest.mark.parametrize("lost", ["times the clock moved on", "What stands where"])
def test_a_telling_without_its_figures_is_not_read_as_one_without_incidents(proof: ModuleType, lost: str) -> None:
    with pytest.raises(ValueError, match="unpack"):
        proof.read([e for e in events() if lost not in e["subject"]], 1.0)


def test_only_a_serving_version_of_the_model_serves(proof: ModuleType) -> None:
    told = events()
    (table,) = (e for e in told if e["subject"].startswith("What stands"))
    table["detail"]["rows"][2][1] = "retired"
    assert proof.read(told, 1.0).serving == ""


def telling(proof: ModuleType, name: str, **changed: Any) -> Any:
    none = {"incidents": 0, "retrainings": 0, "promoted": 0, "unbeaten": 0, "failed": 0, "ended": True, "seconds": 1.0}
    return proof.Telling(**{**none, **GOOD[name], **changed})


@pytest.mark.parametrize("name", GOOD)
def test_a_telling_that_ended_as_it_must_passes(proof: ModuleType, name: str) -> None:
    assert proof.well(name, telling(proof, name))


@pytest.mark.parametrize("name", GOOD)
@pytest.mark.parametrize("changed", [{"ended": False}, {"failed": 1}, {"serving": ""}])
def test_none_may_stop_fail_a_request_or_serve_nothing(proof: ModuleType, name: str, changed: dict[str, Any]) -> None:
    assert not proof.well(name, telling(proof, name, **changed))


@pytest.mark.parametrize(
    ("name", "changed"),
    [
        ("usual", {"incidents": 0}),
        ("usual", {"retrainings": 0}),
        ("usual", {"promoted": 0}),
        ("shuffled", {"serving": "flight-delay@2"}),
        ("shuffled", {"incidents": 1}),
        ("shuffled", {"retrainings": 1}),
        ("unbeaten", {"retrainings": 0, "unbeaten": 0}),
        ("unbeaten", {"unbeaten": 2}),
        ("unbeaten", {"promoted": 1}),
        ("unbeaten", {"serving": "flight-delay@2"}),
    ],
)
def test_a_wrong_telling_is_found(proof: ModuleType, name: str, changed: dict[str, Any]) -> None:
    assert not proof.well(name, telling(proof, name, **changed))


def test_the_controls_would_not_pass_for_each_other(proof: ModuleType) -> None:
    """A year in which nothing starts is not the usual one, and a year that promotes is not one that beats nobody."""
    assert not proof.well("usual", telling(proof, "shuffled"))
    assert not proof.well("shuffled", telling(proof, "usual"))
    assert not proof.well("unbeaten", telling(proof, "usual"))
    assert not proof.well("usual", telling(proof, "unbeaten"))


def test_every_telling_has_been_thought_of(proof: ModuleType) -> None:
    assert set(proof.TELLINGS) == set(GOOD)


def test_one_wrong_telling_makes_the_proof_fail_and_says_which(
    proof: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ends = {tuple(options): telling(proof, name) for name, (options, _) in proof.TELLINGS.items()}
    monkeypatch.setattr(proof, "told", lambda *options: ends[options])
    monkeypatch.setattr(sys, "argv", ["loop.py"])
    assert proof.main() == 0
    assert capsys.readouterr().out.startswith(
        "loop: 6 tellings of the year, each as it must be. usual: 8 drift incidents"
    )
    ends[("--shuffle", "7")] = msgspec.structs.replace(ends[("--shuffle", "7")], incidents=1)
    assert proof.main() == 1
    assert "NOT as they must be: shuffled." in capsys.readouterr().out
    monkeypatch.setattr(sys, "argv", ["loop.py", "--sample"])
    assert proof.main() == 1
    assert capsys.readouterr().out.startswith("loop: 1 tellings of the year, NOT as they must be: shuffled.")
    monkeypatch.setattr(sys, "argv", ["loop.py", "--only", "usual", "seed"])
    assert proof.main() == 0
    assert capsys.readouterr().out.count(" serves") == 2
