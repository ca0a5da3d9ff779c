"""What a project says of a model's risk and fallback, and what it cannot say."""

from __future__ import annotations

from typing import Any

import pytest

from falaj.authoring.fallback import Fallback, check_fallback
from falaj.governance.changes import inventory
from falaj.kernel.errors import Invalid


@pytest.mark.parametrize(
    ("made", "task", "expected"),
    [
        (Fallback.previous(), "binary", inventory.Fallback("previous")),
        (Fallback.version(3), "regression", inventory.Fallback("version", 3)),
        (Fallback.refuse(), "multiclass", inventory.Fallback("refuse")),
        (Fallback.answer({"value": 2.5}), "regression", inventory.Fallback("answer", 0, {"value": 2.5})),
        (
            Fallback.answer({"probabilities": (0.5, 0.5), "class": 1}),
            "multiclass",
            inventory.Fallback("answer", 0, {"probabilities": [0.5, 0.5], "class": 1}),
        ),
    ],
    ids=str,
)
def test_a_fallback_as_it_is_frozen(made: Fallback, task: str, expected: inventory.Fallback) -> None:
    assert made.spec(task) == expected
    check_fallback("m", made)


@pytest.mark.parametrize(
    ("made", "task"),
    [
        (Fallback.version(0), "binary"),
        (Fallback.answer({}), "binary"),
        (Fallback.answer({"probability": 0.5}), "binary"),
        (Fallback.answer({"value": float("inf")}), "regression"),
        (Fallback.answer({"value": "high"}), "regression"),
    ],
    ids=str,
)
def test_a_fallback_that_cannot_answer(made: Fallback, task: str) -> None:
    with pytest.raises(Invalid) as refused:
        made.spec(task)
    assert refused.value.code == "bad_fallback"


@pytest.mark.parametrize("found", ["previous", 3, {"kind": "refuse"}])
def test_what_is_no_fallback(found: Any) -> None:
    with pytest.raises(Invalid) as refused:
        check_fallback("m", found)
    assert refused.value.code == "wrong_definition"


def test_regulated_use_is_in_no_light_tier() -> None:
    for tier in ("one-person", "minimal"):
        with pytest.raises(Invalid) as refused:
            inventory.check_tier(tier, regulated=True)
        assert refused.value.code == "tier_not_for_regulated"
