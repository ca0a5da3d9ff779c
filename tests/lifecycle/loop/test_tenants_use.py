"""What somebody can do with a token that is bound to a project: find, follow, show, turn pages."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from proofs.tenants import Tenant, apply, asker, settle
from tests.lifecycle.house import Api, House, house


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    with house(tmp_path_factory.mktemp("house")) as opened:
        yield opened


@pytest.fixture(scope="module")
def tenants(home: House) -> tuple[Tenant, Tenant]:
    return settle(home, "north"), settle(home, "south")


@pytest.fixture(scope="module")
def north(home: House, tenants: tuple[Tenant, Tenant]) -> Api:
    return asker(home, tenants[0].project)


def got(api: Api, path: str) -> Any:
    answer = api.get(path)
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_a_change_is_shown_by_the_name_that_the_list_gives_it(north: Api, home: House) -> None:
    listed = got(north, "/api/v1/changes")
    assert {c["model"] for c in listed} == {"north-model", ""}, "what was done to a dataset is of no model"
    assert all("south" not in str(c) for c in listed)
    shown = got(north, f"/api/v1/changes/{listed[0]['id']}")
    assert (shown["id"], shown["title"]) == (listed[0]["id"], listed[0]["title"])
    plainly = home.api().get("/api/v1/changes").json()
    assert {c["id"] for c in plainly}.isdisjoint(c["id"] for c in listed)
    places = {step["index"] for c in plainly for step in got(home.api(), f"/api/v1/changes/{c['id']}")["history"]}
    assert places.isdisjoint(step["index"] for step in shown["history"])


def test_an_entry_that_is_no_change_gives_its_place_in_the_log_away_to_nobody(north: Api, home: House) -> None:
    entry = next(e for e in got(north, "/api/v1/audit?action=monitoring.open_incident"))
    refused = north.get(f"/api/v1/changes/chg_{entry['index']}")
    assert refused.status_code == 404
    (place,) = [f.index for f in home.log(resource_id=entry["resource_id"])]
    assert str(place) not in refused.text.replace(str(entry["index"]), "")


def test_a_limit_counts_ones_own(north: Api) -> None:
    everything = got(north, "/api/v1/changes")
    assert got(north, "/api/v1/changes?limit=1") == everything[:1]
    assert got(north, "/api/v1/audit?limit=3") == got(north, "/api/v1/audit?limit=1000")[:3]


def test_pages_of_the_log_hold_every_entry_of_ones_own_once(north: Api, home: House) -> None:
    whole = got(north, "/api/v1/audit?limit=1000")
    paged, before = [], ""
    while page := got(north, f"/api/v1/audit?limit=4{before}"):
        paged += page
        before = f"&before={page[-1]['index']}"
    assert paged == whole and len(whole) > 8
    there = {(f.entry.at, f.entry.action, f.entry.resource_id) for f in home.log(limit=1000)}
    told = {(e["at"], e["action"], e["resource_id"]) for e in whole}
    assert told < there and not any("south" in str(e) for e in whole)


def test_who_looks_at_a_part_of_the_log_stands_in_it(north: Api, home: House) -> None:
    got(north, "/api/v1/audit?limit=1")
    entry = home.log(action="audit.read", limit=1)[0].entry
    assert (entry.principal, entry.detail["project"]) == ("everything-north", "north")


def test_who_knocks_from_another_project_is_the_operators_to_know(
    north: Api, home: House, tenants: tuple[Tenant, Tenant]
) -> None:
    before = got(north, "/api/v1/audit?limit=1000")
    assert asker(home, "south").get("/api/v1/models/north-model/versions").status_code == 403
    assert got(north, "/api/v1/audit?limit=1000") == before
    assert home.log(outcome="denied", resource_id="north-model")[0].entry.principal == "everything-south"


def test_ones_own_flow_can_be_followed_and_cancelled_and_anothers_not(
    north: Api, home: House, tenants: tuple[Tenant, Tenant]
) -> None:
    own, other = tenants
    assert [f["id"] for f in got(north, "/api/v1/flows")] == [own.flow]
    assert got(north, f"/api/v1/flows/{own.flow}")["state"] == "running"
    refused = north.post(f"/api/v1/flows/{own.flow}/cancellation", {"reason": "x"})
    assert refused.json()["code"] == "flow_moves_traffic"  # a rollout ends by its own order
    for path in (f"/api/v1/flows/{other.flow}", "/api/v1/flows/rol_nothing"):
        assert north.get(path).status_code == 403
    assert north.post(f"/api/v1/flows/{other.flow}/cancellation", {"reason": "x"}).status_code == 403


def test_a_load_of_ones_own_data_is_started_and_followed(
    north: Api, home: House, tenants: tuple[Tenant, Tenant]
) -> None:
    apply(home, tenants[0].definition)
    started = north.post("/api/v1/datasets/north-sales/loads")
    assert started.status_code == 202, started.text
    ended = home.finished(started.json()["flow"])
    told = got(north, f"/api/v1/flows/{ended.id}")
    assert told["state"] == ended.state == "failed"  # there is no code of this project
    assert "falaj errors" in told["error"]["hint"]


def test_what_is_missing_names_nothing_of_the_project_that_is_applied(
    north: Api, home: House, tenants: tuple[Tenant, Tenant]
) -> None:
    apply(home, tenants[1].definition)
    for answer in (
        north.post("/api/v1/models/north-model/builds", {}),
        north.post("/api/v1/datasets/north-sales/loads"),
        north.get("/api/v1/features/north-view/log"),
    ):
        assert answer.status_code == 404 and "south" not in answer.text, answer.text
    free = home.api().post("/api/v1/models/north-model/builds", {})
    assert "south-model" in free.json()["hint"]


def test_the_quarantine_of_ones_own_is_lifted(north: Api, tenants: tuple[Tenant, Tenant]) -> None:
    own, other = tenants
    assert north.post(f"/api/v1/quarantine/{other.hold}/lifting", {"reason": "x"}).status_code == 403
    assert north.post(f"/api/v1/quarantine/{own.hold}/lifting", {"reason": "looked"}).status_code == 200
    assert got(north, "/api/v1/quarantine")[0]["lifted_reason"] == "looked"


def test_a_name_that_two_projects_declare_leaves_both_lists(home: House, tenants: tuple[Tenant, Tenant]) -> None:
    one = asker(home, "north")
    assert got(one, "/api/v1/models") == ["north-model"]
    apply(home, tenants[1].definition.replace("south-model", "north-model"))
    for project in ("north", "south"):
        assert "north-model" not in got(asker(home, project), "/api/v1/models")
