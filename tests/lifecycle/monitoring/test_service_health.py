"""A data plane in one word, judged by its slowest worker."""

from __future__ import annotations

import pytest

from falaj.lifecycle.monitoring.model import health
from falaj.lifecycle.serving.model import PlaneStatus
from tests.lifecycle.house import House


def worker(generation: int, refused: str = "") -> PlaneStatus:
    return PlaneStatus(
        worker="1", pid=1, generation=generation, environment="production", bundle_issued_at="", refused_bundle=refused,
        releases=(), address="http://127.0.0.1:1", started_at="", updated_at="",
    )  # fmt: skip


TABLE = [
    ((), 3, "absent", 0),
    ((worker(3),), 3, "current", 3),
    ((worker(3), worker(3)), 3, "current", 3),
    ((worker(2),), 3, "behind", 2),
    ((worker(3), worker(1)), 3, "behind", 1),
    ((worker(0),), 1, "behind", 0),
    ((worker(3, "bad signature"),), 3, "refusing", 3),
    ((worker(3), worker(2, "bad signature")), 3, "refusing", 2),
    ((worker(4),), 3, "current", 4),
]


@pytest.mark.parametrize(("workers", "published", "state", "generation"), TABLE)
def test_health(workers: tuple[PlaneStatus, ...], published: int, state: str, generation: int) -> None:
    found = health(published, workers)
    assert (found.state, found.generation, found.published, found.workers) == (state, generation, published, workers)
    assert found.reason
    if state == "refusing":
        assert found.reason == "bad signature"


def test_a_home_without_a_data_plane(home: House) -> None:
    found = home.plane.monitoring.plane()
    assert (found.state, found.published) == ("absent", home.plane.serving.generation())
    assert found.published >= 1
