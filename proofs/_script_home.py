"""Homes full of payloads for `script.py`: one whose every text is a payload, and one that took them through its API."""

from __future__ import annotations

import enum
import itertools
from collections.abc import Callable
from typing import Any

import msgspec
from sqlalchemy import insert

from falaj.kernel.digests import FileEntry, sha256
from falaj.kernel.errors import FalajError
from falaj.lifecycle.evidence.documents.facts import Decision, Facts, Library, Part, Passage
from falaj.lifecycle.evidence.model import Measurement, judge
from falaj.lifecycle.monitoring.reviews.store import answer_reviews
from falaj.lifecycle.training.store import runs
from tests.entrypoints.console import conftest
from tests.lifecycle.house import GATES, MODEL, House

KEPT = {
    "state",
    "verdict",
    "task",
    "kind",
    "type",
    "source",
    "outcome",
    "phase",
    "status",
    "role",
    "null",
    "unknown",
    "value",
    "order",
}
"""Members that templates decide by: they keep their values, but for a second round."""

Text = Callable[[str], str]


class Poisoned:
    """A `ConsoleReader` that tells of the home of the console's tests, every text replaced."""

    def __init__(self) -> None:
        self._home = conftest.Home()
        self._text: Text = lambda where: where
        self._states = False

    def holds(self, text: Text, *, states: bool) -> None:
        """From now on each text is what `text` gives for its number; with `states` those too that are one of a few words."""
        self._text, self._states = text, states

    def __getattr__(self, name: str) -> Any:
        real = getattr(self._home, name)

        def asked(*arguments: Any) -> Any:
            return poisoned(real(*arguments), self._text, states=self._states)

        return asked


def poisoned(value: Any, text: Text, *, states: bool) -> Any:
    """The same, its texts replaced, the names of its members aside."""
    numbers = itertools.count()

    def through(value: Any, name: str = "") -> Any:
        if isinstance(value, enum.Enum) or (name in KEPT and not states):
            return value
        if isinstance(value, str):
            return text(str(next(numbers)))
        if isinstance(value, msgspec.Struct):
            return type(value)(**{f: through(getattr(value, f), f) for f in value.__struct_fields__})
        if isinstance(value, dict):
            return {through(k): through(v) for k, v in value.items()}
        if isinstance(value, tuple | list):
            return type(value)(through(v, name) for v in value)
        return value

    return through(value)


def facts() -> Facts:
    """Facts of a version with one of everything."""
    digest = sha256(b"x")
    finding = judge(GATES[0], Measurement(GATES[0].name, 0.7, {"note": "x"}, "nothing"))
    return Facts(
        alias="m@1", model="m", digest=digest, author="a", created_at="now", state="serving", files=(FileEntry("f", 1, digest),),
        findings=(finding,), contract=conftest.contract(), params={"rate": "high", "deep": {"more": ["x"]}}, as_of="then", run="run",
        origin={"uri": "models:/m/1"}, unknown=("data",), parts=(Part("dataset", "d", digest, 1, 2),),
        libraries=(Library("l", "1", "MIT"),), decisions=(Decision("approved", "who", ("role",), "at", "because", "production"),),
        passages=(Passage("production", "admission", "at", "until", "words"),),
    )  # fmt: skip


def fill(home: House, payloads: list[tuple[str, str]]) -> tuple[int, int]:
    """Send each payload to every member that takes prose or a name; (taken, refused)."""
    version = home.registered()
    assert home.release(version).state == "done"
    api, taken, refused = home.api(), 0, 0
    for number, (_, text) in enumerate(payloads):
        waiting = home.registered() if number < 6 else version  # each of these is then refused for that reason
        facts = {"owner": text, "intended_use": text, "impact": text, "reason": text}
        asked: list[tuple[str, dict[str, Any]]] = [
            (f"/models/{MODEL}/versions/{waiting.number}/rejections", {"reason": text}),
            (f"/inventory/{MODEL}/facts", facts),
            *((f"/inventory/{MODEL}/facts", {"reason": "because", name: said}) for name, said in facts.items() if name != "reason"),
            (f"/inventory/{MODEL}/validations/1", {"outcome": "passed", "findings": [text], "until": "2030-01-01"}),
            ("/tokens", {"name": text, "kind": "person", "roles": ["viewer"], "days": 1}),
            ("/tokens", {"name": f"n{number}", "kind": text, "roles": [text], "days": 1, "project": text}),
            ("/quarantine", {"reason": text, "kind": "dataset", "name": f"d{number}"}),
            ("/quarantine", {"reason": "because", "kind": "dataset", "name": text}),
            ("/glass", {"reason": text, "actions": ["version.approve"], "hours": 1}),
            (f"/models/{MODEL}/versions/1/waivers", {"missing": [text], "reason": text, "until": "2030-01-01"}),
            (f"/models/{MODEL}/labels", {"labels": [{"prediction": text, "prediction_id": text, "label": text, "value": text}]}),
            ("/policy", {"text": f"// {text}\n", "reason": text}),
            ("/keys/rotations", {"name": text, "reason": text}),
            ("/keys/revocations", {"key": text, "since": "2030-01-01", "reason": text}),
            ("/external", {"model": {"name": text, "label": text}, "table": text, "format": "csv"}),
            (f"/models/{MODEL}/imports", {"kind": "mlflow", "uri": text, "files": [{"path": text, "size": 1, "sha256": sha256(b"x")}], "claims": {text: text}, "contract": {}}),
        ]  # fmt: skip
        for path, body in asked:
            answer = api.post(f"/api/v1{path}", body)
            assert answer.status_code < 500, (path, answer.text)
            taken, refused = taken + (answer.status_code < 300), refused + (answer.status_code >= 300)
        taken += _behind(home, number, text)
    return taken, refused


def _behind(home: House, number: int, text: str) -> int:
    """What no route takes: incidents, what a training run said of itself, an answer before people."""
    said = 0
    try:
        found = home.plane.incidents.open(MODEL, "drift", "", text)
        said += 1
        if number % 2:
            home.plane.incidents.resolve(home.owner, found.id)
    except FalajError:
        pass  # it is told of as refused nowhere: the next one tells
    if number == 0:
        columns = {c.name: "" for c in runs.columns}
        told = {
            "params": msgspec.json.encode({text: text}).decode(),
            "metrics": "{}",
            "datasets": msgspec.json.encode({text: 1}).decode(),
        }
        told |= {"views": msgspec.json.encode({text: text}).decode(), "artifacts": "{}"}
        home.sql(
            insert(runs).values(
                {**columns, "id": "run_stored", "model": MODEL, "state": "finished", "author": text, **told}
            )
        )
        said_by_nobody = dict.fromkeys(("override", "decided_by", "code", "salt", "due_at"), "")
        review: dict[str, Any] = {c.name: text for c in answer_reviews.columns} | said_by_nobody
        review |= {"id": "rev_stored", "row": 0, "digest": home.plane.registry.serving()[MODEL], "state": "pending"}
        review |= {"answer": msgspec.json.encode(text).decode()}
        home.sql(insert(answer_reviews).values(review))
        said += 2
    return said
