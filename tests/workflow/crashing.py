"""A process with one flow of three steps that is killed where it is told, once: HOME FLOW WHERE.

WHERE: `before-three`, `inside-two` (its change is committed, the engine does not know it yet), `stop` (the engine is
closed while step two runs) or `never`. Every step does one change through the door. The last line says how it ended.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from falaj.governance.door import Done, Intent
from falaj.kernel.access import Action, Resource
from falaj.storage import keychain
from falaj.storage.sql.sqlite import SqliteDatabase
from falaj.workflow.engine import DbosWorkflows
from falaj.workflow.events import EventLog
from falaj.workflow.flow import FlowRun, Payload, operation
from tests.governance.support import ADMIN, Desk

REVOKE = Action("identity.revoke", "administration", "Account", "revoke a token")


class Once:
    """True the first time that any process of this home asks."""

    def __init__(self, home: Path) -> None:
        self._home = home

    def __call__(self, where: str) -> bool:
        try:
            (self._home / where).touch(exist_ok=False)
        except FileExistsError:
            return False
        return True


def steps(home: Path, desk: Desk, where: str, under_way: threading.Event) -> Callable[[FlowRun, Payload], Any]:
    once = Once(home)

    def work(run: FlowRun, name: str) -> Callable[[], Any]:
        def do() -> Any:
            with (home / "tries").open("a") as tries:
                tries.write(name + "\n")
            if name == "two" and where == "stop" and once("stopped"):
                under_way.set()
                threading.Event().wait(30)
            if name == "three" and where == "before-three" and once("killed"):
                os.kill(os.getpid(), signal.SIGKILL)
            intent = Intent(ADMIN, REVOKE, Resource("Account", name), operation(run, name))
            answer = desk.door.change(intent, lambda _tx: Done({"did": name}))
            if name == "two" and where == "inside-two" and once("killed"):
                os.kill(os.getpid(), signal.SIGKILL)
            return answer

        return do

    async def flow(run: FlowRun, _payload: Payload) -> Payload:
        return {name: await run.step(name, work(run, name)) for name in ("one", "two", "three")}

    return flow


def say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def main(home: Path, flow_id: str, where: str) -> None:
    keychain.hold(home, keychain.Keys(flows=(b"k" * 32,)))  # the same in each of the processes
    desk = Desk(home)
    metrics = SqliteDatabase(home / "metrics.db", durable=False)
    engine = DbosWorkflows(home / "flows.db", EventLog(metrics, desk.clock))
    under_way = threading.Event()
    again = (home / "stopped").exists()
    engine.register("three-steps", steps(home, desk, where, under_way))
    engine.launch()
    engine.start("three-steps", flow_id, {})
    if where == "stop" and not again and under_way.wait(20):
        engine.close()
        say("stopped")
        os._exit(0)  # the step's thread still waits; nothing else is under way
    state = engine.state(flow_id, 0, 20)
    say(msgspec.json.encode({"state": state.state, "result": state.result, "error": state.error}).decode())
    engine.close()
    metrics.close()
    desk.database.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], sys.argv[3])
