"""The port to step processes: where heavy or foreign code runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import msgspec


class StepTask(msgspec.Struct, frozen=True):
    """What a step process is asked to do. `input` is the kind's own task as JSON.

    `project` is the folder with the applied project's code, empty when the step runs none of it.
    `secrets` reach the step over standard input only and are written nowhere. A step that is not `fresh` may run in
    a process that did an earlier step of the same project, which saves most of the time of a short one.
    """

    kind: str
    input: dict[str, Any]
    workspace: str
    project: str = ""
    secrets: dict[str, str] = {}
    fresh: bool = True
    seconds: int = 0  # how long it may take, if that is less than what every step may


class StepResult(msgspec.Struct, frozen=True):
    """What came back: the kind's own outcome as JSON, with what it took."""

    value: dict[str, Any]
    seconds: float
    peak_mb: float


class StepRunner(Protocol):
    """Runs one step somewhere and reports its events."""

    async def run(self, task: StepTask, on_event: Callable[[dict[str, Any]], None]) -> StepResult:
        """Raises the `FalajError` that the step raised, or `Unavailable` when it died."""
        ...

    def workspace(self, flow_id: str, step: str) -> Path:
        """An empty private folder for one step; what an earlier try left there is removed."""
        ...

    def end(self, flow_id: str) -> None:
        """End the step of a flow that is under way, and let no further one of it begin."""
        ...

    def clean(self, flow_id: str) -> None:
        """Remove the workspaces of a flow."""
        ...
