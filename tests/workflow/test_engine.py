from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from falaj.kernel.clock import SystemClock
from falaj.kernel.errors import Conflict, FalajError, Integrity, NotFound
from falaj.storage.keychain import keys_of
from falaj.storage.sealed import open_text
from falaj.storage.sql.sqlite import SqliteDatabase
from falaj.workflow.engine import DbosWorkflows
from falaj.workflow.events import EventLog
from falaj.workflow.flow import FlowRun, FlowState, Payload, operation


class Engine:
    """One engine with flows to play with; `calls` counts what steps did, by flow."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.metrics = SqliteDatabase(home / "metrics.db", durable=False)
        self.events = EventLog(self.metrics, SystemClock())
        self.flows = DbosWorkflows(home / "flows.db", self.events)
        self.calls: dict[str, list[str]] = {}
        self.gate = threading.Event()
        for name in ("adds", "refuses", "carries-on", "breaks", "waits"):
            self.flows.register(name, getattr(self, name.replace("-", "_")))
        self.flows.launch()

    def did(self, run: FlowRun, what: str) -> int:
        self.calls.setdefault(run.id, []).append(what)
        return len(what)

    async def adds(self, run: FlowRun, payload: Payload) -> Payload:
        async def later() -> int:
            await asyncio.sleep(0)
            return self.did(run, "async")

        blocking = await run.step("blocking", lambda: self.did(run, "blocking"))
        run.emit({"type": "progress", "text": "half"})
        return {"sum": payload["start"] + blocking + await run.step("later", later)}

    async def refuses(self, run: FlowRun, _payload: Payload) -> Payload:
        def refuse() -> None:
            self.did(run, "refuse")
            raise Conflict("not in this state", hint="do that first", code="not_now", details={"n": 1})

        await run.step("refuse", refuse)
        return {"never": True}

    async def carries_on(self, run: FlowRun, _payload: Payload) -> Payload:
        def refuse() -> None:
            raise Integrity("bytes differ", hint="restore", code="differs")

        try:
            await run.step("refuse", refuse)
        except FalajError as e:
            return {"seen": [type(e).__name__, e.code, e.hint]}
        return {}

    async def breaks(self, run: FlowRun, _payload: Payload) -> Payload:
        try:
            return {"x": await run.step("divide", lambda: 1 // 0)}
        except FalajError:
            await run.step("clear-up", lambda: self.did(run, "cleared up"))
            raise

    async def waits(self, run: FlowRun, _payload: Payload) -> Payload:
        run.emit({"type": "progress", "text": "waiting"})
        await run.step("wait", lambda: self.gate.wait(20))
        return {}

    def end(self, flow: str) -> FlowState:
        """The state once it has ended."""
        for _ in range(100):
            state = self.flows.state(flow, 10**6, 0.2)
            if state.state != "running":
                return self.flows.state(flow)
        raise AssertionError(f"{flow} did not end")

    def close(self) -> None:
        self.flows.close()
        self.metrics.close()


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    home = tmp_path_factory.mktemp("engine") / "what? #1 100% a@b"
    home.mkdir()
    made = Engine(home)
    yield made
    made.close()


def test_its_file_lies_in_the_home_whatever_the_home_is_called(engine: Engine) -> None:
    assert [p.name for p in engine.home.parent.iterdir()] == [engine.home.name]
    assert (engine.home / "flows.db").stat().st_size


def test_a_flow_does_its_steps_and_says_what_came_out(engine: Engine) -> None:
    engine.flows.start("adds", "add_1", {"start": 100})
    state = engine.end("add_1")
    assert (state.id, state.state, state.result, state.error) == ("add_1", "done", {"sum": 113}, None)
    assert engine.calls["add_1"] == ["blocking", "async"]
    assert [(e["number"], e["type"]) for e in state.events] == [(1, "progress"), (2, "end")]


def test_starting_it_again_does_nothing(engine: Engine) -> None:
    for start in (1, 2):
        engine.flows.start("adds", "add_2", {"start": start})
        assert engine.end("add_2").result == {"sum": 14}
    assert engine.calls["add_2"] == ["blocking", "async"]


def test_a_refusal_is_the_flows_answer_every_time_one_asks(engine: Engine) -> None:
    engine.flows.start("refuses", "ref_1", {})
    for _ in range(2):
        state = engine.end("ref_1")
        assert (state.state, state.result) == ("failed", None)
        assert state.error == {
            "error": "not in this state", "kind": "conflict", "code": "not_now", "hint": "do that first", "details": {"n": 1},
        }  # fmt: skip
    assert engine.calls["ref_1"] == ["refuse"]


def test_a_flow_sees_the_refusal_of_its_step_as_it_was(engine: Engine) -> None:
    engine.flows.start("carries-on", "car_1", {})
    assert engine.end("car_1").result == {"seen": ["Integrity", "differs", "restore"]}


def test_an_accident_is_explained(engine: Engine) -> None:
    engine.flows.start("breaks", "brk_1", {})
    state = engine.end("brk_1")
    assert state.state == "failed"
    assert state.error is not None
    assert state.error["code"] == "flow_failed" and state.error["hint"]
    assert "ZeroDivisionError" in state.error["error"]
    assert engine.calls["brk_1"] == ["cleared up"]


def test_who_waits_hears_at_once(engine: Engine) -> None:
    engine.gate.clear()
    engine.flows.start("waits", "wait_1", {})
    first = engine.flows.state("wait_1", 0, 20)
    assert (first.state, [e["text"] for e in first.events]) == ("running", ["waiting"])
    heard: list[FlowState] = []
    listener = threading.Thread(target=lambda: heard.append(engine.flows.state("wait_1", 1, 20)))
    listener.start()
    assert engine.flows.state("wait_1", 1, 0.0).events == ()  # nothing new, and no waiting asked for
    engine.gate.set()
    listener.join(20)
    assert [(s.state, [e["type"] for e in s.events]) for s in heard] == [("done", ["end"])]


def test_a_flow_that_nobody_started_is_not_found(engine: Engine) -> None:
    with pytest.raises(NotFound, match="nothing_1"):
        engine.flows.state("nothing_1")


@pytest.mark.timeout(20)
def test_nobody_waits_for_a_flow_that_nobody_started(engine: Engine) -> None:
    for after in (0, 5):
        with pytest.raises(NotFound, match="nothing_2"):
            engine.flows.state("nothing_2", after, 3600)
    engine.flows.start("adds", "nothing_2", {"start": 1})
    assert engine.end("nothing_2").result == {"sum": 14}


def test_only_json_lies_in_the_engines_database(engine: Engine) -> None:
    """Sealed, and never pickle: reading a home's database must not be able to run code."""
    engine.flows.start("adds", "add_3", {"start": 1})
    engine.end("add_3")
    with sqlite3.connect(engine.home / "flows.db") as stranger:
        found = stranger.execute("SELECT inputs, output, serialization FROM workflow_status").fetchall()
        steps = stranger.execute("SELECT output FROM operation_outputs").fetchall()
    stranger.close()
    assert {row[2] for row in found} == {"falaj_sealed_json"}
    assert len(found) > 2 and len(steps) > 3
    keys = keys_of(engine.home).flows
    for sealed in [t for row in (*found, *steps) for t in row if t not in (None, "falaj_sealed_json")]:
        text = open_text(sealed, keys, "flows")
        assert sealed.startswith("fjs1:") and text not in sealed
        assert text[0] in '{["' or text in ("null", "true", "false") or text.isdigit()


def test_a_steps_operation_has_the_flows_name() -> None:
    class Run:
        id = "bld_1"

        async def step(self, name: str, work: Any) -> Any: ...

        def emit(self, event: dict[str, Any]) -> None: ...

    assert operation(Run(), "train") == "bld_1:train"
