"""Flows on DBOS (https://docs.dbos.dev). The only file that imports it.

What DBOS stores is sealed JSON: names, ids and digests, and what a step has to tell. The application version is the number of the
flows' shape, not a hash of the code, so a new release carries on the flows of the one before; raise
it when the steps of a flow change so that a half-run one could not be carried on.
"""

from __future__ import annotations

import asyncio
import inspect
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ClassVar

from dbos import DBOS, DBOSConfig, DBOSPortableJSONSerializer, PortableWorkflowError, SetWorkflowID
from sqlalchemy import URL

from falaj.kernel.clock import iso
from falaj.kernel.disk import refusal
from falaj.kernel.errors import FalajError, NotFound, Unavailable, from_dict
from falaj.kernel.log import logger
from falaj.storage.keychain import keys_of, not_held
from falaj.storage.sealed import open_text, seal_text
from falaj.workflow.events import EventLog
from falaj.workflow.flow import Cancelled, Flow, FlowState, Payload, Work
from falaj.workflow.moving import IDENTITY

FLOW_SHAPE = "2"
_CANCELLED = "flow_cancelled"
_ERROR = "falaj error"
_KEPT = 256  # ends of flows that are kept in memory
_log = logger(__name__)


class _Sealing(DBOSPortableJSONSerializer):
    """JSON, sealed: a flow's result may tell of rows. What 0.1 wrote is plain JSON by name, and DBOS reads it so."""

    def __init__(self, database: Path) -> None:
        self._database = database

    def name(self) -> str:
        """See `Serializer`."""
        return "falaj_sealed_json"

    def serialize(self, value: Any) -> str:
        """See `Serializer`. Raises `Integrity` without a key."""
        keys = keys_of(self._database).flows
        if not keys:
            raise not_held("the progress of flows")
        if isinstance(value, BaseException):
            value = {_ERROR: {"name": type(value).__name__, "message": str(value)}}
        return seal_text(super().serialize(value), keys[0], IDENTITY)

    def deserialize(self, text: str | None) -> Any:
        """See `Serializer`. Raises `Integrity`."""
        if text is None:
            return None
        value = super().deserialize(open_text(text, keys_of(self._database).flows, IDENTITY))
        if isinstance(value, dict) and value.keys() == {_ERROR}:
            return PortableWorkflowError(value[_ERROR]["message"], value[_ERROR]["name"])
        return value


class DbosWorkflows:
    """The embedded engine: one per process, on `flows.db`."""

    _launched: ClassVar[DbosWorkflows | None] = None

    def __init__(self, database: Path, events: EventLog, cancelled: Cancelled = lambda _flow: None) -> None:
        self._events = events
        self._cancelled = cancelled
        self._home = database.parent
        self._flows: dict[str, Callable[..., Any]] = {}
        self._ended: dict[str, Payload] = {}  # what came of flows in this process, if it could not be written down
        self._closing = threading.Event()
        config: DBOSConfig = {
            "name": "falaj",
            "system_database_url": _address(database),
            "application_version": FLOW_SHAPE,
            "executor_id": "embedded",  # one process owns the home, so one name is enough
            "serializer": _Sealing(database),
            "log_level": "WARNING",
            # How long closing waits for its listener, which sleeps in between; it looks at nothing while no flow listens.
            "notification_listener_polling_interval_sec": 0.05,
        }
        DBOS(config=config)

    def register(self, name: str, flow: Flow) -> None:
        """Make a flow known; before `launch`."""

        async def body(payload: Payload) -> Payload:
            run = _Run(str(DBOS.workflow_id), self._events, self._closing, self._home, self._cancelled)
            try:
                result = {"value": await flow(run, payload)}
            except FalajError as e:
                if self._closing.is_set():
                    raise _Stopping from e
                result = {"error": e.as_dict()}
            except asyncio.CancelledError as e:
                raise _Stopping from e
            except Exception as e:  # on a full disk the engine cannot write its progress down; else it is a fault
                told = refusal(e, self._home)
                if told is None:
                    raise
                told.hint = f"{told.hint}; flow {run.id} is carried on when the control plane starts next"
                self._end(run.id, {"error": told.as_dict()})
                raise _Stopping from e  # not a failure of the flow
            self._end(run.id, result)
            return result

        self._flows[name] = DBOS.workflow(name=name)(body)

    def _end(self, flow_id: str, result: Payload) -> None:
        """Keep what came of a flow and tell whoever waits for it."""
        while len(self._ended) >= _KEPT:
            self._ended.pop(next(iter(self._ended)))
        self._ended[flow_id] = result
        self._events.append(flow_id, {"type": "end", **result})
        self._events.stir()

    def launch(self) -> None:
        """Open the database and carry on what was under way.

        Raises `RuntimeError` when another engine runs in this process: this one would take its place, under its flows.
        """
        if DbosWorkflows._launched is not None:
            raise RuntimeError(f"the flows of {DbosWorkflows._launched._home} run in this process")
        DBOS.launch()
        DbosWorkflows._launched = self

    def close(self) -> None:
        """Stop at once. What is under way is carried on by the next launch, as after a crash."""
        self._closing.set()
        if DbosWorkflows._launched is self:
            DbosWorkflows._launched = None
        DBOS.destroy(workflow_completion_timeout_sec=0)

    def start(self, name: str, flow_id: str, payload: Payload) -> None:
        """Start a flow under an id; again does nothing."""
        with SetWorkflowID(flow_id):
            DBOS.start_workflow(self._flows[name], payload)

    def state(self, flow_id: str, after: int = 0, wait: float = 0.0) -> FlowState:
        """How a flow stands, with its events after number `after`, waiting up to `wait` seconds for one. Raises
        `NotFound`.
        """
        if DBOS.get_workflow_status(flow_id) is None:  # before waiting for what will never come
            raise _no_flow(flow_id)
        events = self._events.wait(flow_id, after, 0.0 if flow_id in self._ended else wait)
        status = DBOS.get_workflow_status(flow_id)
        if status is None:
            raise _no_flow(flow_id)
        deadline = time.monotonic() + 5
        # The `end` event comes a moment before the engine has written the result down.
        while status.status == "PENDING" and flow_id in self._ended and time.monotonic() < deadline:
            time.sleep(0.005)
            status = DBOS.get_workflow_status(flow_id) or status
        output = status.output if status.status == "SUCCESS" and isinstance(status.output, dict) else {}
        if status.status in ("PENDING", "ENQUEUED", "DELAYED"):
            if flow_id not in self._ended:
                return FlowState(flow_id, status.name, "running", events=events)
            output = self._ended[flow_id]
        if "value" in output:
            return FlowState(flow_id, status.name, "done", result=output["value"], events=events)
        error = output.get("error") or _unexplained(status.status, status.error).as_dict()
        return FlowState(flow_id, status.name, "failed", error=error, events=events)

    def payload(self, flow_id: str) -> Payload:
        """What a flow was started with. Raises `NotFound`."""
        status = DBOS.get_workflow_status(flow_id)
        given = status.input if status is not None else None
        if given is None:
            raise _no_flow(flow_id)
        payload: Payload = given["args"][0]
        return payload

    def running(self) -> tuple[FlowState, ...]:
        """The flows that have not ended, oldest first."""
        found = DBOS.list_workflows(status=["PENDING", "ENQUEUED", "DELAYED"], load_input=False, load_output=False)
        return tuple(
            FlowState(f.workflow_id, f.name, "running", started_at=_moment(f.created_at))
            for f in found
            if f.workflow_id not in self._ended
        )


