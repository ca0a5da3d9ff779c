"""Which answers go to people, and what may be said of one: pure rules."""

from __future__ import annotations

import math
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

import falaj as fj
from falaj.kernel.errors import Invalid
from falaj.lifecycle.monitoring.policy import ReviewPolicy
from falaj.lifecycle.monitoring.reviews.model import Review, check_code, confidence, override_of, wanted
from falaj.lifecycle.training.model import ModelContract


def contract(task: str, classes: tuple[str, ...] = ()) -> ModelContract:
    return ModelContract("m", task, (), (), (), (), "score", classes)


def test_without_a_rule_no_answer_goes_to_people_by_itself() -> None:
    assert not any(wanted(ReviewPolicy(), "binary", value) for value in (0.0, 0.5, 1.0, None))


@given(st.floats(0, 1), st.floats(0, 1), st.floats(0, 1))
def test_between_counts_both_ends_and_nothing_else(a: float, b: float, value: float) -> None:
    low, high = sorted((a, b))
    policy = ReviewPolicy(between=(low, high))
    assert wanted(policy, "binary", value) == (low <= value <= high)
    assert wanted(policy, "binary", low) and wanted(policy, "regression", high)
    assert not wanted(policy, "regression", math.nextafter(high, math.inf))


@given(st.floats(0, 1), st.floats(0.01, 1))
def test_unsure_of_two_classes_is_the_same_from_both_sides(p: float, least: float) -> None:
    policy = ReviewPolicy(unsure=least)
    assert wanted(policy, "binary", p) == (confidence("binary", [p]) < least)
    assert 0.5 <= confidence("binary", [p]) <= 1


def test_unsure_of_several_classes_looks_at_the_one_that_is_chosen() -> None:
    policy = ReviewPolicy(unsure=0.5)
    assert wanted(policy, "multiclass", [0.4, 0.35, 0.25])
    assert not wanted(policy, "multiclass", [0.1, 0.8, 0.1])


@pytest.mark.parametrize("value", [None, math.nan, math.inf, [], [0.5, None], "0.5"])
def test_what_is_no_number_goes_to_a_person_wherever_there_is_a_rule(value: Any) -> None:
    assert wanted(ReviewPolicy(unsure=0.5), "binary", value)
    assert wanted(ReviewPolicy(every=True), "binary", value)


def test_every_answer() -> None:
    assert wanted(ReviewPolicy(every=True), "regression", 3.2)


def test_an_override_is_a_class_by_its_name_or_a_finite_number() -> None:
    assert override_of(contract("multiclass", ("red", "green", "blue")), "green") == '"green"'
    assert override_of(contract("binary", ("no", "yes")), "yes") == '"yes"'
    assert override_of(contract("binary"), "true") == '"true"'
    assert override_of(contract("regression"), "3.5") == "3.5"


@pytest.mark.parametrize(
    ("task", "classes", "to"),
    [
        ("multiclass", ("red", "green"), "1"), ("multiclass", ("red", "green"), "Red"), ("binary", ("no", "yes"), "0.5"),
        ("binary", (), "1"), ("regression", (), "nan"), ("regression", (), "inf"), ("regression", (), "a lot"),
        ("regression", (), " "),
    ],
)  # fmt: skip
def test_what_is_no_answer_of_the_model_is_refused(task: str, classes: tuple[str, ...], to: str) -> None:
    with pytest.raises(Invalid) as refused:
        override_of(contract(task, classes), to)
    assert refused.value.code == "bad_override" and refused.value.hint


def test_only_declared_codes() -> None:
    policy = ReviewPolicy(codes=("wrong_input",))
    assert check_code(policy, "wrong_input") == "wrong_input"
    for code in ("", "unfair_outcome", "they told me so on the phone"):
        with pytest.raises(Invalid) as refused:
            check_code(policy, code)
        assert refused.value.code == "bad_reason_code" and "wrong_input" in refused.value.hint


def test_a_commitment_tells_nothing_and_fixes_the_value() -> None:
    said = Review(
        "rev_1", "p_1", 0, "m", "sha256:m", "0.5", "rule", "falaj", "now", "then", "overridden", override='"true"'
    )
    salted = msgspec.structs.replace(said, salt="11")
    assert salted.commitment() not in (said.commitment(), msgspec.structs.replace(salted, salt="12").commitment())
    assert salted.commitment() != msgspec.structs.replace(salted, override='"false"').commitment()
    assert salted.commitment() != msgspec.structs.replace(salted, id="rev_2").commitment()
    assert "salt" not in salted.told()


def test_a_project_says_which_answers() -> None:
    policy = fj.Review(between=(0.4, 0.6), within="2d", codes=["wrong_input"]).policy("m", "binary")
    assert policy == ReviewPolicy((0.4, 0.6), None, False, 2 * 86_400, ("wrong_input",))
    assert fj.Review(unsure=0.6).policy("m", "multiclass").unsure == 0.6
    assert fj.Review(between=(-10, 3.5)).policy("m", "regression").rules
    assert not fj.Review().policy("m", "regression").rules


@pytest.mark.parametrize(
    ("task", "said"),
    [
        ("multiclass", {"between": (0.4, 0.6)}), ("regression", {"unsure": 0.5}), ("binary", {"between": (0.6, 0.4)}),
        ("binary", {"between": (0.4, math.nan)}), ("binary", {"between": 0.4}), ("binary", {"unsure": 0}),
        ("binary", {"unsure": 1.1}), ("binary", {"unsure": True}), ("binary", {"within": "0s"}), ("binary", {"codes": ()}),
        ("binary", {"codes": "wrong_input"}), ("binary", {"codes": ("The caller said so",)}),
    ],
)  # fmt: skip
def test_a_rule_that_the_task_cannot_have_is_refused(task: str, said: dict[str, Any]) -> None:
    with pytest.raises(Invalid) as refused:
        fj.Review(**said).policy("flight-delay", task)
    assert refused.value.code == "wrong_definition" and "flight-delay" in refused.value.message and refused.value.hint
