"""When a waiver ends, by time or by somebody's hand, the version takes no traffic any more, and people are told before."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from falaj.kernel.clock import parse_iso
from falaj.kernel.errors import Integrity
from falaj.lifecycle.loop.waiving import ENDS
from falaj.lifecycle.registry.model import ModelVersion
from falaj.lifecycle.rollout.model import Route, TrafficPlan, all_to, withdrawn
from falaj.lifecycle.rollout.service import RolloutService
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
        house.plane.set_clock(end - timedelta(days=2), 1.0)
        look()
        assert house.now(version).state == "serving"
        assert [waiver.content.until in reason for reason in incidents(house, version)] == [True]
        house.plane.set_clock(end + timedelta(seconds=1), 1.0)
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


def test_a_crash_between_the_plan_and_the_bundle_leaves_nobody_answering(tmp_path: Path) -> None:
    house = House(tmp_path)
    try:
        version = serving(house)
        house.plane.waivers.revoke(house.risk, version, "it is bad")
        house.plane.rollout.set_plan(withdrawn(version.model), "risk", house.operation())  # and then the process died
        published = house.plane.serving.generation()
        look = house.plane.intake.waiving.look
        look()
        assert house.now(version).state == "registered"
        assert house.plane.serving.generation() == published + 1
        look()
        assert house.plane.serving.generation() == published + 1
    finally:
        house.plane.close()


def test_a_version_that_got_the_traffic_meanwhile_keeps_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    house = House(tmp_path)
    try:
        version = serving(house)
        other = house.registered(model=version.model)
        house.plane.decisions.approve(house.risk, other, "fine", hold=True)
        house.plane.registry.admit(other.digest, "production", house.owner)
        routes = (Route(version.digest, 90), Route(other.digest, 10, "canary"))
        house.plane.rollout.set_plan(TrafficPlan(version.model, routes), "risk", house.operation())
        house.plane.waivers.revoke(house.risk, version, "it is bad")
        real, promoted = RolloutService.present, all_to(version.model, other.digest)

        def overtaken(self: RolloutService, model: str) -> Any:
            found = real(self, model)
            if self is house.plane.rollout and found.routes == routes:
                house.plane.rollout.set_plan(promoted, "risk", house.operation())
            return found

        monkeypatch.setattr(RolloutService, "present", overtaken)
        house.plane.intake.waiving.look()
        assert house.plane.rollout.plan(version.model) == promoted
    finally:
        house.plane.close()


def test_a_version_whose_evidence_cannot_be_read_hides_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    house = House(tmp_path)
    try:
        broken, revoked = serving(house), imported(house)
        in_force(house, revoked)
        staging = house.plane.intake.waiving._p.rollouts["staging"]
        staging.set_plan(all_to(revoked.model, revoked.digest), "risk", house.operation())
        house.plane.waivers.revoke(house.risk, revoked, "it is bad")
        kind = type(house.plane.evidence)
        real = kind.proven

        def proven(self: Any, digest: str) -> Any:
            if digest == broken.digest:
                raise Integrity("it is damaged", hint="restore it", code="damaged")
            return real(self, digest)

        monkeypatch.setattr(kind, "proven", proven)
        with pytest.raises(Integrity, match="damaged"):
            house.plane.intake.waiving.look()
        assert staging.plan(revoked.model) is None
    finally:
        house.plane.close()