class _Stopping(BaseException):
    """Ends a flow's execution without a result: the engine keeps an `Exception` as the flow's own failure."""


class _Run:
    """A `FlowRun` over DBOS."""

    def __init__(
        self, flow_id: str, events: EventLog, closing: threading.Event, home: Path, cancelled: Cancelled
    ) -> None:
        self.id = flow_id
        self._events = events
        self._closing = closing
        self._home = home
        self._cancelled = cancelled
        self._stopping = False  # the flow was told that it is cancelled, and ends

    async def step(self, name: str, work: Work) -> Any:
        async def body() -> dict[str, Any]:
            if order := self._order():
                return {"error": order.as_dict()}
            try:
                value = await work() if inspect.iscoroutinefunction(work) else await asyncio.to_thread(work)
                value = await value if inspect.isawaitable(value) else value
            except FalajError as e:
                if self._closing.is_set():
                    raise asyncio.CancelledError from e  # it may come from the stop: never kept as the step's result
                return {"error": (self._order() or e).as_dict()}
            except Exception as e:  # the flow clears up after a fault of ours as after a refusal
                if self._closing.is_set():
                    raise asyncio.CancelledError from e
                return {"error": (refusal(e, self._home) or _fault(name, e)).as_dict()}
            return {"value": value}

        try:
            outcome = await DBOS.run_step_async({"name": name}, body)
        except PortableWorkflowError as e:  # what the engine kept as the step's own failure: the flow may clear up
            told = refusal(e, self._home)
            if told is None:
                raise
            raise told from e
        if "error" in outcome:
            self._stopping = self._stopping or outcome["error"].get("code") == _CANCELLED
            raise from_dict(outcome["error"])
        return outcome["value"]

    def _order(self) -> FalajError | None:
        """The order to stop, until a step has raised it: the steps after that are the flow's own clearing up."""
        return None if self._stopping else self._cancelled(self.id)

    def emit(self, event: dict[str, Any]) -> None:
        self._events.append(self.id, event)


def _address(database: Path) -> str:
    """Of a file, whatever signs are in its folders' names: a '?' as it stands would end the path."""
    return URL.create("sqlite", database=str(database)).render_as_string()


def _moment(ms: int | None) -> str:
    return iso(datetime.fromtimestamp((ms or 0) / 1000, UTC))


def _no_flow(flow_id: str) -> NotFound:
    return NotFound(f"there is no flow {flow_id}", hint="the id was printed when it was started", code="no_such_flow")


def _fault(step: str, error: Exception) -> FalajError:
    _log.error("step_failed", step=step, error=repr(error), exc_info=error)
    return Unavailable(
        f"step {step} failed: {type(error).__name__}: {error}"[:500],
        hint="this is a fault of the platform: the log in the home's run folder has the trace",
        code="flow_failed",
    )


def _unexplained(status: str, error: object) -> FalajError:
    _log.error("flow_failed", status=status, error=repr(error))
    return Unavailable(
        f"the flow ended as {status}: {error!r}"[:500],
        hint="this is a fault of the platform: the log in the home's run folder has the trace",
        code="flow_failed",
    )
