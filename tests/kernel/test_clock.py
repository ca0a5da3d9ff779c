from __future__ import annotations

import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from falaj.kernel import clock as clocks
from falaj.kernel.clock import HomeClock, iso, parse_iso, replay_of, set_replay
from falaj.kernel.errors import Integrity

DAY = datetime(2013, 4, 1, 8, 30, tzinfo=UTC)


class Machine:
    """The machine's time, set by hand."""

    def __init__(self) -> None:
        self.shows = 1_000_000.0

    def time(self) -> float:
        return self.shows


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    made = Machine()
    monkeypatch.setattr(clocks, "time", made)
    return made


def test_a_home_without_a_replay_shows_the_machines_time(tmp_path: Path) -> None:
    clock = HomeClock(tmp_path)
    assert replay_of(tmp_path) is None
    before = datetime.now(UTC)
    assert before <= clock.now() <= datetime.now(UTC)
    assert clock.now().tzinfo is UTC


def test_a_replay_starts_where_it_was_set_and_runs_at_its_rate(tmp_path: Path, machine: Machine) -> None:
    set_replay(tmp_path, DAY, rate=60.0)
    clock = HomeClock(tmp_path)
    assert clock.now() == DAY
    machine.shows += 2.5
    assert clock.now() == DAY + timedelta(seconds=150)
    found = replay_of(tmp_path)
    assert found is not None and (found.shows, found.rate, found.anchor) == (DAY, 60.0, 1_000_000.0)


def test_a_jump_is_followed_by_a_clock_that_runs_already(tmp_path: Path, machine: Machine) -> None:
    set_replay(tmp_path, DAY)
    clock, other = HomeClock(tmp_path), HomeClock(tmp_path)
    assert clock.now() == other.now() == DAY
    machine.shows += 10
    set_replay(tmp_path, DAY + timedelta(days=30), rate=2.0)
    assert clock.now() == other.now() == DAY + timedelta(days=30)
    machine.shows += 1
    assert clock.now() == other.now() == DAY + timedelta(days=30, seconds=2)


def test_a_jump_is_followed_on_the_real_machine(tmp_path: Path) -> None:
    set_replay(tmp_path, DAY)
    clock = HomeClock(tmp_path)
    assert clock.now() - DAY < timedelta(days=1)
    set_replay(tmp_path, DAY + timedelta(days=365))
    wait_for(lambda: clock.now() > DAY + timedelta(days=364))


def test_a_clock_that_is_set_later_is_followed_and_so_is_its_end(tmp_path: Path, machine: Machine) -> None:
    clock = HomeClock(tmp_path)
    assert clock.now().year > 2020
    set_replay(tmp_path, DAY, rate=2.0)
    machine.shows += 1
    assert clock.now() == DAY + timedelta(seconds=2)
    (tmp_path / "clock.json").unlink()
    machine.shows += 1
    assert clock.now().year > 2020
    set_replay(tmp_path, DAY)
    machine.shows += 0.1
    assert clock.now() == DAY + timedelta(seconds=0.1)


def test_who_sets_the_clock_sees_it_at_once(tmp_path: Path, machine: Machine) -> None:
    clock = HomeClock(tmp_path)
    clock.now()
    clock.set(DAY, 3.0)
    assert clock.now() == DAY
    machine.shows += 1
    assert clock.now() == DAY + timedelta(seconds=3)


def test_the_file_is_looked_at_every_50_ms_at_most(tmp_path: Path, machine: Machine) -> None:
    clock = HomeClock(tmp_path)
    clock.now()
    set_replay(tmp_path, DAY)
    machine.shows += 0.049
    assert clock.now().year > 2020
    machine.shows += 0.002
    assert clock.now().year == DAY.year


def test_a_clock_that_cannot_be_read_is_no_reason_to_show_another_time(tmp_path: Path, machine: Machine) -> None:
    clock = HomeClock(tmp_path)
    (tmp_path / "clock.json").write_text("{")
    for _ in range(2):
        with pytest.raises(Integrity) as refusal:
            clock.now()
        assert refusal.value.code == "clock_unreadable"


@pytest.mark.parametrize(
    "written",
    [
        b'{"anchor": 0, "shows": "2013-04-01T00:00:00"}',
        b'{"anchor": 0, "shows": "2013-04-01T00:00:00Z", "rate": 1e300}',
        b'{"anchor": 0, "shows": "2013-04-01T00:00:00Z\xff"}',
    ],
    ids=["no zone", "no such moment", "not UTF-8"],
)
def test_a_clock_that_shows_no_moment_cannot_be_read(tmp_path: Path, written: bytes) -> None:
    (tmp_path / "clock.json").write_bytes(written)
    with pytest.raises(Integrity) as refusal:
        HomeClock(tmp_path).now()
    assert refusal.value.code == "clock_unreadable"
    if b"1e300" not in written:
        with pytest.raises(Integrity):
            replay_of(tmp_path)


def test_a_clock_that_was_set_in_another_zone_shows_utc(tmp_path: Path, machine: Machine) -> None:
    set_replay(tmp_path, DAY.astimezone(timezone(timedelta(hours=-5))))
    assert HomeClock(tmp_path).now() == DAY
    assert HomeClock(tmp_path).now().tzinfo is UTC


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_setting_a_clock_leaves_nothing_else_behind(tmp_path: Path) -> None:
    set_replay(tmp_path, DAY)
    set_replay(tmp_path, DAY)
    assert [p.name for p in tmp_path.iterdir()] == ["clock.json"]


@given(st.datetimes(timezones=st.just(UTC), min_value=datetime(1970, 1, 1)))  # noqa: DTZ001  # the zone stands beside it
def test_moments_are_written_in_utc_with_milliseconds(moment: datetime) -> None:
    text = iso(moment)
    assert text.endswith("Z") and len(text) == 24
    assert timedelta() <= moment - parse_iso(text) < timedelta(milliseconds=1)


def test_another_zone_is_the_same_moment() -> None:
    assert iso(DAY.astimezone(timezone(timedelta(hours=-5)))) == iso(DAY) == "2013-04-01T08:30:00.000Z"
    assert parse_iso("2013-04-01T03:30:00-05:00") == DAY


@pytest.mark.parametrize(
    "text",
    ["2013-04-01T08:30:00", "2013-04-01", "yesterday", "", "0001-01-01T00:00:00+05:00", "9999-12-31T23:00:00-05:00"],
)
def test_a_time_without_a_zone_or_out_of_the_calendar_is_no_moment(text: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        parse_iso(text)


def test_a_look_at_the_old_file_does_not_count_after_the_clock_was_set(tmp_path: Path) -> None:
    """Another thread is looking while the clock is set: whoever set it must not be shown the old time."""
    looked, go = threading.Event(), threading.Event()

    class Slow(HomeClock):
        def _refresh(self) -> None:
            super()._refresh()
            looked.set()
            assert go.wait(20)

    set_replay(tmp_path, DAY)
    clock = Slow(tmp_path)
    looking = threading.Thread(target=clock.now)
    setting = threading.Thread(target=clock.set, args=(DAY + timedelta(days=30),))
    looking.start()
    assert looked.wait(20)
    setting.start()
    setting.join(0.01)
    go.set()
    setting.join(20)
    looking.join(20)
    assert clock.now() >= DAY + timedelta(days=30)
