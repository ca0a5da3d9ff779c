"""An endpoint of somebody else that falls silent, in a home of its own, which is opened again."""

from __future__ import annotations

import random
from datetime import timedelta
from pathlib import Path

from falaj.bootstrap.control_plane import ControlPlane
from falaj.kernel.settings import Settings
from falaj.lifecycle.evidence.model import Verdict
from tests.lifecycle.house import house
from tests.lifecycle.monitoring.visits import (
    Endpoint,
    days,
    declare,
    incidents,
    push,
    windows,
)
from tests.lifecycle.serving.plane.fleet import eventually


def test_silence_opens_an_incident_and_the_next_record_resolves_it(tmp_path: Path, endpoint: Endpoint) -> None:
    """In a home of its own, whose clock is moved."""
    with house(tmp_path) as home:
        declare(home, endpoint, "quiet")
        push(home, "quiet", endpoint.ask(days(random.Random(8), 0, 1, 3), "quiet"))
        home.plane.tail.catch_up(10)
        assert incidents(home, "quiet") == []
        later = home.plane.clock.now() + timedelta(days=11)
        home.plane.clock.set(later)
        eventually(lambda: incidents(home, "quiet") == [("silent", "open")], "nothing came for two windows")
        push(home, "quiet", endpoint.ask(days(random.Random(9), 1, 2, 3), "back"))
        eventually(lambda: incidents(home, "quiet") == [("silent", "resolved")], "it is heard again")
        before = windows(home, "quiet")
    again = ControlPlane(Settings(home=tmp_path / "home", project=tmp_path))
    again.start()
    try:
        assert again.external.told("quiet")["claims"] == ["2026-01"]
        assert [w.rows for w in again.quality.windows("quiet")] == [w["rows"] for w in before] == [6]
        assert {w.verdict for w in again.quality.windows("quiet")} == {Verdict.INCONCLUSIVE.value}
    finally:
        again.close()
