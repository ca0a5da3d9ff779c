"""When the clock stops in the year."""

from __future__ import annotations

import itertools
from datetime import UTC, date, datetime, timedelta

import pytest

from falaj.entrypoints.cli.demo.flights import LAST_DAY
from falaj.entrypoints.cli.demo.season import ASKED_AHEAD, HOURS, STEP_DAYS, visits


@pytest.mark.parametrize("first", [date(2013, 4, 2), date(2013, 4, 3), date(2013, 12, 29)])
def test_from_the_first_day_to_the_end_of_the_record(first: date) -> None:
    moments = list(visits(first))
    assert moments[0] == datetime(first.year, first.month, first.day, HOURS[0], tzinfo=UTC)
    assert LAST_DAY - timedelta(days=STEP_DAYS) < moments[-1].date() <= LAST_DAY
    days = [m.date() for m in moments]
    assert [b - a for a, b in itertools.pairwise(days)] == [timedelta(days=STEP_DAYS)] * (len(days) - 1)


def test_what_is_asked_for_at_one_stop_is_not_asked_for_at_the_next() -> None:
    moments = list(visits(date(2013, 4, 2)))
    assert all(a + ASKED_AHEAD <= b for a, b in itertools.pairwise(moments))


def test_hours_take_turns_and_meet_without_overlap() -> None:
    moments = list(visits(date(2013, 4, 2)))
    assert [m.hour for m in moments[: 2 * len(HOURS)]] == [*HOURS, *HOURS]
    ahead = int(ASKED_AHEAD / timedelta(hours=1))
    begins = sorted(HOURS)
    assert [b - a for a, b in itertools.pairwise(begins)] == [ahead] * (len(HOURS) - 1)


def test_after_the_record_there_is_nothing() -> None:
    assert [m.date() for m in visits(LAST_DAY)] == [LAST_DAY]
    assert list(visits(LAST_DAY + timedelta(days=1))) == []
    assert list(visits(LAST_DAY + timedelta(days=9))) == []
