"""A house in which whole tables are scored, and the rows that they have."""

from __future__ import annotations

import csv
import io
from typing import Any

import polars as pl

from falaj.lifecycle.registry.model import ModelVersion
from tests.lifecycle.house import MODEL, House
from tests.lifecycle.tables import ask, hand_over

ROWS = 137
COLUMNS: dict[str, tuple[str, list[Any]]] = {
    "distance": ("FP64", [100.0 + 13.7 * n for n in range(ROWS)]),
    "hour": ("INT64", [n % 24 if n % 7 else None for n in range(ROWS)]),
    "carrier": ("BYTES", [("AA", "B6", "UA", "ZZ", None)[n % 5] for n in range(ROWS)]),
    "origin": ("BYTES", ["JFK"] * ROWS),
}


def given(**more: Any) -> pl.DataFrame:
    """The same rows as a table, with what the online store holds for JFK."""
    plain = {name: values for name, (_, values) in COLUMNS.items()}
    return pl.DataFrame({**plain, "wind": [10.0] * ROWS, "gusty": [True] * ROWS, **more})


def as_parquet(frame: pl.DataFrame) -> bytes:
    out = io.BytesIO()
    frame.write_parquet(out)
    return out.getvalue()


class Office:
    """A house with a version that serves."""

    def __init__(self, home: House) -> None:
        self.home = home
        self.version: ModelVersion = home.registered()
        assert home.release(self.version).state == "done"

    def score(self, table: bytes, who: str = "engineer", model: str = MODEL, **body: Any) -> Any:
        """The end of a scoring: its result, or its error."""
        parcel = hand_over(self.home, who, table)
        body = {"table": parcel, "format": "parquet", **body}
        answer = ask(self.home, who, "POST", f"/api/v1/models/{model}/scores", json=body)
        if answer.status_code != 202:
            return answer.json()
        state = self.home.finished(answer.json()["flow"])
        return state.result if state.state == "done" else state.error

    def fetch(self, name: str, who: str = "engineer") -> bytes:
        answer = ask(self.home, who, "GET", f"/api/v1/tables/{name}")
        assert answer.status_code == 200, answer.text
        return answer.content

    def scores(self, done: Any) -> pl.DataFrame:
        return pl.read_parquet(io.BytesIO(self.fetch(done["files"]["scores"])))

    def rejects(self, done: Any) -> list[dict[str, str]]:
        return list(csv.DictReader(io.StringIO(self.fetch(done["files"]["rejects"]).decode())))
