"""What follows from an incident follows, also when the process that opened it was killed before it could."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from falaj.lifecycle.monitoring.incidents import IncidentService
from falaj.lifecycle.monitoring.model import Incident
from falaj.lifecycle.monitoring.store import SqlIncidentStore
from tests.governance.support import Desk


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    """A door with a database and a log."""
    opened = Desk(tmp_path)
    yield opened
    opened.database.close()


def service(desk: Desk, heard: list[Incident]) -> IncidentService:
    """As a process has it that has just started."""
    incidents = IncidentService(desk.database, SqlIncidentStore(), desk.door)
    incidents.on_open(heard.append)
    return incidents


def test_the_very_same_trouble_is_told_again_and_opened_once(desk: Desk) -> None:
    before: list[Incident] = []
    opened = service(desk, before).open("delay", "drift", "sha256:1", "2013-06-20 to 2013-07-18: PSI 1.08")
    after: list[Incident] = []  # the next process judges the same window again
    again = service(desk, after).open("delay", "drift", "sha256:1", "2013-06-20 to 2013-07-18: PSI 1.08")
    assert before == [opened] and after == [again] and again.id == opened.id
    assert [e.action for e in desk.entries()] == ["monitoring.open_incident"]


def test_trouble_that_goes_on_is_not_told_again(desk: Desk) -> None:
    """A later window of the same drift is the same incident: nothing new follows from it."""
    heard: list[Incident] = []
    incidents = service(desk, heard)
    opened = incidents.open("delay", "drift", "sha256:1", "2013-06-20 to 2013-07-18: PSI 1.08")
    assert incidents.open("delay", "drift", "sha256:1", "2013-07-18 to 2013-08-15: PSI 1.21") == opened
    assert incidents.open("delay", "drift", "sha256:2", "2013-06-20 to 2013-07-18: PSI 1.08") == opened
    assert heard == [opened]
