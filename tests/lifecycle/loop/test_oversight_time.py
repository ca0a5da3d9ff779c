"""What time does to validations and approvals, and the tier for one person: each in a house of its own, whose clock moves."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from threading import Barrier

import pytest

from falaj.kernel.access import SYSTEM, Principal
from falaj.kernel.environments import PRODUCTION
from falaj.kernel.errors import Conflict, Denied, Invalid
from falaj.lifecycle.loop.starting import Order
from falaj.lifecycle.registry.model import ModelVersion
from tests.lifecycle.house import House, house
from tests.lifecycle.loop.test_oversight import approve, code_of, say, validate


@pytest.fixture
def fresh(tmp_path: Path) -> Iterator[House]:
    """A house of its own, for tests that move the clock."""
    with house(tmp_path) as opened:
        yield opened


def test_an_overdue_validation_freezes_promotion_and_not_what_serves(fresh: House) -> None:
    home, model = fresh, "overdue"
    versions = [home.registered(model=model) for _ in range(2)]
    for version in versions:
        assert home.release(version).state == "done"
    validate(home, versions[1], home.risk, days=1)
    third = home.registered(model=model)
    home.plane.set_clock(home.plane.clock.now() + timedelta(days=2), 1.0)
    assert code_of(home, third) == "revalidation_overdue"
    state = home.release(third)
    assert state.state == "failed" and state.error and state.error["code"] == "revalidation_overdue"
    with pytest.raises(Denied) as ordered:
        home.plane.permissions.check(model)
    assert "what serves goes on serving" in ordered.value.message
    assert home.now(versions[1]).state == "serving"
    back = home.plane.decisions.roll_back(home.risk, model, "the new one is worse")
    assert home.finished(back["flow"]).state == "done", "a roll-back is no promotion"
    assert home.now(versions[0]).state == "serving"
    validate(home, versions[0], home.risk)
    assert home.plane.registry.admit(third.digest, PRODUCTION, SYSTEM)


def own(home: House, model: str) -> ModelVersion:
    """A version whose author may judge risk too."""
    home.person("engineer", "ml-engineer", "risk-officer")
    home.author = home.plane.identity.principal("engineer")
    return home.registered(model=model)


def test_one_person_waits_and_the_version_is_marked_for_good(fresh: House) -> None:
    home, model = fresh, "solo"
    version = own(home, model)
    with pytest.raises(Denied) as four_eyes:
        approve(home, version, home.author)
    assert four_eyes.value.details["rules"] == ["four-eyes"]
    say(home, model, tier="one-person")
    with pytest.raises(Denied) as early:
        approve(home, version, home.author)
    assert early.value.code == "own_approval_too_soon"
    home.plane.set_clock(home.plane.clock.now() + timedelta(hours=25), 1.0)
    assert home.finished(approve(home, version, home.author)["flow"]).state == "done"
    assert home.plane.registry.marks(version.digest) == ("one-person",)
    admission = home.plane.registry.proven_admission(version.digest, PRODUCTION)
    assert admission is not None and (admission.tier, admission.marks) == ("one-person", ("one-person",))
    entry = home.log(action="registry.admit_approved", resource_id=version.alias)[0].entry
    assert entry.detail["marks"] == ["one-person"]
    listed = home.api().get(f"/api/v1/models/{model}/versions").json()
    assert listed[0]["marks"] == ["one-person"]
    assert home.finished(home.plane.starts.start(home.risk, home.now(version), order_at_once())["flow"]).state == "done"
    assert home.plane.registry.marks(version.digest) == ("one-person",), "never taken back"


def order_at_once() -> Order:
    return Order(reason="again", at_once=True)


def test_alone_is_never_for_regulated_use(fresh: House) -> None:
    home, model = fresh, "bank"
    version = own(home, model)
    say(home, model, tier="one-person")
    home.plane.set_clock(home.plane.clock.now() + timedelta(hours=25), 1.0)
    assert home.finished(approve(home, version, home.author)["flow"]).state == "done"
    with pytest.raises(Invalid) as refused:
        say(home, model, regulated=True)
    assert refused.value.code == "tier_not_for_regulated"
    say(home, model, regulated=True, tier="limited")
    home.plane.oversight.overseeing.look()
    assert home.plane.rollout.plan(model) is None, "what its author alone let in leaves"
    assert home.now(version).state == "awaiting approval"
    with pytest.raises(Denied):
        approve(home, version, home.author)


def test_an_approval_expires_unless_it_was_used_in_time(fresh: House) -> None:
    home, model = fresh, "aged"
    used, unused = home.registered(model=model), home.registered(model=model)
    assert home.release(used).state == "done"
    home.plane.decisions.approve(home.risk, unused, "fine", hold=True)
    home.plane.set_clock(home.plane.clock.now() + timedelta(days=31), 1.0)
    assert home.plane.registry.admit(used.digest, PRODUCTION, SYSTEM), "what was let in on it stays let in"
    assert code_of(home, unused) == "not_approved"
    assert home.now(unused).state == "approved"
    again = approve(home, unused, home.risk)
    assert again["approvals"] == 1 and home.finished(again["flow"]).state == "done"


def test_several_renew_what_expired(fresh: House) -> None:
    """Whoever comes first, the version lapses once, is approved once, and is released once."""
    home, people = fresh, [fresh.risk, fresh.owner, fresh.person("eve", "risk-officer")]
    version = home.registered(model="renewed")
    home.plane.decisions.approve(home.risk, version, "read", hold=True)
    home.plane.set_clock(home.plane.clock.now() + timedelta(days=31), 1.0)
    lapsed, together = home.now(version), Barrier(len(people))

    def renew(who: Principal) -> str:
        together.wait(30)
        try:
            return str(home.plane.decisions.approve(who, lapsed, "read again")["flow"])
        except Conflict as e:
            return e.code

    with ThreadPoolExecutor(len(people)) as pool:
        came = list(pool.map(renew, people))
    (flow,) = set(came) - {"not_awaiting"}
    assert home.finished(flow).state == "done" and home.now(version).state == "serving"
    plans = home.log(action="rollout.set_plan", resource_id="renewed")
    assert [p.entry.operation_id for p in plans] == [f"{flow}:plan"]
    done = home.log(action="registry.move", resource_id=version.alias, outcome="done")
    moves = [f.entry.detail["to"] for f in reversed(done)]
    assert moves[-4:] == ["approved", "awaiting approval", "approved", "serving"]
