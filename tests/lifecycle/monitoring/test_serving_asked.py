"""Who serves is asked when a window has drifted, and at no other time: the judge comes by several times a second."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from falaj.kernel.digests import digest_of
from falaj.lifecycle.loop.model import ModelDefinition, ProjectDefinition
from falaj.lifecycle.monitoring.policy import MonitorPolicy
from falaj.lifecycle.registry.model import ModelVersion
from falaj.lifecycle.serving.plane.journal import Prediction
from tests.lifecycle.house import House

HOUR = 3_600_000_000


def answers(version: ModelVersion, at: int, shifted: bool, n: int = 300) -> list[Prediction]:
    chance = random.Random(n)
    return [
        Prediction(
            id=f"p_{'0' * 26}_{at:x}{i:x}", at=at, model=version.model, version=version.alias, digest=version.digest,
            principal="shop", generation=1, worker="w0", rows=1, outputs={"probability": [chance.random()]},
            inputs={"distance": [9.0 if shifted else chance.random()]},
        )
        for i in range(n)
    ]  # fmt: skip


@pytest.fixture(scope="module")
def quiet(home: House) -> House:
    """A house in which nobody else judges windows, an hour each."""
    home.plane.tail.stop()
    policy = MonitorPolicy(window_seconds=3600, features=1, min_rows=100)
    model = ModelDefinition("seen", "binary", "late", "f", "at", (), (), (), (), "m:t", digest_of("c"), monitor=policy)
    home.plane.definitions.apply(home.author, ProjectDefinition("p", digest_of("p"), (), (), (), (model,)))
    return home


def looks(home: House, serving: dict[str, str]) -> tuple[Callable[[], None], list[int]]:
    """A judge, and how often it asked who serves."""
    asked: list[int] = []

    def who() -> dict[str, str]:
        asked.append(1)
        return serving

    return lambda: home.plane.observer.judge(who), asked


def test_only_a_window_that_has_drifted(quiet: House) -> None:
    version = quiet.packaged(model="seen")
    now = int(quiet.plane.clock.now().timestamp() * 1e6)
    judge, asked = looks(quiet, {"seen": version.digest})
    quiet.plane.observer(answers(version, now, shifted=True), "open", 1)
    judge()
    assert asked == [], "its time is not over"
    quiet.plane.observer(answers(version, now - 3 * HOUR, shifted=True), "past", 1)
    judge()
    judge()
    assert asked == [1]
    assert [(i.model, i.kind) for i in quiet.plane.incidents.all()] == [("seen", "drift")]


def test_nor_for_a_model_that_nothing_is_said_of(quiet: House) -> None:
    version = quiet.packaged(model="unsaid")
    now = int(quiet.plane.clock.now().timestamp() * 1e6)
    judge, asked = looks(quiet, {"unsaid": version.digest})
    quiet.plane.observer(answers(version, now - 5 * HOUR, shifted=True), "unsaid", 1)
    judge()
    assert asked == [] and all(i.model != "unsaid" for i in quiet.plane.incidents.all())
