"""Traffic: flights asked over HTTP, and what became of them as labels."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from datetime import datetime
from typing import Any

import httpx
import msgspec

from falaj.entrypoints.cli.demo import flights
from falaj.entrypoints.cli.demo.asking import post_all
from falaj.entrypoints.cli.demo.stage import MODEL, Stage
from falaj.kernel.errors import Unavailable

_LABELS_AT_ONCE = 5000
_LABELLED = 0.95
"""The share of landed flights whose label ever arrives."""
_SLOWLY = 0.1
"""The share of labels that take as long as `flights.Asked.landed` says and ten days more."""


class Outcome(msgspec.Struct, frozen=True):
    """What became of a flight that was asked for: (when its label arrives, the prediction, its score, was it late)."""

    at: float  # seconds since 1970
    prediction: str
    score: float
    late: bool


class Answered(msgspec.Struct, frozen=True):
    """What a round of requests came to. `failed` counts requests without a prediction."""

    answers: tuple[tuple[dict[str, Any], flights.Asked], ...]
    seconds: float
    failed: int

    @property
    def by_version(self) -> dict[str, int]:
        """Answers by version number and role, such as {'@1 stable': 870}."""
        found = Counter(f"@{a['model_version']} {a['parameters'].get('role', 'stable')}" for a, _ in self.answers)
        return dict(sorted(found.items()))

    @property
    def features(self) -> dict[str, int]:
        """Looked-up values by status."""
        counts: Counter[str] = Counter()
        for answer, _ in self.answers:
            counts.update(answer["parameters"]["features"])
        return dict(counts)

    def outcomes(self, late_minutes: int) -> list[Outcome]:
        """Of the flights that landed, what their labels will say, and when; of a few it is never said."""
        found = []
        for n, (answer, flight) in enumerate(self.answers):
            turn = (n * 0.618034) % 1
            if flight.delay is not None and turn < _LABELLED:
                slow = 10 * 86400.0 if turn < _SLOWLY else 0.0
                prediction, score = answer["parameters"]["prediction_id"], float(answer["outputs"][0]["data"][0])
                at = flight.landed.timestamp() + slow
                found.append(Outcome(at, prediction, score, flight.delay > late_minutes))
        return found


def ask(stage: Stage, asked: list[flights.Asked], key: str, model: str = MODEL) -> Answered:
    """Ask for each flight once. `key` makes the askers different people, so that routing spreads them."""
    token, path = stage.token("timetable"), f"/v2/models/{model}"
    answer = httpx.get(stage.plane + path, headers={"Authorization": f"Bearer {token}"}, timeout=30)
    wanted = answer.raise_for_status().json()["inputs"]
    bodies = [_body(flight.row, wanted, f"{key}-{n}") for n, flight in enumerate(asked)]
    started = time.perf_counter()
    found = asyncio.run(post_all(stage.plane, f"{path}/infer", token, bodies))
    seconds = time.perf_counter() - started
    answers = [(msgspec.json.decode(body), f) for (status, body), f in zip(found, asked, strict=True) if status == 200]
    stage.count("predictions", len(answers))
    stage.count("failed", len(asked) - len(answers))
    if asked and not answers:
        raise Unavailable(
            "the data plane answered no request",
            hint="see data-plane.log in the home's plane folder",
            code="plane_does_not_answer",
        )
    return Answered(tuple(answers), seconds, len(asked) - len(answers))


def keep(stage: Stage, moment: datetime, answered: Answered) -> None:
    """Keep what these answers' labels will say, and the last prediction."""
    outcomes = answered.outcomes(stage.variation.late_minutes)
    stage.waiting += outcomes
    stage.months.setdefault(f"{moment:%Y-%m}", []).extend((o.score, o.late) for o in outcomes)
    stage.facts["prediction"] = answered.answers[-1][0]["parameters"]["prediction_id"]


def push_labels(stage: Stage, waiting: list[Outcome], now: datetime) -> list[Outcome]:
    """Send the labels whose time has come; returns those that still wait."""
    come = [o for o in waiting if o.at <= now.timestamp()]
    labels = [{"prediction": o.prediction, "value": 1.0 if o.late else 0.0} for o in come]
    for i in range(0, len(labels), _LABELS_AT_ONCE):
        part = labels[i : i + _LABELS_AT_ONCE]
        answer = stage.client("timetable").post(f"/api/v1/models/{MODEL}/labels", {"labels": part})
        if answer["unknown"]:
            raise Unavailable(
                f"{answer['unknown']} labels are of predictions that nobody knows",
                hint="this is a fault: please report it",
                code="demo_fault",
            )
        stage.count("labels", answer["accepted"])
    return [o for o in waiting if o.at > now.timestamp()]


def _body(row: dict[str, Any], wanted: list[dict[str, Any]], key: str) -> bytes:
    inputs = [{"name": w["name"], "datatype": w["datatype"], "shape": [1], "data": [row[w["name"]]]} for w in wanted]
    return msgspec.json.encode({"inputs": inputs, "parameters": {"routing_key": key}})
