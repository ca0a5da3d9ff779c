"""Until when a key's signatures count, and that a revoked key vouches for no time of its own."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from falaj.governance.signing.trust import NEVER, Trusted, before, every, unrevoked, valid_at
from falaj.kernel.clock import iso

KEY = Ed25519PrivateKey.generate().public_key()
MOMENTS = st.integers(0, 4_000_000_000).map(lambda second: datetime.fromtimestamp(second, UTC))


@given(at=MOMENTS, until=MOMENTS)
def test_what_was_signed_before_the_end_counts_and_nothing_after(at: datetime, until: datetime) -> None:
    counts = iso(at) < iso(until)  # both of one form, so text compares as time
    for revoked in (False, True):
        keys = (Trusted(KEY, iso(until), revoked),)
        assert (valid_at(keys, iso(at)) == [KEY]) is counts
        assert (unrevoked(keys, iso(at)) == [KEY]) is (counts and not revoked)
        assert every(keys) == [KEY]


@given(at=MOMENTS)
def test_a_key_without_an_end_counts_always_and_one_that_never_did_never(at: datetime) -> None:
    for keys in ((KEY,), (Trusted(KEY),)):
        assert valid_at(keys, iso(at)) == valid_at(keys, "") == unrevoked(keys, iso(at)) == [KEY]
    assert valid_at((Trusted(KEY, NEVER),), iso(at)) == []


@pytest.mark.parametrize("moment", ["", "yesterday", "2013-01-01", "2013-01-01T00:00:00", "9" * 40])
def test_a_moment_that_is_not_known_is_not_before_an_end(moment: str) -> None:
    assert not before(moment, "2090-01-01T00:00:00Z")
    assert valid_at((Trusted(KEY, "2090-01-01T00:00:00Z"),), moment) == []


def test_the_end_itself_is_too_late() -> None:
    end = datetime(2026, 1, 1, tzinfo=UTC)
    keys = (Trusted(KEY, iso(end)),)
    assert valid_at(keys, iso(end)) == [] and valid_at(keys, iso(end - timedelta(milliseconds=1))) == [KEY]
