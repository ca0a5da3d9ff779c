"""A step process that is used again: by whom, what is its own in each task, and when it ends."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import msgspec
import pytest

from falaj.kernel.errors import Denied, Invalid, Unavailable
from falaj.workflow import child
from falaj.workflow.steps import StepResult, StepTask
from tests.workflow.children import SOURCE, Steps, alive, says_its_pid, wait_for

ROOT = Path(__file__).parents[2]
TELL = """
import json, os, tempfile
places = [os.getcwd(), tempfile.gettempdir(), os.environ["TMPDIR"], os.environ["HOME"]]
print("pid", os.getpid(), json.dumps(places), flush=True)
"""
GOOD = TELL + SOURCE
SLEEPS = TELL + "import time\ntime.sleep(60)\n"


class Again(Steps):
    """Tasks of which each has a workspace of its own; they may share a process unless they are fresh."""

    def task(self, name: str, code: str = GOOD, project: str = "project", *, fresh: bool = False) -> StepTask:
        workspace = self.runner.workspace("flow", name)
        return StepTask("describe", {}, str(workspace), self.project(code, project), fresh=fresh)

    async def do(self, name: str, code: str = GOOD, project: str = "project", *, fresh: bool = False) -> int:
        """Run a task to its end; the process that did it."""
        task = self.task(name, code, project, fresh=fresh)
        await self.runner.run(task, self.events.append)
        return self.pid(name)

    def start(self, name: str, code: str) -> asyncio.Task[StepResult]:
        return asyncio.create_task(self.runner.run(self.task(name, code), self.events.append))

    def pid(self, name: str) -> int:
        return int(self.told(name).split("pid ")[1].split()[0])

    def told(self, name: str) -> str:
        """The log of a task."""
        return (self.folder / "tmp" / "flow" / name / "describe.log").read_text("utf-8", "replace")

    async def has_begun(self, name: str) -> int:
        """Wait until a task's code runs; the process that runs it."""
        await asyncio.to_thread(wait_for, lambda: says_its_pid(self.folder / "tmp" / "flow" / name))
        return self.pid(name)

    async def ends(self, pid: int) -> None:
        """Wait until a process is gone, and the runner knows."""
        await asyncio.to_thread(wait_for, lambda: not Path(f"/proc/{pid}").exists())
        waiting = [c.process for c in self.runner._idle if c.process.pid == pid]
        await asyncio.to_thread(wait_for, lambda: all(p.returncode is not None for p in waiting))

    def play(self, story: Coroutine[Any, Any, None]) -> None:
        """Tasks on one loop, as in the control plane; no process is left."""

        async def whole() -> None:
            try:
                await story
            finally:
                running = set(self.runner._running)
                self.runner.stop()
                for pid in running:
                    await self.ends(pid)

        asyncio.run(whole())


@pytest.fixture
def steps(tmp_path: Path) -> Again:
    return Again(tmp_path)


def test_the_next_step_of_a_project_has_the_same_process_and_everything_else_of_its_own(steps: Again) -> None:
    async def story() -> None:
        assert await steps.do("one") == await steps.do("two")

    steps.play(story())
    for name in ("one", "two"):
        line = steps.told(name)
        assert line.count("pid ") == 1
        places = msgspec.json.decode(line[line.index("[") :].splitlines()[0])
        assert places == [str(steps.folder / "tmp" / "flow" / name)] * 4


def test_what_comes_back_is_of_the_task_and_the_code_is_read_again(steps: Again) -> None:
    other = GOOD + 'more = fj.Source.csv("more", "*.csv", event_time="at", known_at="at")\n'

    async def story() -> None:
        found = []
        for name, code in (("one", GOOD), ("two", other)):
            result = await steps.runner.run(steps.task(name, code), steps.events.append)
            found.append([s["name"] for s in result.value["sources"]])
        assert found == [["it"], ["it", "more"]] and steps.pid("one") == steps.pid("two")

    steps.play(story())


def test_another_project_has_a_process_of_its_own(steps: Again) -> None:
    async def story() -> None:
        mine, other = await steps.do("one"), await steps.do("two", project="other")
        assert mine != other and alive(mine)
        assert [await steps.do("three"), await steps.do("four", project="other")] == [mine, other]

    steps.play(story())


def test_who_ends_the_loop_ends_what_waits_for_its_tasks(steps: Again) -> None:
    async def story() -> None:
        waits = await steps.do("one")
        await steps.runner.dismiss()
        assert not alive(waits)
        waits = await steps.do("two")
        await asyncio.to_thread(steps.runner.dismiss_all)
        assert not alive(waits)
        assert not alive(await steps.do("three")), "no process waits after all were dismissed"

    steps.play(story())


def test_nobody_waits_for_the_loop_that_runs_it(steps: Again) -> None:
    async def story() -> None:
        waits = await steps.do("one")
        steps.runner.dismiss_all()  # not those of this very loop, which would wait for itself
        assert alive(waits)

    steps.play(story())


def test_a_fresh_step_shares_with_nobody_before_or_after_it(steps: Again) -> None:
    async def story() -> None:
        kept = await steps.do("one")
        fresh = await steps.do("two", fresh=True)
        assert fresh != kept and not alive(fresh) and alive(kept)
        assert await steps.do("three") == kept
        os.kill(kept, signal.SIGKILL)
        await steps.ends(kept)
        last = await steps.do("four", fresh=True)
        assert last not in (kept, fresh, await steps.do("five"))

    steps.play(story())


