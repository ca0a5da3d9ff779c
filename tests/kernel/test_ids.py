from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from falaj.kernel.ids import new_id

MOMENTS = st.datetimes(datetime(2000, 1, 1), datetime(2200, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001  # given below


@given(MOMENTS, MOMENTS)
def test_ids_sort_by_time(one: datetime, two: datetime) -> None:
    if abs(one - two) >= timedelta(milliseconds=1):
        assert (new_id("op", one) < new_id("op", two)) == (one < two)


def test_ids_of_one_moment_differ() -> None:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    made = {new_id("run", now) for _ in range(2000)}
    assert len(made) == 2000
    assert len({i[:14] for i in made}) == 1  # the prefix and ten characters of time
    assert all(re.fullmatch(r"run_[0-9a-hjkmnp-tv-z]{26}", i) for i in made)
