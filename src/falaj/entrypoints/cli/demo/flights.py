"""The recorded flights of 2013: as files that a source reads, as requests to a model, and as they land."""

from __future__ import annotations

import csv
import shutil
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from importlib import resources
from pathlib import Path
from typing import Any

import msgspec

from falaj.entrypoints.cli.demo.variation import Variation
from falaj.kernel.errors import Unavailable

FIRST_DAY = date(2013, 4, 1)
LAST_DAY = date(2013, 12, 30)
_REPORT = "%Y-%m-%d-%H%M"
_TAXI = timedelta(minutes=45)  # on the ground before and after the flight, and until the report is in
_CANCELLED = timedelta(hours=6)  # after the scheduled departure, when the report is in


class Asked(msgspec.Struct, frozen=True):
    """One flight: what is known before it departs, when it is asked for, and what became of it.

    `delay` is in minutes, None when it was cancelled or diverted; `landed` is when that was reported.
    """

    row: dict[str, Any]
    at: datetime
    delay: float | None
    landed: datetime


def example() -> Path:
    """The folder of the flights project: in the installed package, or in a checkout."""
    package = Path(str(resources.files("falaj")))
    for folder in (package / "examples" / "flights", package.parents[1] / "examples" / "flights"):
        if (folder / "falaj.toml").is_file():
            return folder
    raise Unavailable(
        "the flights project is not in this installation", hint='install "falaj[demo]"', code="demo_not_installed"
    )


def lay_out(folder: Path, variation: Variation) -> None:
    """Copy the project's code; its data stays where it is."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in sorted(example().iterdir()):
        if path.is_file():
            shutil.copyfile(path, folder / path.name)
    variation.edit(folder / "flights.py")


def write_data(folder: Path, variation: Variation, months: list[int], days: list[date], into: str = "data") -> None:
    """Write recorded rows as files below `into`, by the project's own script."""
    command = [sys.executable, str(folder / "prepare_data.py"), "--folder", str(folder / into)]
    command += [*variation.data_options(), "--months", *map(str, months), "--days", *(d.isoformat() for d in days)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Unavailable(
            f"the recorded flights cannot be written: {(done.stderr or done.stdout).strip()[-300:]}",
            hint='install "falaj[demo]", which brings them',
            code="demo_data_missing",
        )


def write_broken(folder: Path) -> Path:
    """A file as a broken feed would send it: real rows of March that lost their tail numbers."""
    source, target = folder / "data" / "flights-2013-03.csv", folder / "data" / "flights-broken.csv"
    with source.open(newline="") as read, target.open("w", newline="") as written:
        rows = csv.DictReader(read)
        out = csv.DictWriter(written, rows.fieldnames or [])
        out.writeheader()
        for _, row in zip(range(2000), rows, strict=False):
            out.writerow({**row, "tailnum": "NA"})
    return target


class Timetable:
    """The flights and the weather of April to December: nothing of them has happened until the clock says so.

    Kept apart from the project's `data/`. `report` moves what is known by a moment into it.
    """

    def __init__(self, folder: Path, variation: Variation) -> None:
        self._folder = folder
        self._since = {name: _last_report(folder, name) for name in ("flights", "weather")}
        self._next = {name: max(FIRST_DAY, at.date() - timedelta(days=2)) for name, at in self._since.items()}
        self._waiting: dict[str, list[tuple[datetime, dict[str, str]]]] = {"flights": [], "weather": []}
        self._asked: dict[date, list[Asked]] = {}  # of the last few days
        days = [FIRST_DAY + timedelta(days=n) for n in range((LAST_DAY - FIRST_DAY).days + 1)]
        if not (folder / "timetable" / f"weather-{LAST_DAY}.csv").exists():
            write_data(folder, variation, [], days, into="timetable")

    def between(self, start: datetime, end: datetime) -> list[Asked]:
        """The flights that are asked for in [start, end), an hour before their departure, in that order."""
        day, found = (start - timedelta(days=1)).date(), []
        while day <= end.date():
            found += [f for f in self.of_day(day) if start <= f.at < end]
            day += timedelta(days=1)
        return sorted(found, key=lambda f: f.at)

    def of_day(self, day: date) -> list[Asked]:
        """The flights of one day, in the order in which they are asked for."""
        if day not in self._asked:
            found = sorted(map(asked, self._rows("flights", day)), key=lambda f: f.at)
            self._asked = {d: f for d, f in self._asked.items() if abs((d - day).days) < 3} | {day: found}
        return self._asked[day]

    def report(self, now: datetime) -> None:
        """Put what has become known since the last report into the project's data, one file a source."""
        for name, known in (("flights", _reported), ("weather", _published)):
            while self._next[name] <= now.date():
                rows = [(known(row), row) for row in self._rows(name, self._next[name])]
                self._waiting[name] += [(at, row) for at, row in rows if at > self._since[name]]
                self._next[name] += timedelta(days=1)
            come = [row for at, row in self._waiting[name] if at <= now]
            self._waiting[name] = [(at, row) for at, row in self._waiting[name] if at > now]
            if come:
                path = self._folder / "data" / f"{name}-until-{now:{_REPORT}}.csv"
                whole = path.with_suffix(".part")  # a file that is there is whole, whenever this process is stopped
                with whole.open("w", newline="") as f:
                    out = csv.DictWriter(f, list(come[0]), lineterminator="\n")
                    out.writeheader()
                    out.writerows(come)
                whole.replace(path)

    def _rows(self, name: str, day: date) -> Iterator[dict[str, str]]:
        path = self._folder / "timetable" / f"{name}-{day}.csv"
        if path.exists():
            with path.open(newline="") as f:
                yield from csv.DictReader(f)


def asked(row: dict[str, str]) -> Asked:
    """A recorded row as a request; only what the timetable says goes into it."""
    when = date(int(row["year"]), int(row["month"]), int(row["day"]))
    request = {
        "carrier": row["carrier"],
        "origin": row["origin"],
        "dest": row["dest"],
        "distance": float(row["distance"]),
        "sched_hour": int(row["hour"]) + int(row["minute"]) / 60,
        "weekday": when.isoweekday(),
    }
    delay = None if row["arr_delay"] == "NA" else float(row["arr_delay"])
    return Asked(request, _scheduled(row) - timedelta(hours=1), delay, _reported(row))


def _last_report(folder: Path, name: str) -> datetime:
    """Until when a source's rows lie in the project's data already."""
    reports = [p.stem.partition("-until-")[2] for p in (folder / "data").glob(f"{name}-until-*.csv")]
    return _time_of_report(max(reports)) if reports else datetime(2013, 4, 1, tzinfo=UTC)


def _time_of_report(text: str) -> datetime:
    return datetime.strptime(text, _REPORT).replace(tzinfo=UTC)


def _scheduled(row: dict[str, str]) -> datetime:
    return _time(row["time_hour"]) + timedelta(minutes=int(row["minute"]))


def _reported(row: dict[str, str]) -> datetime:
    """When a flight's row reaches the feed: after its time in the air and the usual time on the ground.

    A row that comes a little early is not used early: the source's `known_at` decides.
    """
    if row["air_time"] == "NA" or row["dep_delay"] == "NA":
        return _scheduled(row) + _CANCELLED
    return _scheduled(row) + timedelta(minutes=float(row["dep_delay"]) + float(row["air_time"])) + _TAXI


def _published(row: dict[str, str]) -> datetime:
    return _time(row["time_hour"]) + timedelta(hours=1)


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text)
