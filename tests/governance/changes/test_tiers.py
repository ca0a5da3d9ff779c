"""What a tier asks for, and that neither code nor chance makes it less."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from falaj.governance.changes.tiers import LIMITED, NAMES, ONE_PERSON, TIERS, in_force, quorum, tier_of
from falaj.kernel.errors import Invalid

TIER = st.sampled_from(NAMES)


def test_a_stricter_tier_never_asks_for_less() -> None:
    assert [t.rank for t in TIERS] == list(range(len(TIERS)))
    for less, more in pairwise(TIERS):
        assert more.approvals >= less.approvals
        assert set(more.roles) >= set(less.roles)
        assert more.promotes <= less.promotes and more.retrains <= less.retrains
        assert more.validated >= less.validated and more.regulated >= less.regulated
    assert [t.name for t in TIERS if t.own_after_hours] == ["one-person"]
    assert not ONE_PERSON.regulated
    with pytest.raises(Invalid) as refused:
        tier_of("harmless")
    assert refused.value.code == "no_such_tier"


@given(st.lists(TIER, max_size=4), st.one_of(st.just(""), TIER), TIER, st.booleans())
def test_the_strictest_word_holds(declared: list[str], confirmed: str, default: str, regulated: bool) -> None:
    found = in_force(declared, confirmed, default, regulated=regulated)
    assert all(found.rank >= tier_of(t).rank for t in (*declared, confirmed or default))
    assert found.regulated or not regulated
    if not regulated:
        assert found.name in {*declared, confirmed or default}


@given(st.lists(TIER, max_size=4), st.one_of(st.just(""), TIER), TIER, TIER)
def test_more_code_never_makes_it_less(declared: list[str], confirmed: str, default: str, more: str) -> None:
    before = in_force(declared, confirmed, default, regulated=False)
    assert in_force([*declared, more], confirmed, default, regulated=False).rank >= before.rank


def test_only_a_person_goes_below_the_default() -> None:
    assert in_force(["minimal"], "", "limited", regulated=False) is LIMITED
    assert in_force([], "minimal", "limited", regulated=False).name == "minimal"
    assert in_force(["one-person"], "one-person", "limited", regulated=False) is ONE_PERSON
    assert in_force(["one-person"], "one-person", "limited", regulated=True) is LIMITED
    assert in_force(["high"], "minimal", "limited", regulated=False).name == "high"


@given(st.sampled_from(TIERS), st.integers(1, 5), st.lists(st.sampled_from(["risk-officer", "auditor"]), unique=True))
def test_a_version_may_ask_for_more_than_its_tier(tier: object, approvals: int, roles: list[str]) -> None:
    assert tier in TIERS
    wanted = next(t for t in TIERS if t == tier)
    needed, asked = quorum(wanted, approvals, tuple(roles))
    assert needed >= max(approvals, wanted.approvals, len(asked))
    assert set(asked) == {*roles, *wanted.roles}
