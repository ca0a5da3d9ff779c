from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from falaj.governance.privacy.model import allowed_purposes

SOURCES = st.lists(st.lists(st.sampled_from("abcd"), max_size=4).map(tuple), max_size=4)


@given(SOURCES)
def test_a_purpose_is_allowed_when_every_source_allows_it(sources: list[tuple[str, ...]]) -> None:
    found = allowed_purposes(sources)
    assert list(found) == sorted(set(found))
    for purpose in "abcd":
        assert (purpose in found) == (bool(sources) and all(purpose in s for s in sources))


@given(SOURCES, st.lists(st.sampled_from("abcd"), max_size=4).map(tuple))
def test_one_more_source_never_allows_more(sources: list[tuple[str, ...]], more: tuple[str, ...]) -> None:
    if sources:
        assert set(allowed_purposes([*sources, more])) <= set(allowed_purposes(sources))


def test_silence_is_not_consent() -> None:
    assert allowed_purposes([]) == ()
    assert allowed_purposes([()]) == ()
    assert allowed_purposes([("a",), ()]) == ()
    assert allowed_purposes(iter([("b", "a"), ("a", "b", "c")])) == ("a", "b")