def test_a_process_that_failed_is_not_used_again(steps: Again) -> None:
    async def story() -> None:
        first = await steps.do("one")
        with pytest.raises(Invalid, match="no source"):
            await steps.do("two", TELL)
        assert steps.pid("two") == first and not alive(first)
        assert await steps.do("three") != first

    steps.play(story())


def test_a_peak_of_memory_is_the_task_s_own(steps: Again) -> None:
    async def story() -> None:
        peaks = {}
        for name, code in (("before", ""), ("large", "x = b'x' * 300_000_000\ndel x\n"), ("after", "")):
            result = await steps.runner.run(steps.task(name, code + GOOD), steps.events.append)
            peaks[name] = result.peak_mb
        assert steps.pid("before") == steps.pid("large") == steps.pid("after")
        assert peaks["large"] > peaks["before"] + 250 and peaks["after"] < peaks["large"] - 250, peaks

    steps.play(story())


def test_two_at_once_have_a_process_each_and_both_are_used_again(steps: Again) -> None:
    async def story() -> None:
        pair = await asyncio.gather(steps.do("one"), steps.do("two"))
        assert pair[0] != pair[1]
        again = await asyncio.gather(steps.do("three"), steps.do("four"))
        assert sorted(again) == sorted(pair)

    steps.play(story())


@pytest.mark.parametrize(
    ("limit", "most", "kept"), [("_TASKS_AT_MOST", 2, 2), ("_IDLE_AT_MOST", 0, 1), ("_RESIDENT_AT_MOST", 1.0, 1)]
)
def test_a_process_is_kept_within_limits(
    steps: Again, monkeypatch: pytest.MonkeyPatch, limit: str, most: float, kept: int
) -> None:
    """Of how many tasks, how many wait, and how large: as many as `kept` are done by one process."""
    monkeypatch.setattr(child, limit, most)

    async def story() -> None:
        pids = [await steps.do(name) for name in ("one", "two", "three")]
        assert pids[:kept] == pids[:1] * kept and pids[kept] != pids[0]
        assert not alive(pids[0])

    steps.play(story())


def test_a_process_without_a_task_ends(tmp_path: Path) -> None:
    steps = Again(tmp_path, idle_seconds=0.1)

    async def story() -> None:
        first = await steps.do("one")
        await steps.ends(first)
        assert await steps.do("two") != first

    steps.play(story())


def test_a_process_with_a_task_does_not_end_of_idleness(tmp_path: Path) -> None:
    steps = Again(tmp_path, idle_seconds=2.0)

    async def story() -> None:
        first = await steps.do("one")
        assert await steps.do("two", "import time\ntime.sleep(2.5)\n" + GOOD) == first

    steps.play(story())


def test_processes_that_wait_end_with_the_runner(steps: Again) -> None:
    async def story() -> None:
        pair = await asyncio.gather(steps.do("one"), steps.do("two"))
        assert all(map(alive, pair))
        steps.runner.stop()
        for pid in pair:
            await steps.ends(pid)

    steps.play(story())


def test_one_that_was_killed_while_it_waited_is_replaced(steps: Again) -> None:
    async def story() -> None:
        first = await steps.do("one")
        os.kill(first, signal.SIGKILL)
        await steps.ends(first)
        assert await steps.do("two") != first

    steps.play(story())


def test_a_kill_in_the_middle_fails_that_task_alone_and_tells_its_log(steps: Again) -> None:
    async def story() -> None:
        first = await steps.do("one", "print('words of the first')\n" + GOOD)
        running = steps.start("two", "print('words of the second')\n" + SLEEPS)
        assert await steps.has_begun("two") == first
        os.kill(first, signal.SIGKILL)
        with pytest.raises(Unavailable) as died:
            await running
        assert died.value.code == "step_died"
        log = died.value.details["log"]
        assert "words of the second" in log and "words of the first" not in log
        assert await steps.do("three") != first

    steps.play(story())


def test_a_cancelled_task_ends_the_process_that_did_others_before(steps: Again) -> None:
    async def story() -> None:
        first = await steps.do("one")
        running = steps.start("two", SLEEPS)
        assert await steps.has_begun("two") == first
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        assert not alive(first)
        assert await steps.do("three") != first

    steps.play(story())


def test_limits_hold_in_a_later_task_too(tmp_path: Path) -> None:
    steps = Again(tmp_path, memory_mb=300)

    async def story() -> None:
        first = await steps.do("one")
        with pytest.raises(Denied, match="more than 300 MB") as stopped:
            await steps.do("two", TELL + "import time\nx = b'x' * 500_000_000\ntime.sleep(60)\n")
        assert stopped.value.code == "step_limit" and steps.pid("two") == first
        assert await steps.do("three") != first

    steps.play(story())


PARENT = """
import asyncio, sys
from pathlib import Path
from falaj.workflow.child import ChildRunner
from falaj.workflow.steps import StepTask

async def main():
    runner = ChildRunner(Path(sys.argv[1]) / "tmp", memory_mb=4096, seconds=60)
    task = StepTask("describe", {}, str(runner.workspace("flow", "one")), sys.argv[2], fresh=False)
    await runner.run(task, print)
    print("done", flush=True)
    await asyncio.sleep(60)

asyncio.run(main())
"""


def test_a_process_that_waits_ends_when_its_parent_is_killed(steps: Again) -> None:
    command = [sys.executable, "-c", PARENT, str(steps.folder), steps.project(GOOD)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == "done\n"
        waiting = steps.pid("one")
        assert alive(waiting)
        parent.kill()
    wait_for(lambda: not alive(waiting))
