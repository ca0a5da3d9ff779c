"""What the tests of step processes share: a runner in a folder, and how its processes are watched."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from falaj.workflow.child import ChildRunner
from falaj.workflow.steps import StepResult, StepTask

SOURCE = 'import falaj as fj\nit = fj.Source.csv("it", "*.csv", event_time="at", known_at="at")\n'


class Steps:
    """Runs steps in a folder: `describe` imports a project, so the project's code is what the child does."""

    def __init__(self, folder: Path, *, memory_mb: int = 4096, seconds: int = 60, idle_seconds: float = 30.0) -> None:
        self.folder = folder
        self.events: list[dict[str, Any]] = []
        self.runner = ChildRunner(folder / "tmp", memory_mb=memory_mb, seconds=seconds, idle_seconds=idle_seconds)

    def project(self, code: str, name: str = "project") -> str:
        """A project's folder with this code; what is so already is left alone, for somebody may be reading it."""
        root = self.folder / name
        root.mkdir(exist_ok=True)
        for path, text in ((root / "falaj.toml", '[project]\nname = "toy"\n'), (root / "toy.py", code)):
            if not path.exists() or path.read_text() != text:
                path.write_text(text)
        return str(root)

    def run(self, task: StepTask) -> StepResult:
        return asyncio.run(self.runner.run(task, self.events.append))

    def code(self, code: str) -> StepResult:
        return self.run(StepTask("describe", {}, str(self.runner.workspace("flow", "step")), self.project(code)))

    @property
    def log(self) -> str:
        return (self.folder / "tmp" / "flow" / "step" / "describe.log").read_text("utf-8", "replace")


def wait_for(condition: Callable[[], object]) -> None:
    """Wait until something holds; fail when it does not in time."""
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def alive(pid: int) -> bool:
    """Whether a process runs: one that ended and was not waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def says_its_pid(workspace: Path) -> bool:
    """Whether the code of a step has told its process id."""
    log = workspace / "describe.log"
    return log.exists() and "\n" in log.read_text().partition("pid ")[2]
