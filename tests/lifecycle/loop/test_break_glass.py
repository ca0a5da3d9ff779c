"""Break-glass: two people, a reason, hours, an alert, and never past a check."""

from __future__ import annotations

import time
from collections.abc import Iterator

import msgspec
import pytest

from falaj.governance.changes.glass import BREAKABLE, MOST_HOURS, check_asked
from falaj.kernel.errors import Denied, FalajError, Invalid
from tests.governance.policy.oracle import BREAK_GLASS
from tests.lifecycle.house import House, house

ASKED = {"actions": ["rollout.steer", "changes.approve"], "hours": 2, "reason": "the risk officers are asleep"}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    with house(tmp_path_factory.mktemp("house")) as opened:
        opened.person("oncall", "ml-engineer")
        opened.person("chief", "platform-admin")
        yield opened


@pytest.fixture
def glass(home: House) -> Iterator[str]:
    """What on-call asked for and the owner opened; closed at the end."""
    asked = home.api("oncall").post("/api/v1/glass", ASKED).json()
    opened = home.api().post(f"/api/v1/glass/{asked['id']}/opening", {"reason": "called by phone"})
    assert opened.status_code == 200, opened.text
    yield asked["id"]
    if any(g.id == asked["id"] for g in home.plane.oversight.glass.in_force()):
        home.plane.oversight.glass.close(home.risk, asked["id"])


def steer(home: House, who: str = "oncall") -> str:
    """Order a roll-back; returns the code with which that is refused, or nothing."""
    try:
        home.plane.rollout.check_roll_back(home.plane.identity.principal(who), "flight-delay", "", "nonsense", "")
    except Denied as e:
        return e.code
    return ""


def test_what_can_be_asked_for_is_as_the_table_says() -> None:
    assert frozenset(BREAKABLE) == BREAK_GLASS
    check_asked(("changes.kill",), MOST_HOURS)
    for actions, hours in (((), 1.0), (("identity.grant",), 1.0), (("policy.apply", "changes.kill"), 1.0), (("changes.kill",), 4.01), (("changes.kill",), 0.0), (("changes.kill",), float("nan"))):  # fmt: skip
        with pytest.raises(Invalid):
            check_asked(actions, hours)


def test_it_takes_two_and_gives_one_what_they_asked_for(home: House) -> None:
    api = home.api("oncall")
    assert steer(home) == "denied_by_policy"
    asked = api.post("/api/v1/glass", ASKED).json()
    assert steer(home) == "denied_by_policy", "asking is not having"
    own = home.plane.identity.principal("oncall")
    with pytest.raises(Denied):
        home.plane.oversight.glass.open(own, asked["id"], "I know what I do")
    began = time.monotonic()
    opened = home.api("chief").post(f"/api/v1/glass/{asked['id']}/opening", {"reason": "called"}).json()
    (incident,) = [i for i in home.plane.incidents.all() if i.id == opened["incident"]]
    assert time.monotonic() - began < 60 and incident.state == "open"
    assert "oncall may rollout.steer, changes.approve" in incident.reason and "asleep" in incident.reason
    assert steer(home) == ""
    assert home.api("oncall").post("/api/v1/policy", {"text": "", "reason": "x"}).json()["code"] == "denied_by_policy"
    assert steer(home, "engineer") == "denied_by_policy", "nobody else may"
    again = home.api("chief").post(f"/api/v1/glass/{asked['id']}/opening", {"reason": "again"}).json()
    assert again["code"] == "glass_not_waiting"

    seen = home.api("chief").get("/api/v1/status").json()["glass"]
    assert [g["id"] for g in seen] == [asked["id"]]
    closed = home.api("chief").post(f"/api/v1/glass/{asked['id']}/closing", {}).json()
    assert closed["closed_by"] == "chief" and steer(home) == "denied_by_policy"
    assert home.api("chief").get("/api/v1/status").json()["glass"] == []
    (row,) = [r for r in api.get("/api/v1/glass").json() if r["id"] == asked["id"]]
    assert (row["holds"], row["opened_by"], row["reason"]) == (False, "chief", ASKED["reason"])
    entries = [home.log(action=f"changes.{a}_glass")[0].entry for a in ("propose", "open", "close")]
    assert [e.principal for e in entries] == ["oncall", "chief", "chief"] and entries[1].detail["for"] == "oncall"


def test_what_it_allowed_says_so_in_the_log(home: House, glass: str) -> None:
    version = home.registered()
    home.api("oncall").post(f"/api/v1/models/{version.model}/versions/1/approvals", {"reason": "seen"})
    entry = home.log(action="changes.approve")[0].entry
    assert (entry.principal, entry.outcome, entry.detail["break_glass"]) == ("oncall", "done", glass)
    other = home.registered(model="other")
    home.api("risk").post("/api/v1/models/other/versions/1/approvals", {"reason": "seen"})
    assert other and "break_glass" not in home.log(action="changes.approve")[0].entry.detail


def test_it_lifts_no_forbid_no_evidence_and_no_load(home: House, glass: str) -> None:
    oncall = home.plane.identity.principal("oncall")
    own = home.packaged(model="own")
    own = msgspec.structs.replace(own, author="oncall")
    with pytest.raises(Denied) as refused:
        home.plane.changes.decide(oncall, home.plane.registry.subject(own), True, "mine")
    assert "four-eyes" in refused.value.message
    bare = home.packaged(model="bare")  # nothing was measured
    for place in ("dev", "staging", "production"):
        with pytest.raises(FalajError) as lacking:
            home.plane.registry.admit(bare.digest, place, oncall)
        assert lacking.value.code != "denied_by_policy" or place == "production"
    held = home.registered(model="heldback")
    home.plane.oversight.holding.put(home.risk, "version", held.alias, "a doubt")
    with pytest.raises(Denied) as quarantined:
        home.plane.decisions.approve(oncall, home.now(held), "seen")
    assert "not-in-quarantine" in quarantined.value.message
    forged = msgspec.structs.replace(home.author, glass=("changes.kill", "registry.admit", "changes.approve"))
    with pytest.raises(Denied):
        home.plane.changes.decide(forged, home.plane.registry.subject(home.registered(model="forged")), True, "x")


def test_a_token_for_less_stays_for_less(home: House, glass: str) -> None:
    narrow = msgspec.structs.replace(home.plane.identity.principal("oncall"), scope=("read",))
    with pytest.raises(Denied) as refused:
        home.plane.rollout.check_roll_back(narrow, "flight-delay", "", "x", "")
    assert "within-the-tokens-scope" in refused.value.message
