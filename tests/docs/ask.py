"""Callers of the tutorial's model, for the pages that need some: `python ask.py DAY [DAYS] [--kilometres]`.

Asks for the flights of recorded days as if they were those of DAY and the days after it, and pushes their labels; the
home's clock goes on with them. With `--kilometres` the distance is sent in another unit than the model has learned.
"""

from __future__ import annotations

import csv
import sys
import time
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import httpx
import msgspec

from falaj.entrypoints.cli.client import connect
from falaj.kernel.settings import load_settings

MODEL = "late-flight"
TYPES = {"sched_hour": "FP64", "weekday": "INT64", "distance": "FP64", "carrier": "BYTES", "dest": "BYTES"}
ROWS = 40  # in a request


def main(first: str, days: int, *, kilometres: bool) -> None:
    """Ask, day after day."""
    recorded = by_day(kilometres=kilometres)
    with connect(load_settings({}, Path.cwd(), principal="owner")) as client:
        plane = client.get("/api/v1/status")["environments"]["production"]["address"]
        bearer = {"Authorization": f"Bearer {Path('.falaj/tokens/timetable').read_text('ascii').strip()}"}
        day = datetime.combine(date.fromisoformat(first), datetime.min.time(), UTC) - timedelta(days=1)
        with httpx.Client(base_url=plane, headers=bearer, timeout=30) as callers:
            for number in range(days):
                day += timedelta(days=1)
                client.post("/api/v1/clock", {"shows": (day + timedelta(hours=12)).isoformat(), "rate": 1})
                time.sleep(0.1)  # every process of a home follows its clock within 50 ms
                labels = [answered for rows in recorded[number % len(recorded)] for answered in ask(callers, rows)]
                client.post("/api/v1/clock", {"shows": (day + timedelta(hours=23)).isoformat(), "rate": 1})
                client.post(f"/api/v1/models/{MODEL}/labels", {"labels": labels})
        client.post("/api/v1/clock", {"shows": (day + timedelta(hours=26)).isoformat(), "rate": 1})


def by_day(*, kilometres: bool) -> list[list[list[tuple[dict[str, object], bool]]]]:
    """The recorded flights as requests of some rows each, day by day: the row and whether it was late."""
    found: dict[str, list[tuple[dict[str, object], bool]]] = {}
    with Path("data/flights.csv").open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            if row["arr_delay"] in ("", "NA"):
                continue
            hour = datetime.fromisoformat(row["time_hour"].replace("Z", "+00:00")).astimezone(UTC)
            miles = float(row["distance"])
            features: dict[str, object] = {
                "sched_hour": hour.hour + int(row["minute"]) / 60, "weekday": hour.isoweekday(),
                "distance": miles * 1.609 if kilometres else miles, "carrier": row["carrier"], "dest": row["dest"],
            }  # fmt: skip
            found.setdefault(hour.date().isoformat(), []).append((features, float(row["arr_delay"]) > 15))
    return [[rows[at : at + ROWS] for at in range(0, len(rows), ROWS)] for _, rows in sorted(found.items())]


def ask(callers: httpx.Client, rows: list[tuple[dict[str, object], bool]]) -> list[dict[str, object]]:
    """Ask for some flights at once; returns their labels."""
    inputs = [
        {"name": name, "datatype": kind, "shape": [len(rows)], "data": [features[name] for features, _ in rows]}
        for name, kind in TYPES.items()
    ]
    answer = callers.post(f"/v2/models/{MODEL}/infer", content=msgspec.json.encode({"inputs": inputs}))
    answer.raise_for_status()
    prediction = answer.json()["parameters"]["prediction_id"]
    return [{"prediction": f"{prediction}/{at}", "value": int(late)} for at, (_, late) in enumerate(rows)]


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 1, kilometres="--kilometres" in sys.argv)
