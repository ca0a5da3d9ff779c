"""What follows from what is known of a model: pure rules."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest

from falaj.governance.changes.inventory import (
    Declared,
    Fact,
    Fallback,
    Kill,
    Known,
    Validation,
    check_fact,
    check_fallback,
    check_validation,
    due,
    governed,
)
from falaj.governance.changes.tiers import CRITICAL, HIGH, LIMITED
from falaj.kernel.clock import iso
from falaj.kernel.errors import Invalid

NOW = datetime(2026, 3, 1, tzinfo=UTC)


def at(days: float) -> str:
    return iso(NOW + timedelta(days=days))


def fact(name: str, value: Any, days: float = -1) -> Fact:
    return Fact("m", name, value, "rita", at(days), "because")


def validation(outcome: str = "passed", until: float = 100, days: float = -10, **changed: Any) -> Validation:
    found = Validation("val", "m", "m@1", "sha256:a", "eve", "rita", outcome, ("drift",), at(days), at(until))
    return msgspec.structs.replace(found, **changed)


def known(
    declared: Declared = Declared(),  # noqa: B008  # frozen
    tiers: tuple[str, ...] = (),
    validations: tuple[Validation, ...] = (),
    kill: Kill | None = None,
    **facts: Any,
) -> Known:
    said = {n: v if isinstance(v, Fact) else fact(n, v) for n, v in facts.items()}
    return Known("m", declared, tiers, said, validations, kill)


def codes(k: Known) -> list[str]:
    return [f.error.code for f in governed(k, "limited", 30, NOW).freezes]


KILL = Kill("kil", "m", "rita", "wrong", at(-1), Fallback())


@pytest.mark.parametrize(
    ("what", "expected"),
    [
        (known(), []),
        (known(retired=True), ["model_retired"]),
        (known(retired=False), []),
        (known(kill=KILL), ["model_killed"]),
        (known(tiers=("high",)), ["validation_missing"]),
        (known(tiers=("high",), validations=(validation(),)), []),
        (known(validations=(validation("failed"),)), ["validation_failed"]),
        (known(validations=(validation("passed"), validation("failed", days=-20))), []),
        (known(validations=(validation(until=-1),)), ["revalidation_overdue"]),
        (known(validations=(validation("failed", until=-1),)), ["validation_failed", "revalidation_overdue"]),
        (known(revalidate_by=at(-1)), ["revalidation_overdue"]),
        (known(revalidate_by=at(0)), ["revalidation_overdue"]),
        (known(revalidate_by=at(1)), []),
        (known(retired=True, kill=KILL), ["model_retired", "model_killed"]),
    ],
)
def test_what_freezes_a_model(what: Known, expected: list[str]) -> None:
    assert codes(what) == expected
    for freeze in governed(what, "limited", 30, NOW).freezes:
        assert freeze.error.hint and freeze.entirely == (freeze.error.code == "model_retired")
        assert freeze.always == (freeze.error.code in ("model_retired", "model_killed"))


def test_the_newest_word_says_when_it_is_validated_again() -> None:
    assert due(known()) == ""
    assert due(known(validations=(validation(),), revalidate_by=fact("revalidate_by", at(5), -20))) == at(100)
    assert due(known(validations=(validation(),), revalidate_by=fact("revalidate_by", at(5), -1))) == at(5)


def test_the_shorter_life_of_an_approval_holds() -> None:
    assert governed(known(), "limited", 365, NOW).approval_days == LIMITED.approval_days
    assert governed(known(), "limited", 3, NOW).approval_days == 3
    assert governed(known(tiers=("critical",)), "limited", 365, NOW).approval_days == CRITICAL.approval_days


def test_code_and_people_together_say_what_it_is_for() -> None:
    declared = Declared(owner="team", regulated=True, fallback=Fallback("previous"))
    both = known(declared, owner="rita", regulated=False)
    assert both.said("owner", declared.owner) == "rita"
    assert both.regulated, "one of them is enough"
    assert both.fallback.kind == "previous"
    assert known(declared, fallback={"kind": "version", "number": 2}).fallback == Fallback("version", 2)
    assert known().fallback == Fallback("refuse")


@pytest.mark.parametrize(
    ("fallback", "task"),
    [
        (Fallback("nothing"), ""),
        (Fallback("version"), ""),
        (Fallback("version", -1), ""),
        (Fallback("answer"), ""),
        (Fallback("answer", 0, {"probability": "high"}), ""),
        (Fallback("answer", 0, {"probability": float("nan")}), ""),
        (Fallback("answer", 0, {"probability": True}), ""),
        (Fallback("answer", 0, {"probabilities": []}), ""),
        (Fallback("answer", 0, {"probability": 0.5}), "binary"),
        (Fallback("answer", 0, {"value": 1.0}), "multiclass"),
    ],
    ids=str,
)
def test_a_fallback_that_cannot_answer_is_refused(fallback: Fallback, task: str) -> None:
    with pytest.raises(Invalid) as refused:
        check_fallback(fallback, task)
    assert refused.value.code == "bad_fallback"


def test_fallbacks_that_can_answer() -> None:
    assert check_fallback(Fallback("answer", 0, {"probability": 0.5, "class": 0}), "binary")
    assert check_fallback(Fallback("answer", 0, {"probabilities": [0.5, 0.5], "class": 0}), "multiclass")
    assert check_fallback(Fallback("answer", 0, {"anything": 1}))
    assert check_fallback(Fallback("version", 3)).words == "version 3"


@pytest.mark.parametrize(
    "changed",
    [
        {"validator": "eve"},
        {"validator": "olga"},
        {"outcome": "fine"},
        {"outcome": "failed", "findings": ()},
        {"outcome": "passed with findings", "findings": ("  ",)},
        {"until": at(-11)},
        {"until": at(-10)},
        {"until": at(-10 + 366)},
    ],
    ids=str,
)
def test_a_validation_is_independent_and_says_what_it_found(changed: dict[str, Any]) -> None:
    about = known(Declared(owner="olga"))
    assert check_validation(validation(), about, HIGH)
    assert check_validation(validation(until=300), about, HIGH)
    with pytest.raises(Invalid):
        check_validation(validation(**changed) if "until" not in changed else msgspec.structs.replace(validation(), **changed), about, HIGH)  # fmt: skip


@pytest.mark.parametrize(
    ("name", "value", "code"),
    [
        ("owner", "  ", "bad_inventory_fact"),
        ("owner", "x" * 2001, "bad_inventory_fact"),
        ("tier", "harmless", "no_such_tier"),
        ("fallback", {"kind": "version"}, "bad_fallback"),
    ],
)
def test_a_fact_that_cannot_be_kept_is_refused(name: str, value: Any, code: str) -> None:
    with pytest.raises(Invalid) as refused:
        check_fact(name, value, known())
    assert refused.value.code == code


def test_regulated_use_and_a_tier_for_one_person_exclude_each_other() -> None:
    for tier in ("one-person", "minimal"):
        with pytest.raises(Invalid) as refused:
            check_fact("tier", tier, known(regulated=True))
        assert refused.value.code == "tier_not_for_regulated"
        with pytest.raises(Invalid):
            check_fact("regulated", True, known(tier=tier))
    assert governed(known(tier="one-person", declared=Declared(regulated=True)), "limited", 30, NOW).tier is LIMITED
