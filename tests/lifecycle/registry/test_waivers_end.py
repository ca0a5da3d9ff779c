"""When a waiver ends, by time or by somebody's hand, the version takes no traffic any more, and people are told before."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

from falaj.kernel.clock import parse_iso
from falaj.lifecycle.loop.waiving import ENDS
from falaj.lifecycle.registry.model import ModelVersion
from tests.lifecycle.house import House
from tests.lifecycle.registry.test_waivers import imported, in_force


def serving(house: House) -> ModelVersion:
    """An imported version, waived for 30 days, that takes all traffic."""
    version = imported(house)
    in_force(house, version)
    house.staged(version)
    assert house.release(house.now(version)).state == "done"
    return house.now(version)


def incidents(house: House, version: ModelVersion) -> list[str]:
    return [i.reason for i in house.plane.incidents.open_of(version.model) if i.kind == ENDS]


def test_time_takes_it_out_and_an_incident_comes_before(tmp_path: Path) -> None:
    house = House(tmp_path)
    try:
        version = serving(house)
        look = house.plane.intake.waiving.look
        look()
        assert (house.now(version).state, incidents(house, version)) == ("serving", [])
        (waiver,) = house.plane.waivers.of(version.digest)
        end = parse_iso(waiver.content.until)
        house.plane._set_clock(end - timedelta(days=2), 1.0)
        look()
        assert house.now(version).state == "serving"
        assert [waiver.content.until in reason for reason in incidents(house, version)] == [True]
        house.plane._set_clock(end + timedelta(seconds=1), 1.0)
        look()
        assert (house.now(version).state, house.plane.rollout.plan(version.model)) == ("registered", None)
        assert "expired" in house.now(version).reason
    finally:
        house.plane.close()


def test_a_revocation_that_a_crash_cut_short_is_carried_out_by_the_next_look(tmp_path: Path) -> None:
    house = House(tmp_path)
    try:
        version = serving(house)
        house.plane.waivers.revoke(house.risk, version, "it is bad")  # the decision alone, as before a crash
        house.plane.intake.waiving.look()
        assert (house.now(version).state, house.plane.rollout.plan(version.model)) == ("registered", None)
        assert "revoked by risk" in house.now(version).reason
        assert [version.alias in reason for reason in incidents(house, version)] == [True]
    finally:
        house.plane.close()
