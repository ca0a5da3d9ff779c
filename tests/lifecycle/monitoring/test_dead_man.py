"""Whoever looks at answers is looked at: real data plane, real threads."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from falaj.kernel.access import SYSTEM, Principal
from falaj.lifecycle.monitoring.model import Incident
from tests.lifecycle.house import MODEL, House, house
from tests.lifecycle.serving.plane.fleet import eventually, flight

LIMIT = 1  # seconds


class Ward:
    """A house with a data plane, whose evaluator may be silent for a second."""

    def __init__(self, home: House, http: httpx.Client) -> None:
        self.home = home
        self.http = http
        self.asked = 0

    def ask(self) -> None:
        self.asked += 1
        assert self.http.post(f"/v2/models/{MODEL}/infer", json=flight()).status_code == 200

    def seen(self) -> bool:
        """Whether the watch knows of every answer, and of a look after it: the workers tell their counts a little later."""
        return sum(self.home.plane.watch._dead_man._answered.values()) >= self.asked

    def incidents(self) -> list[Incident]:
        return [i for i in self.home.plane.incidents.all() if i.kind == "evaluator"]


@pytest.fixture(scope="module")
def ward(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ward]:
    with house(tmp_path_factory.mktemp("house"), evaluator_seconds=LIMIT) as home:
        assert home.release(home.registered()).state == "done"
        token = home.plane.identity.grant(SYSTEM, Principal("shop", "service", ("service",)), 1).token
        with (
            home.data_plane() as plane,
            httpx.Client(base_url=plane.address, headers={"Authorization": f"Bearer {token}"}) as http,
        ):
            home.plane.serving.settle(home.plane.serving.generation(), 10)
            yield Ward(home, http)


def test_while_the_evaluator_looks_nothing_opens(ward: Ward) -> None:
    looks, until = ward.home.plane.tail.looks, time.monotonic() + 2 * LIMIT
    while time.monotonic() < until:  # the answers go on for longer than silence may last
        ward.ask()
        ward.home.plane.watch.tick()
        ward.home.plane.tail.news.acquire()
        ward.home.plane.tail.news.wait(0.3)
        ward.home.plane.tail.news.release()
    assert ward.home.plane.tail.looks > looks and ward.incidents() == []


def test_a_silent_evaluator_is_told_once_answers_are_given_and_no_longer_when_it_looks_again(ward: Ward) -> None:
    tail = ward.home.plane.tail
    eventually(ward.seen, "the watch looks")
    tail.stop()
    eventually(lambda: tail.silence() > LIMIT + 1, "it is silent")
    assert ward.incidents() == [], "nobody asks, so nothing is missed"

    ward.ask()
    eventually(lambda: len(ward.incidents()) == 1, "the watch sees counters grow")
    (incident,) = ward.incidents()
    assert (incident.model, incident.state) == ("*", "open")
    assert "1 requests were answered" in incident.reason
    assert ward.home.log(action="monitoring.open_incident", resource_id=incident.id)[0].entry.principal == "falaj"
    ward.ask()

    def looks_again() -> bool:
        tail.look()
        return ward.incidents()[0].state == "resolved"

    eventually(looks_again, "a look resolves it")
    assert len(ward.incidents()) == 1
    assert ward.home.log(action="monitoring.close_incident", resource_id=incident.id)[0].entry.outcome == "done"


def test_looks_that_fail_count_as_none(ward: Ward, tmp_path: Path) -> None:
    """The thread lives, yet nothing is judged: a segment that cannot be read."""
    broken = ward.home.plane.layout.plane / "journal" / ("0" * 26 + ".seg")
    tail = type(ward.home.plane.tail)(broken.parent, {}, lambda *_: None, lambda: None, seconds=0.05)
    broken.write_bytes(b"no segment at all")
    tail.start()
    eventually(lambda: "damaged" in tail.trouble, "its look fails")
    assert tail.looks == 0
    broken.unlink()
    eventually(lambda: tail.looks > 0, "it has gone on trying")
    assert tail.trouble == ""
    tail.stop()
