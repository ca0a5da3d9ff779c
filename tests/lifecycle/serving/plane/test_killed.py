"""What a data plane makes of bundles that kill a model, whatever else they say, with two workers and after a restart."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from falaj.lifecycle.rollout.model import TrafficPlan, all_to
from falaj.lifecycle.serving.model import Constant, Killed, Release
from tests.lifecycle.serving.plane.fleet import Home, Plane, eventually, flight, flight_contract, flight_graph

MODEL = "flight-delay"


class Scene:
    """A home, two versions of a model, a token, and a data plane on which the second one serves."""

    def __init__(self, home: Home, workers: int = 1) -> None:
        self.home = home
        self.token = home.token("shop", ("service",))
        packages = [home.package(flight_contract(), flight_graph(bias)) for bias in (1.0, 2.0)]
        self.first, self.second = (p.digest for p in packages)
        now = datetime.now(UTC)
        home.materialise({"JFK": (now - timedelta(minutes=5), (10.0, 1.0))})
        self.releases = [home.release(p, f"{MODEL}@{n}") for n, p in enumerate(packages, 1)]
        self.generation = 0
        self.publish(all_to(MODEL, self.second))
        self.plane = Plane(home, workers)

    def publish(
        self, *plans: TrafficPlan, killed: tuple[Killed, ...] = (), releases: list[Release] | None = None
    ) -> None:
        self.generation += 1
        bundle = self.home.bundle(self.generation, self.releases if releases is None else releases, plans)
        self.home.publish(msgspec.structs.replace(bundle, killed=killed))

    def taken(self, workers: int = 1) -> None:
        """Wait until each worker has come up and taken the newest bundle."""

        def all_have() -> bool:
            try:
                return all(self.plane.status(w)["generation"] == self.generation for w in range(1, workers + 1))
            except FileNotFoundError:
                return False

        eventually(all_have, "a worker has not taken it")

    def answer(self) -> str:
        got = self.plane.http.post(
            f"/v2/models/{MODEL}/infer", json=flight(), headers={"authorization": f"Bearer {self.token}"}
        )
        return str(got.json()["model_version"]) if got.status_code == 200 else str(got.json()["code"])


@pytest.fixture
def staged(home: Home) -> Iterator[Callable[[int], Scene]]:
    """Makes a scene; its data plane is stopped whatever the test says."""
    made: list[Scene] = []

    def make(workers: int = 1) -> Scene:
        made.append(Scene(home, workers))
        return made[-1]

    yield make
    for scene in made:
        assert scene.plane.stop() == 0


@pytest.mark.parametrize(
    ("plans", "killed", "expected"),
    [
        ("none", Killed(MODEL, "refuse"), "model_killed"),
        ("second", Killed(MODEL, "refuse"), "model_killed"),
        ("first", Killed(MODEL, "version", "first"), "1"),
        ("second", Killed(MODEL, "version", "first"), "model_killed"),
        ("none", Killed(MODEL, "version", "first"), "model_killed"),
        ("none", Killed(MODEL, "answer", answer=(Constant("probability", "FP32", 0.5),)), "constant"),
        ("second", Killed(MODEL, "answer", answer=(Constant("probability", "FP32", 0.5),)), "constant"),
    ],
    ids=lambda v: v if isinstance(v, str) else v.kind,
)
def test_nothing_of_a_killed_model_answers_but_its_fallback(
    staged: Callable[[int], Scene], plans: str, killed: Killed, expected: str
) -> None:
    scene = staged(2)
    assert scene.answer() == "2"
    digests = {"first": scene.first, "second": scene.second}
    planned = (all_to(MODEL, digests[plans]),) if plans in digests else ()
    told = msgspec.structs.replace(killed, digest=digests.get(killed.digest, ""))
    scene.publish(*planned, killed=(told,))
    scene.taken(2)
    assert {scene.answer() for _ in range(20)} == {expected}
    assert scene.plane.status()["killed"] == [MODEL]
    scene.plane.stop()
    scene.plane = Plane(scene.home, 2)
    assert {scene.answer() for _ in range(20)} == {expected}, "a restart brings nothing back"
    scene.publish(all_to(MODEL, scene.second))
    scene.taken(2)
    assert scene.answer() == "2"


def test_a_fallback_that_is_refused_brings_nothing_back(staged: Callable[[int], Scene]) -> None:
    scene = staged(1)
    torn = msgspec.structs.replace(scene.releases[0], files=scene.releases[0].files[:1])
    scene.publish(
        all_to(MODEL, scene.first), killed=(Killed(MODEL, "version", scene.first),), releases=[torn, scene.releases[1]]
    )
    scene.taken()
    assert scene.answer() == "model_killed"


def test_a_bundle_that_cannot_be_followed_kills_all_the_same(staged: Callable[[int], Scene]) -> None:
    scene = staged(1)
    twice = all_to(MODEL, scene.second)
    scene.publish(twice, twice, killed=(Killed(MODEL, "refuse"),))
    eventually(lambda: bool(scene.plane.status()["refused_bundle"]), "it was taken")
    assert scene.answer() == "model_killed"
