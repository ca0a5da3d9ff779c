from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.lifecycle.serving.plane.fleet import (
    Home,
    Plane,
    flight_contract,
    flight_graph,
    overflow_contract,
    overflow_graph,
)


class Running:
    """A data plane that serves two models, and tokens for it."""

    def __init__(self, root: Path) -> None:
        self.home = Home(root)
        self.predictor = self.home.token("shop", ("service",))
        self.viewer = self.home.token("vera", ("viewer",))
        self.expired = self.home.token("late", ("service",), timedelta(days=-1))
        flights = self.home.package(flight_contract(), flight_graph())
        overflow = self.home.package(overflow_contract(), overflow_graph())
        self.digest = flights.digest
        now = datetime.now(UTC)
        self.home.materialise(
            {
                "JFK": (now - timedelta(minutes=5), (10.0, 1.0)),
                "OLD": (now - timedelta(hours=3), (50.0, 1.0)),
                "FUTURE": (now + timedelta(hours=1), (50.0, 1.0)),
            }
        )
        releases = [self.home.release(flights, "flight-delay@1"), self.home.release(overflow, "overflow@1")]
        self.home.publish(self.home.bundle(1, releases))
        self.plane = Plane(self.home)
        self.http = self.plane.http

    def headers(self, token: str | None = None) -> dict[str, str]:
        return {"authorization": f"Bearer {token or self.predictor}"}


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """One data plane process for a module that only asks."""
    running = Running(tmp_path_factory.mktemp("home") / "home")
    yield running
    assert running.plane.stop() == 0


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home")
