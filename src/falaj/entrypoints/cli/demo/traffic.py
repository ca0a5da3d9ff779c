"""Traffic: flights asked over HTTP, as many times as there are people who ask, and what became of them as labels."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from datetime import date
from typing import Any

import httpx
import msgspec

from falaj.entrypoints.cli.demo import flights
from falaj.entrypoints.cli.demo.stage import MODEL, Stage
from falaj.kernel.errors import Unavailable

_CONNECTIONS = 16
_LABELS_AT_ONCE = 5000


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

    def scored(self) -> list[tuple[float, bool]]:
        """(score, was late) of the flights that landed."""
        landed = [(a["outputs"][0]["data"][0], f.delay) for a, f in self.answers if f.delay is not None]
        return [(float(score), delay > flights.LATE_MINUTES) for score, delay in landed]

    def labels(self, share: float) -> list[dict[str, Any]]:
        """What became of them, as labels. Cancelled flights have none, and of the others `share` arrive; the rest never do."""
        found = []
        for n, (answer, flight) in enumerate(self.answers):
            if flight.delay is not None and (n * 0.618034) % 1 < share:
                late = 1.0 if flight.delay > flights.LATE_MINUTES else 0.0
                found.append({"prediction": answer["parameters"]["prediction_id"], "value": late})
        return found


def ask_day(stage: Stage, day: date, key: str, model: str = MODEL) -> Answered:
    """Ask every flight of a day once. `key` makes the askers different people, so that routing spreads them."""
    asked = flights.day_of(stage.folder, day)
    started = time.perf_counter()
    answers, failed = asyncio.run(_ask_all(stage, asked, key, model))
    return Answered(tuple(answers), time.perf_counter() - started, failed)


def push_labels(stage: Stage, labels: list[dict[str, Any]]) -> dict[str, int]:
    """Send labels; those of predictions that monitoring has not read yet are sent again, within ten seconds."""
    client, accepted, deadline = stage.client("timetable"), 0, time.monotonic() + 10
    for i in range(0, len(labels), _LABELS_AT_ONCE):
        part = labels[i : i + _LABELS_AT_ONCE]
        answer = client.post(f"/api/v1/models/{MODEL}/labels", {"labels": part})
        while answer["unknown"] and time.monotonic() < deadline:
            time.sleep(0.1)  # the reader of the journal is a few tenths of a second behind
            answer = client.post(f"/api/v1/models/{MODEL}/labels", {"labels": part})
        accepted += answer["accepted"]
    return {"accepted": accepted, "sent": len(labels)}


async def _ask_all(
    stage: Stage, asked: list[flights.Asked], key: str, model: str
) -> tuple[list[tuple[dict[str, Any], flights.Asked]], int]:
    headers = {"Authorization": f"Bearer {stage.token('timetable')}"}
    limits = httpx.Limits(max_connections=_CONNECTIONS)
    async with httpx.AsyncClient(base_url=stage.plane, headers=headers, limits=limits, timeout=30) as http:
        wanted = (await http.get(f"/v2/models/{model}")).json()["inputs"]
        gate = asyncio.Semaphore(_CONNECTIONS)

        async def ask(n: int, flight: flights.Asked) -> dict[str, Any] | None:
            row = flight.row
            inputs = [
                {"name": w["name"], "datatype": w["datatype"], "shape": [1], "data": [row[w["name"]]]} for w in wanted
            ]
            body = msgspec.json.encode({"inputs": inputs, "parameters": {"routing_key": f"{key}-{n}"}})
            async with gate:
                answer = await http.post(f"/v2/models/{model}/infer", content=body)
            return msgspec.json.decode(answer.content) if answer.status_code == 200 else None

        found = await asyncio.gather(*(ask(n, f) for n, f in enumerate(asked)))
    answers = [(a, f) for a, f in zip(found, asked, strict=True) if a is not None]
    if not answers:
        raise Unavailable("the data plane answered no request", hint="see data-plane.log in the home's plane folder")
    return answers, len(asked) - len(answers)
