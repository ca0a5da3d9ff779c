"""How far back is learnt from, what chance starts from, and by how much a version must be better."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

import falaj as fj
from falaj.authoring.project import load_project
from falaj.kernel.digests import digest_of
from falaj.kernel.errors import FalajError, Invalid
from falaj.lifecycle.evidence.model import GateSpec, Measurement, Verdict, judge
from falaj.lifecycle.loop.model import ModelDefinition, ProjectDefinition

Write = Callable[..., Path]
CODE = """
import falaj as fj

things = fj.Source.csv("things", "data/*.csv", event_time="at", known_at="known")
thing = fj.Entity("thing", key="id")

@fj.feature_view(entity=thing, source=things, ttl="2h", features={"size": "float"}{view})
def sizes(rows):
    return rows

@fj.model(name="m", task="binary", label="y", spine=things, at="at", features=[sizes, fj.request_features(z="float")]{model})
def train(data, params):
    return None
"""


def code(view: str = "", model: str = "") -> str:
    return CODE.replace("{view}", view).replace("{model}", model)


def defined(project: Write, view: str = "", model: str = "") -> ProjectDefinition:
    return load_project(project(code(view, model))).definition()


def model_of(project: Write, more: str = "") -> ModelDefinition:
    (found,) = defined(project, model=more).models
    return found


def test_without_a_word_everything_is_learnt_from_and_chance_starts_at_nothing(project: Write) -> None:
    found = model_of(project)
    assert (found.history_seconds, found.seed) == (0, 0)
    (view,) = defined(project).views
    assert view.lookback_seconds == 0


def test_history_and_seed_stand_in_the_definition_and_change_its_digest(project: Write) -> None:
    plain = model_of(project)
    changed = [
        model_of(project, ", history='120d'"),
        model_of(project, ", history='90m'"),
        model_of(project, ", seed=3"),
    ]
    assert [(m.history_seconds, m.seed) for m in changed] == [(120 * 86400, 0), (90 * 60, 0), (0, 3)]
    assert len({digest_of(m) for m in (plain, *changed)}) == 4
    assert [m.training().history_seconds for m in changed] == [120 * 86400, 90 * 60, 0]
    assert len({m.code for m in (plain, *changed)}) == 4, "they stand above the function"


def test_a_lookback_names_another_version_of_the_view(project: Write) -> None:
    (plain,) = defined(project).views
    (day,) = defined(project, view=", lookback='24h'").views
    (two,) = defined(project, view=", lookback='48h'").views
    assert (day.lookback_seconds, two.lookback_seconds) == (86400, 2 * 86400)
    assert len({plain.digest, day.digest, two.digest}) == 3
    (used,) = defined(project, view=", lookback='24h'").models
    assert used.views[0].digest == day.digest, "whoever uses the view is bound to that version"


@pytest.mark.parametrize(
    ("view", "model", "said"),
    [
        ("", ", history='always'", "'always' is not a duration"),
        ("", ", history='-1d'", "'-1d' is not a duration"),
        ("", ", history='1.5d'", "'1.5d' is not a duration"),
        ("", ", history='0d'", "the history of m is 0d"),
        ("", ", seed=-1", "the seed of m is -1"),
        ("", ", seed=0.5", "the seed of m is 0.5"),
        ("", ", seed='7'", "the seed of m is '7'"),
        ("", ", seed=True", "the seed of m is True"),
        ("", ", seed=2**31", "the seed of m is 2147483648"),
        (", lookback='24'", "", "'24' is not a duration"),
        (", lookback='0s'", "", "the lookback of sizes is 0s"),
        (", lookbck='24h'", "", "does not know lookbck"),
    ],
)
def test_what_is_no_history_no_seed_and_no_lookback(project: Write, view: str, model: str, said: str) -> None:
    with pytest.raises(Invalid, match=said) as refusal:
        defined(project, view, model)
    assert refusal.value.hint


# better than the champion


def verdict(gate: GateSpec, difference: float) -> Verdict:
    """How a candidate ends that is so much better than the champion."""
    detail = {"champion": "sha256:" + "0" * 64, "champion_alias": "m@1"}
    return judge(gate, Measurement(gate.name, difference, detail=detail)).verdict


def test_better_than_the_champion_asks_for_a_difference(project: Write) -> None:
    wanted = "[fj.gate.better_than_champion('roc_auc', by=0.01), fj.gate.better_than_champion('brier')]"
    gates = [g for g in model_of(project, f", gates={wanted}").gates if g.kind == "champion"]
    assert [(g.name, g.limit) for g in gates] == [("champion roc_auc", ">= 0.01"), ("champion brier", ">= 0")]
    by, none = gates
    assert [verdict(by, d) for d in (0.02, 0.01, 0.009, -0.02)] == [
        Verdict.SUCCESSFUL, Verdict.SUCCESSFUL, Verdict.FAILED, Verdict.FAILED,
    ]  # fmt: skip
    assert [verdict(none, d) for d in (0.0, -1e-9)] == [Verdict.SUCCESSFUL, Verdict.FAILED]


def test_by_how_much_is_part_of_the_definition(project: Write) -> None:
    by = [model_of(project, f", gates=[fj.gate.better_than_champion('roc_auc', by={by})]") for by in (0.0, 0.01, 0.02)]
    assert len({digest_of(m.gates) for m in by}) == 3


@pytest.mark.parametrize("by", [-0.01, float("nan"), float("inf")])
def test_by_how_much_is_no_such_number(by: float) -> None:
    with pytest.raises(FalajError, match="shall be better by") as refusal:
        fj.gate.better_than_champion("roc_auc", by=by)
    assert refusal.value.code == "wrong_gate" and refusal.value.hint


@pytest.mark.parametrize(
    ("gates", "said"),
    [
        ("[fj.gate.better_than_champion('mae')]", "mae is not measured for binary"),
        (
            "[fj.gate.better_than_champion('brier'), fj.gate.not_worse_than_champion('brier', margin=1)]",
            "the gate champion brier twice",
        ),
    ],
)
def test_a_champion_is_compared_by_what_is_measured_and_once(project: Write, gates: str, said: str) -> None:
    with pytest.raises(Invalid, match=said):
        model_of(project, f", gates={gates}")
