"""Break-glass by a machine's clock, with an alert that fails once."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from falaj.governance.changes.breaking import GlassService
from falaj.governance.changes.store import SqlGlassStore
from falaj.kernel.access import Principal
from falaj.kernel.errors import FalajError, Invalid
from tests.governance.support import Desk


class Wall:
    """A machine's clock that is set by hand."""

    def __init__(self) -> None:
        self.shows = datetime(2026, 1, 1, 12, tzinfo=UTC)

    def now(self) -> datetime:
        return self.shows


def test_it_ends_by_itself_and_a_crash_does_not_hide_it(desk: Desk) -> None:
    wall, told = Wall(), list[str]()

    def alert(of: Any) -> str:
        if len(told) == 0:
            told.append("")
            raise FalajError("no incident can be opened", hint="", code="x")
        told.append(of.id)
        return f"inc_{len(told)}"

    database, door = desk.database, desk.door
    service = GlassService(database, SqlGlassStore(), door, wall, alert)
    oncall, risk = Principal("oncall", "person", ("ml-engineer",)), Principal("risk", "person", ("risk-officer",))
    with pytest.raises(Invalid):
        service.propose(Principal("robot", "service", ("ml-engineer",)), ("changes.kill",), 1, "x")
    late = service.propose(oncall, ("changes.kill",), 1, "later")
    wall.shows += timedelta(minutes=61)
    with pytest.raises(FalajError) as waited:
        service.open(risk, late.id, "too late")
    assert waited.value.code == "glass_not_waiting"

    asked = service.propose(oncall, ("changes.kill",), 1, "it burns")
    with pytest.raises(FalajError):
        service.open(risk, asked.id, "yes")
    assert service.of("oncall") == {}, "without its alert it allows nothing"
    again = GlassService(database, SqlGlassStore(), door, wall, alert)  # as after a restart
    again.look()
    assert again.of("oncall") == {"changes.kill": asked.id} and told[-1] == asked.id
    wall.shows += timedelta(minutes=59, seconds=59)
    assert again.of("oncall") == {"changes.kill": asked.id} and again.of("risk") == {}
    wall.shows += timedelta(seconds=1)
    assert again.of("oncall") == {}, "to the moment, before anybody looks"
    again.look()
    (ended,) = [g for g in again.all() if g.id == asked.id]
    assert ended.closed_by == "falaj" and ended.incident
    assert desk.entries(action="changes.end_glass")[0].detail["for"] == "oncall"
    again.look()
    assert len(desk.entries(action="changes.end_glass")) == 1
