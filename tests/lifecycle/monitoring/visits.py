"""An endpoint that is not ours: an HTTP server with a scikit-learn model, and what its owner tells a house of it."""

from __future__ import annotations

import json
import random
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx
import numpy as np
from sklearn.linear_model import LogisticRegression

from falaj.kernel.clock import iso
from tests.lifecycle.house import House
from tests.lifecycle.tables import ask, hand_over

START = datetime(2026, 1, 2, tzinfo=UTC)
"""Where a window of five days begins: they are counted from 1970 on."""
COUNTRIES = ("AE", "IN", "PH")
Person = dict[str, Any]


def person(chance: random.Random, older: float = 0.0) -> Person:
    return {
        "age": round(chance.gauss(40 + older, 10), 1),
        "country": chance.choice(COUNTRIES),
        "member": chance.random() < 0.5,
    }


def features(who: Person) -> list[float]:
    return [who["age"], float(COUNTRIES.index(who["country"])), float(who["member"])]


class Endpoint:
    """Somebody else's service: it scores, and writes what it was asked and answered to a list of its own."""

    def __init__(self) -> None:
        chance = random.Random(0)
        people = [person(chance) for _ in range(800)]
        came = [chance.random() < 1 / (1 + np.exp(-(p["age"] - 40) / 6 - p["member"])) for p in people]
        model = LogisticRegression(max_iter=500).fit(np.array([features(p) for p in people]), came)
        self.records: list[dict[str, Any]] = []
        self.before = b""
        served = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                began = time.perf_counter()
                asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
                record = {"id": asked["id"], "at": asked["at"], "inputs": asked["person"], "version": "2026-01"}
                if asked["person"]["age"] is None:
                    body: dict[str, Any] = {"error": "no age"}
                    status = 500
                    record |= {"error": "ValueError: no age"}
                else:
                    answer = float(model.predict_proba(np.array([features(asked["person"])]))[0, 1])
                    status, body = 200, {"probability": answer}
                    record |= {"outputs": body}
                served.records.append({**record, "latency_ms": 1000 * (time.perf_counter() - began)})
                data = json.dumps(body).encode()
                self.send_response(status)
                self.send_header("content-length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, format: str, *arguments: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self.http = httpx.Client(base_url=f"http://127.0.0.1:{self._server.server_port}")

    def ask(self, people: list[tuple[datetime, Person]], name: str) -> list[dict[str, Any]]:
        """Real requests; the endpoint's own records of them."""
        self.records = []
        for n, (at, who) in enumerate(people):
            self.http.post("/score", json={"id": f"{name}-{n}", "at": iso(at), "person": who})
        return self.records

    def close(self) -> None:
        self.http.close()
        self._server.shutdown()
        self._server.server_close()


@contextmanager
def serving() -> Iterator[Endpoint]:
    made = Endpoint()
    try:
        yield made
    finally:
        made.close()


def days(chance: random.Random, first: int, last: int, each: int, older: float = 0.0) -> list[tuple[datetime, Person]]:
    return [
        (START + timedelta(days=day, minutes=20 * n), person(chance, older))
        for day in range(first, last)
        for n in range(each)
    ]


DECLARATION = {
    "name": "visits",
    "task": "binary",
    "score": "probability",
    "inputs": {"age": "float", "country": "category", "member": "boolean"},
    "label": "came",
    "served_by": "http://visits.example.com/score",
    "silent_after": 2,
    "monitor": {"window_seconds": 5 * 86400, "psi": 0.2, "features": 1, "min_rows": 200},
}


def reference(endpoint: Endpoint) -> bytes:
    """Twenty days before: what was asked and answered, as JSON lines."""
    if not endpoint.before:
        rows = endpoint.ask(days(random.Random(1), -25, -5, 40), "before")
        lines = (json.dumps({**r["inputs"], **r["outputs"], "at": r["at"]}) for r in rows)
        endpoint.before = "\n".join(lines).encode()
    return endpoint.before


def declare(home: House, endpoint: Endpoint, name: str = "visits", table: bytes = b"", **changed: Any) -> Any:
    parcel = hand_over(home, "engineer", table or reference(endpoint))
    body = {"model": {**DECLARATION, "name": name, **changed}, "table": parcel, "format": "jsonl"}
    answer = ask(home, "engineer", "POST", "/api/v1/external", json=body)
    if answer.status_code != 202:
        return answer.json()
    state = home.finished(answer.json()["flow"])
    return state.result if state.state == "done" else state.error


def push(home: House, name: str, records: list[dict[str, Any]], who: str = "engineer") -> Any:
    return ask(home, who, "POST", f"/api/v1/external/{name}/predictions", json={"predictions": records}).json()


def windows(home: House, name: str) -> Any:
    return home.api("engineer").get(f"/api/v1/models/{name}/drift").json()


def incidents(home: House, name: str) -> list[tuple[str, str]]:
    return [(i.kind, i.state) for i in home.plane.incidents.all() if i.model == name]
