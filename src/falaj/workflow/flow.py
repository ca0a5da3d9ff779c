"""What a flow is: a plain async function over a `FlowRun`. Nothing here knows an engine.

A flow's payload and every step's result are JSON: ids, digests, numbers, never content. A step
that finished is not run again after a crash; a step that was under way is, so each step's effects
go through the door under `operation(run, step)`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Protocol

import msgspec

from falaj.kernel.errors import FalajError

Payload = dict[str, Any]
Work = Callable[[], Any] | Callable[[], Awaitable[Any]]


class FlowRun(Protocol):
    """One execution of a flow."""

    id: str

    async def step(self, name: str, work: Work) -> Any:
        """Do `work` once. Blocking work runs in a thread. A `FalajError` is a result too: a replay raises it again."""
        ...

    def emit(self, event: dict[str, Any]) -> None:
        """Tell whoever watches; lost events harm nothing."""
        ...


Flow = Callable[[FlowRun, Payload], Awaitable[Payload]]


class FlowState(msgspec.Struct, frozen=True):
    """Where a flow stands. `error` is a `FalajError` as JSON; `started_at` is by the machine's clock."""

    id: str
    name: str
    state: str  # running | done | failed
    result: dict[str, Any] | None = None
    error: dict[str, Any] | None = None
    events: tuple[dict[str, Any], ...] = ()
    started_at: str = ""


class Workflows(Protocol):
    """The engine, as the stages see it."""

    def start(self, name: str, flow_id: str, payload: Payload) -> None:
        """Start a flow, or do nothing if one with this id exists."""
        ...

    def state(self, flow_id: str, after: int = 0, wait: float = 0.0) -> FlowState:
        """Where it stands, with the events after number `after`; waits up to `wait` seconds for news."""
        ...

    def payload(self, flow_id: str) -> Payload:
        """What it was started with. Raises `NotFound`."""
        ...

    def running(self) -> tuple[FlowState, ...]:
        """The flows that have not ended, oldest first."""
        ...


Cancelled = Callable[[str], FalajError | None]
"""What a flow's step is to raise, if somebody ordered this flow to stop."""


def operation(run: FlowRun, step: str) -> str:
    """The operation id of a flow's step at the door."""
    return f"{run.id}:{step}"
