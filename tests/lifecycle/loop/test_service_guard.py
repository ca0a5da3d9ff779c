"""A shadow that answers nonsense is stopped by the data plane itself, and may be tried again when somebody says so."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

from falaj.kernel.access import SYSTEM, Principal
from falaj.kernel.digests import digest_of
from falaj.lifecycle.loop.model import ModelDefinition, ProjectDefinition
from falaj.lifecycle.loop.starting import Order
from falaj.lifecycle.rollout.strategy import Limits, Strategy
from falaj.lifecycle.serving.model import GuardReport
from tests.lifecycle.house import MODEL, House
from tests.lifecycle.serving.plane.fleet import eventually, flight, flight_graph

# So sure does the analysis have to be that the guard, which judges on its own, is always first.
STRATEGY = Strategy(shadow=5_000, steps=(50,), requests=5_000, limits=Limits(least=20, alpha=1e-30))


@pytest.fixture(scope="module")
def shop(home: House) -> Iterator[httpx.Client]:
    """Whoever asks the home's data plane."""
    model = ModelDefinition(
        MODEL, "binary", "late", "f", "at", (), (), (), (), "m:t", digest_of("c"), strategy=STRATEGY
    )
    home.plane.definitions.apply(home.author, ProjectDefinition("p", digest_of("p"), (), (), (), (model,)))
    token = home.plane.identity.grant(SYSTEM, Principal("shop", "service", ("service",)), 1).token
    with (
        home.data_plane() as plane,
        httpx.Client(base_url=plane.address, headers={"Authorization": f"Bearer {token}"}) as http,
    ):
        yield http


def trips(home: House) -> list[GuardReport]:
    return [g for w in home.plane.serving.workers() for g in w.guards]


def test_a_shadow_is_guarded_and_forgiven(home: House, shop: httpx.Client) -> None:
    assert home.release(home.registered()).state == "done"
    broken = home.registered(graph=flight_graph(float("nan")))
    flow = home.plane.decisions.approve(home.risk, broken, "let us see")["flow"]

    def asked_until_it_ends(flow: str) -> bool:
        assert shop.post(f"/v2/models/{MODEL}/infer", json=flight()).status_code == 200
        return home.plane.workflows.state(flow).state != "running"

    eventually(lambda: asked_until_it_ends(flow), "the guard stops it")
    failed = home.finished(flow)
    assert failed.error is not None and failed.error["code"] == "rolled_back"
    assert "the data plane's guard stopped it" in failed.error["error"] and "--again" in failed.error["hint"]
    (first,) = trips(home)
    assert (first.role, first.reason, first.bad_answers) == ("shadow", "non_finite", 0)
    assert home.now(broken).state == "rolled back"

    again = home.plane.starts.start(home.risk, home.now(broken), Order("one more look", again=True))["flow"]
    eventually(lambda: asked_until_it_ends(again), "it is mirrored to again, and stopped again")
    assert home.finished(again).state == "failed"
    generations = [t.generation for t in trips(home)]
    assert len(generations) == 2 and generations[0] == first.generation < generations[1]
    assert home.plane.rollout.rollout(again).forgives >= first.generation
