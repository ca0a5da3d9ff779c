"""Flows on DBOS (https://docs.dbos.dev). The only file that imports it.

What DBOS stores is JSON: names, ids and digests. The application version is the number of the
flows' shape, not a hash of the code, so a new release carries on the flows of the one before; raise
it when the steps of a flow change so that a half-run one could not be carried on.
"""

from __future__ import annotations

import asyncio
import inspect
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dbos import DBOS, DBOSConfig, DBOSPortableJSONSerializer, SetWorkflowID

from falaj.kernel.errors import FalajError, NotFound, Unavailable, from_dict
from falaj.kernel.log import logger
from falaj.workflow.events import EventLog
from falaj.workflow.flow import Flow, FlowState, Payload, Work

FLOW_SHAPE = "2"
_log = logger(__name__)


class DbosWorkflows:
    """The embedded engine: one per process, on `flows.db`."""

    def __init__(self, database: Path, events: EventLog) -> None:
        self._events = events
        self._flows: dict[str, Callable[..., Any]] = {}
        self._closing = threading.Event()
        config: DBOSConfig = {
            "name": "falaj",
            "system_database_url": f"sqlite:///{database}",
            "application_version": FLOW_SHAPE,
            "executor_id": "embedded",  # one process owns the home, so one name is enough
            "serializer": DBOSPortableJSONSerializer(),
            "log_level": "WARNING",
        }
        DBOS(config=config)

    def register(self, name: str, flow: Flow) -> None:
        """Make a flow known; before `launch`."""

        async def body(payload: Payload) -> Payload:
            run = _Run(str(DBOS.workflow_id), self._events, self._closing)
            try:
                result = {"value": await flow(run, payload)}
            except FalajError as e:
                if self._closing.is_set():
                    raise _Stopping from e
                result = {"error": e.as_dict()}
            except asyncio.CancelledError as e:
                raise _Stopping from e
            self._events.append(run.id, {"type": "end", **result})
            return result

        self._flows[name] = DBOS.workflow(name=name)(body)

    def launch(self) -> None:
        """Open the database and carry on what was under way."""
        DBOS.launch()

    def close(self) -> None:
        """Stop at once. What is under way is carried on by the next launch, as after a crash."""
        self._closing.set()
        DBOS.destroy(workflow_completion_timeout_sec=0)

    def start(self, name: str, flow_id: str, payload: Payload) -> None:
        with SetWorkflowID(flow_id):
            DBOS.start_workflow(self._flows[name], payload)

    def state(self, flow_id: str, after: int = 0, wait: float = 0.0) -> FlowState:
        if DBOS.get_workflow_status(flow_id) is None:  # before waiting for what will never come
            raise _no_flow(flow_id)
        events = self._events.wait(flow_id, after, wait)
        status = DBOS.get_workflow_status(flow_id)
        if status is None:
            raise _no_flow(flow_id)
        deadline = time.monotonic() + 5
        # The `end` event comes a moment before the engine has written the result down.
        while (
            status.status == "PENDING" and any(e.get("type") == "end" for e in events) and time.monotonic() < deadline
        ):
            time.sleep(0.005)
            status = DBOS.get_workflow_status(flow_id) or status
        if status.status in ("PENDING", "ENQUEUED", "DELAYED"):
            return FlowState(flow_id, status.name, "running", events=events)
        output = status.output if status.status == "SUCCESS" and isinstance(status.output, dict) else {}
        if "value" in output:
            return FlowState(flow_id, status.name, "done", result=output["value"], events=events)
        error = output.get("error") or _unexplained(status.status, status.error).as_dict()
        return FlowState(flow_id, status.name, "failed", error=error, events=events)


class _Stopping(BaseException):
    """Ends a flow's execution without a result: the engine keeps an `Exception` as the flow's own failure."""


class _Run:
    """A `FlowRun` over DBOS."""

    def __init__(self, flow_id: str, events: EventLog, closing: threading.Event) -> None:
        self.id = flow_id
        self._events = events
        self._closing = closing

    async def step(self, name: str, work: Work) -> Any:
        async def body() -> dict[str, Any]:
            try:
                value = await work() if inspect.iscoroutinefunction(work) else await asyncio.to_thread(work)
                value = await value if inspect.isawaitable(value) else value
            except FalajError as e:
                if self._closing.is_set():
                    raise asyncio.CancelledError from e  # it may come from the stop: never kept as the step's result
                return {"error": e.as_dict()}
            return {"value": value}

        outcome = await DBOS.run_step_async({"name": name}, body)
        if "error" in outcome:
            raise from_dict(outcome["error"])
        return outcome["value"]

    def emit(self, event: dict[str, Any]) -> None:
        self._events.append(self.id, event)


def _no_flow(flow_id: str) -> NotFound:
    return NotFound(f"there is no flow {flow_id}", hint="the id was printed when it was started")


def _unexplained(status: str, error: object) -> FalajError:
    _log.error("flow_failed", status=status, error=repr(error))
    return Unavailable(
        f"the flow ended as {status}: {error!r}"[:500],
        hint="this is a fault of the platform: the log in the home's run folder has the trace",
        code="flow_failed",
    )
