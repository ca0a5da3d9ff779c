"""The recorded flights of 2013: as files that a source reads, and as requests to a model."""

from __future__ import annotations

import csv
import shutil
import subprocess
import sys
from collections.abc import Iterator
from datetime import date
from importlib import resources
from pathlib import Path
from typing import Any

import msgspec

from falaj.kernel.errors import Unavailable

LATE_MINUTES = 15


class Asked(msgspec.Struct, frozen=True):
    """One flight: what is known before it departs, and what became of it (None: cancelled or diverted)."""

    row: dict[str, Any]
    delay: float | None


def example() -> Path:
    """The folder of the flights project: in the installed package, or in a checkout."""
    package = Path(str(resources.files("falaj")))
    for folder in (package / "examples" / "flights", package.parents[1] / "examples" / "flights"):
        if (folder / "falaj.toml").is_file():
            return folder
    raise Unavailable(
        "the flights project is not in this installation", hint='install "falaj[demo]"', code="no_example"
    )


def lay_out(folder: Path) -> None:
    """Copy the project's code; its data stays where it is."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in sorted(example().iterdir()):
        if path.is_file():
            shutil.copyfile(path, folder / path.name)


def write_data(folder: Path, months: list[int], days: list[date], into: str = "data") -> None:
    """Write recorded rows as files below `into`, by the project's own script."""
    command = [sys.executable, str(folder / "prepare_data.py"), "--folder", str(folder / into)]
    command += ["--months", *map(str, months), "--days", *(d.isoformat() for d in days)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Unavailable(
            f"the recorded flights cannot be written: {(done.stderr or done.stdout).strip()[-300:]}",
            hint='install "falaj[demo]", which brings them',
            code="no_flights",
        )


def day_of(folder: Path, day: date) -> list[Asked]:
    """The flights of one day, in order of departure. They are kept apart from `data/`: nothing of them has happened yet."""
    write_data(folder, [], [day], into="timetable")
    rows = _rows(folder / "timetable" / f"flights-{day}.csv")
    return [asked(row) for row in sorted(rows, key=lambda r: (r["time_hour"], int(r["minute"])))]


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
    return Asked(request, None if row["arr_delay"] == "NA" else float(row["arr_delay"]))


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


def _rows(path: Path) -> Iterator[dict[str, str]]:
    with path.open(newline="") as f:
        yield from csv.DictReader(f)
