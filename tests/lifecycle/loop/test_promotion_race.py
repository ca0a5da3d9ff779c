"""Two versions met the same champion; between admission and plan of the one, the other takes the traffic."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from falaj.kernel.errors import Conflict
from falaj.lifecycle.loop.flows.release import ReleaseFlow
from falaj.lifecycle.loop.flows.rollout import RolloutFlow, Stages
from falaj.lifecycle.registry.model import ModelVersion
from falaj.lifecycle.rollout.model import all_to
from falaj.lifecycle.rollout.strategy import Rollout, Strategy
from falaj.workflow.flow import Work
from tests.lifecycle.house import House


def apart(work: Coroutine[Any, Any, Any]) -> None:
    """Run something to its end while a loop waits in this thread."""
    with ThreadPoolExecutor(1) as pool:
        pool.submit(asyncio.run, work).result()


class Paused:
    """Runs the steps of a flow one after another, in this thread; after `behind` somebody else does something."""

    def __init__(self, flow: str, behind: str, meanwhile: Callable[[], Any]) -> None:
        self.id = flow
        self._behind = behind
        self._meanwhile = meanwhile
        self.steps: list[str] = []

    async def step(self, name: str, work: Work) -> Any:
        self.steps.append(name)
        value = work()
        if asyncio.iscoroutine(value):
            value = await value
        if name == self._behind:
            self._meanwhile()
        return value

    def emit(self, event: dict[str, Any]) -> None:
        pass


def three(home: House, model: str) -> tuple[ModelVersion, ModelVersion]:
    """A version that serves is replaced by one of these two, both approved."""
    assert home.release(home.registered(model=model)).state == "done"
    found = []
    for _ in range(2):
        version = home.registered(model=model)
        home.plane.decisions.approve(home.risk, version, "fine", hold=True)
        found.append(home.now(version))
    return found[0], found[1]


def test_of_two_releases_one_is_done(home: House) -> None:
    first, second = three(home, "two-releases")
    flow = ReleaseFlow(home.plane.registry, home.plane.rollout, home.plane.serving)
    overtake = Paused("rel_b", "", lambda: None)
    asked = {"digest": second.digest, "actor": "risk"}

    run = Paused("rel_a", "admit", lambda: apart(flow.release(overtake, asked)))
    with pytest.raises(Conflict) as refusal:
        asyncio.run(flow.release(run, {"digest": first.digest, "actor": "risk"}))
    assert refusal.value.code == "plan_changed"
    assert home.plane.rollout.plan("two-releases") == all_to("two-releases", second.digest)
    assert (home.now(first).state, home.now(second).state) == ("approved", "serving")
    assert run.steps == ["admit", "plan"] and overtake.steps[-1] == "serving"


@pytest.mark.parametrize("behind", ["", "admit"])
def test_a_rollout_beside_a_version_that_is_not_the_champion_any_more(home: House, behind: str) -> None:
    """`behind` "": it was overtaken before it began."""
    first, second = three(home, f"rolled{behind}")
    plane, model = home.plane, f"rolled{behind}"
    stable = plane.rollout.champion(model, "production")
    now = first.created_at
    rollout = Rollout(f"rol_{model}", model, first.digest, stable, Strategy(), "canary", 0, 0, "risk", "", now, now)
    plane.rollout.start(home.risk, rollout, home.operation())
    plane.registry.admit(second.digest, "production", home.owner)

    def meanwhile() -> None:
        plane.rollout.set_plan(all_to(model, second.digest), "risk", home.operation())

    if not behind:
        meanwhile()
    flow = RolloutFlow(Stages(plane.registry, plane.rollout, plane.serving, plane.analyst))
    with pytest.raises(Conflict) as refusal:
        asyncio.run(flow.roll_out(Paused(rollout.id, behind or "never", meanwhile), {"rollout": rollout.id}))
    assert refusal.value.code == "plan_changed"
    assert plane.rollout.plan(model) == all_to(model, second.digest)
    assert plane.rollout.rollout(rollout.id).stage == "aborted" and home.now(first).state == "approved"
