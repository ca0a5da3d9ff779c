"""People look at answers: a real data plane answers, the rule or somebody brings an answer to people, and somebody decides."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import httpx
import msgspec
import pytest
from sqlalchemy import update

from falaj.kernel.access import SYSTEM, Principal
from falaj.kernel.clock import parse_iso
from falaj.kernel.digests import digest_of
from falaj.lifecycle.loop.model import ProjectDefinition
from falaj.lifecycle.monitoring.policy import ReviewPolicy
from falaj.lifecycle.monitoring.reviews.store import answer_reviews
from falaj.lifecycle.serving.plane.journal import Prediction, read_record
from falaj.storage.blobs.local import blob_path
from tests.lifecycle.house import MODEL, Api, House
from tests.lifecycle.loop.test_why import Shop, define
from tests.lifecycle.serving.plane.fleet import eventually, flight_contract

ALL = ReviewPolicy(every=True)
CONFIRM = {"decision": "confirm"}


def override(to: str, code: str) -> dict[str, str]:
    return {"decision": "override", "to": to, "code": code}


class Asked(Shop):
    """The same, and the token of whoever gets the answers."""

    token = ""


@pytest.fixture(scope="module")
def shop(home: House) -> Iterator[Asked]:
    token = home.plane.identity.grant(SYSTEM, Principal("shop", "service", ("service",)), 1).token
    with (
        home.data_plane() as plane,
        httpx.Client(base_url=plane.address, headers={"Authorization": f"Bearer {token}"}) as http,
    ):
        opened = Asked(home, http)
        opened.token = token
        yield opened


@pytest.fixture(scope="module")
def risk(shop: Asked) -> Api:
    return shop.home.api("risk")


def waiting(shop: Asked, prediction: str, rows: int = 1) -> list[dict[str, Any]]:
    """The reviews of an answer, once the journal was read that far."""
    found: list[dict[str, Any]] = []

    def queued() -> bool:
        found[:] = [r for r in listed(shop.api, limit=1000) if r["prediction"] == prediction]
        return len(found) == rows

    eventually(queued, "the rule gives the answer to people")
    return sorted(found, key=lambda r: r["row"])


def listed(api: Api, **asked: Any) -> list[dict[str, Any]]:
    answer = api.ask("GET", "/api/v1/reviews", params=asked)
    assert answer.status_code == 200, answer.text
    rows: list[dict[str, Any]] = answer.json()
    return rows


def recorded(shop: Asked, prediction: str) -> Prediction:
    """An answer's record."""
    return read_record(shop.home.plane.layout.plane / "journal", prediction)


def read_so_far(shop: Asked) -> None:
    """Wait until the journal was read up to now."""
    assert shop.home.plane.tail.catch_up(10)


def test_without_a_rule_people_look_at_what_somebody_asks_about(shop: Asked, risk: Api) -> None:
    define(shop.home)
    prediction = shop.ask(rows=3)
    read_so_far(shop)
    assert listed(shop.api) == []
    service = shop.home.person("desk", "service")
    desk = shop.home.api(service.name)
    asked = desk.post(f"/api/v1/predictions/{prediction}/2/review", {"because": "contested"})
    assert asked.status_code == 200, asked.text
    brief = asked.json()
    assert sorted(brief) == ["because", "due_at", "id", "model", "prediction", "row", "state"], (
        "the desk did not get the answer"
    )
    own = Api(shop.home.plane, shop.token).post(f"/api/v1/predictions/{prediction}/2/review", {"because": "doubted"})
    row = own.json()
    assert {k: row[k] for k in brief} == brief and isinstance(row["answer"], float), "whoever got it knows it"
    assert (row["row"], row["because"], row["asked_by"], row["state"]) == (2, "contested", "desk", "pending")
    assert parse_iso(row["due_at"]) - parse_iso(row["at"]) == timedelta(hours=72)
    asked_for = shop.home.log(action="monitoring.ask_review", outcome="done")
    assert [(f.entry.principal, f.entry.detail["review"]) for f in asked_for] == [
        ("shop", row["id"]),
        ("desk", row["id"]),
    ]
    assert [r["id"] for r in listed(risk)] == [row["id"]]
    told = shop.why(f"{prediction}/2")["review"]
    assert told == row and shop.why(prediction)["review"] is None
    shown = risk.get(f"/api/v1/reviews/{row['id']}").json()
    assert "wrong_input" in shown["codes"] and shown["choices"] == ["on time", "late"]


@pytest.mark.parametrize(
    ("place", "because", "status", "code"),
    [
        ("{}/3", "doubted", 422, "no_such_row"),
        ("{}", "rule", 422, "bad_review_request"),
        ("{}", "he said so", 422, "bad_review_request"),
        ("p_01h00000000000000000000000_8", "doubted", 404, "prediction_not_found"),
        ("anything", "doubted", 422, "bad_prediction_id"),
    ],
)
def test_what_cannot_be_asked_about(shop: Asked, place: str, because: str, status: int, code: str) -> None:
    prediction = shop.ask(rows=3)
    answer = shop.api.post(f"/api/v1/predictions/{place.format(prediction)}/review", {"because": because})
    assert (answer.status_code, answer.json()["code"]) == (status, code), answer.text


def test_the_rule_gives_each_row_of_an_answer_to_people_once(shop: Asked) -> None:
    read_so_far(shop)
    define(shop.home, review=ReviewPolicy(every=True, within_seconds=3600))
    prediction = shop.ask(rows=3)
    rows = waiting(shop, prediction, rows=3)
    assert [(r["row"], r["because"], r["asked_by"]) for r in rows] == [(i, "rule", "falaj") for i in range(3)]
    outputs = shop.why(prediction)["prediction"]["outputs"]
    assert [r["answer"] for r in rows] == outputs[next(iter(outputs))]
    record = shop.home.plane.reviews
    before = len(listed(shop.api, limit=1000))
    batch = [recorded(shop, prediction)]
    record.take(batch)  # a look that failed is taken again
    assert len(listed(shop.api, limit=1000)) == before
    entry = shop.home.log(action="monitoring.queue_reviews")[0].entry
    assert (entry.detail["reviews"], entry.detail["model"]) == (3, MODEL)
    assert entry.principal == "falaj" and entry.detail["root"].startswith("sha256:")


def test_a_shadow_and_a_score_outside_the_rule_go_to_nobody(shop: Asked) -> None:
    define(shop.home, review=ReviewPolicy(between=(2.0, 3.0)))
    inside = shop.ask()
    read_so_far(shop)
    assert shop.why(inside)["review"] is None
    record = recorded(shop, inside)
    define(shop.home, review=ALL)
    for number, nobodys in enumerate(({"role": "shadow", "primary": inside}, {"error": "too slow"}, {"digest": ""})):
        shop.home.plane.reviews.take([msgspec.structs.replace(record, id=f"{inside}f{number}", **nobodys)])
        assert not [r for r in listed(shop.api, limit=1000) if r["prediction"] == f"{inside}f{number}"], nobodys


def test_where_nobody_knows_what_was_answered_every_row_goes_to_people(shop: Asked, risk: Api) -> None:
    define(shop.home, review=ReviewPolicy(between=(2.0, 3.0)))
    record = recorded(shop, shop.ask(rows=2))
    read_so_far(shop)
    own = msgspec.structs.replace(flight_contract(MODEL), purpose="known to this version only")
    version = shop.home.packaged(contract=own)
    (contract,) = (f.sha256 for f in version.files if f.path == "signature.json")
    blob_path(shop.home.plane.layout.blobs, contract).unlink()
    unknown = msgspec.structs.replace(record, id=f"{record.id}f", digest=version.digest)
    shop.home.plane.reviews.take([unknown])
    rows = waiting(shop, unknown.id, rows=2)
    assert [r["answer"] for r in rows] == [None, None]


def test_somebody_confirms_and_somebody_overrides(shop: Asked, risk: Api) -> None:
    define(shop.home, review=ALL)
    first, second = (waiting(shop, shop.ask())[0] for _ in range(2))
    confirmed = risk.post(f"/api/v1/reviews/{first['id']}/decision", CONFIRM)
    assert (confirmed.status_code, confirmed.json()["state"]) == (200, "confirmed"), confirmed.text
    body = override("late", "missing_context")
    overridden = risk.post(f"/api/v1/reviews/{second['id']}/decision", body).json()
    assert (overridden["state"], overridden["override"], overridden["code"], overridden["decided_by"]) == (
        "overridden", "late", "missing_context", "risk",
    )  # fmt: skip
    assert risk.post(f"/api/v1/reviews/{second['id']}/decision", body).json() == overridden, "the same word again"
    other = shop.home.api(shop.home.person("second-risk", "risk-officer").name)
    late = other.post(f"/api/v1/reviews/{second['id']}/decision", CONFIRM)
    assert (late.status_code, late.json()["code"]) == (409, "reviewed_already")
    assert shop.why(second["prediction"])["review"]["override"] == "late"
    assert second["id"] not in [r["id"] for r in listed(shop.api, state="pending", limit=1000)]
    (found,) = shop.home.log(action="monitoring.decide_review", resource_id=second["id"], outcome="done")
    entry = found.entry
    assert (entry.detail["decision"], entry.detail["code"]) == ("overridden", "missing_context")
    assert "late" not in str({k: v for k, v in entry.detail.items() if k != "commitment"}), (
        "what holds is not in the log"
    )


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (override("maybe", "wrong_input"), "bad_override"),
        (override("late", ""), "bad_decision"),
        (override("", "wrong_input"), "bad_decision"),
        ({"decision": "confirm", "to": "late", "code": "wrong_input"}, "bad_decision"),
        ({"to": "late", "code": "wrong_input"}, "bad_request"),
        (override("late", "he called me"), "bad_reason_code"),
    ],
)
def test_what_cannot_be_said(shop: Asked, risk: Api, body: dict[str, str], code: str) -> None:
    define(shop.home, review=ALL)
    (row,) = waiting(shop, shop.ask())
    refused = risk.post(f"/api/v1/reviews/{row['id']}/decision", body)
    assert (refused.status_code, refused.json()["code"]) == (422, code) and refused.json()["hint"]
    assert risk.get(f"/api/v1/reviews/{row['id']}").json()["state"] == "pending"


def test_the_author_of_the_version_and_whoever_has_no_such_role_do_not_decide(shop: Asked) -> None:
    define(shop.home, review=ALL)
    (row,) = waiting(shop, shop.ask())
    home, identity = shop.home, shop.home.plane.identity
    both = Principal(home.author.name, "person", ("ml-engineer", "risk-officer"))
    author = Api(home.plane, identity.grant(SYSTEM, both, 1).token)
    own = author.post(f"/api/v1/reviews/{row['id']}/decision", CONFIRM)
    identity.grant(SYSTEM, home.author, 1)
    assert own.status_code == 403 and own.json()["details"]["rules"] == ["nobody-reviews-their-own-model"]
    viewer = home.api(home.person("onlooker", "viewer").name)
    assert viewer.post(f"/api/v1/reviews/{row['id']}/decision", CONFIRM).status_code == 403
    assert viewer.post(f"/api/v1/predictions/{row['prediction']}/review", {"because": "doubted"}).status_code == 403
    assert viewer.get(f"/api/v1/reviews/{row['id']}").status_code == 403, "what is about a person is not for everybody"
    assert viewer.get("/api/v1/reviews").status_code == 403
    assert listed(shop.home.api("risk"), state="pending")
    look = shop.home.log(action="monitoring.read_reviews", outcome="done")[0].entry
    assert (look.principal, look.resource_id, look.detail["state"]) == ("risk", "*", "pending"), "each look is an entry"
    assert shop.api.get(f"/api/v1/reviews/{row['id']}").json()["state"] == "pending"
    assert shop.api.get("/api/v1/reviews/rev_nothing").status_code == 404


@pytest.mark.parametrize(
    "altered",
    [{"override": '"on time"'}, {"state": "confirmed", "override": "", "salt": ""}, {"decided_by": "owner"},
     {"code": "wrong_input"}, {"state": "pending", "decided_by": "", "code": "", "override": "", "salt": ""},
     {"answer": "0.99"}, {"row": 7}, {"digest": "sha256:0"}],
    ids=["another override", "confirmed", "somebody else", "another reason", "undone", "another answer", "another row", "another version"],
)  # fmt: skip
def test_a_decision_that_was_changed_in_the_database_is_told(shop: Asked, risk: Api, altered: dict[str, str]) -> None:
    define(shop.home, review=ALL)
    (row,) = waiting(shop, shop.ask())
    path, place = f"/api/v1/reviews/{row['id']}", f"/api/v1/predictions/{row['prediction']}"
    risk.post(f"{path}/decision", override("late", "unfair_outcome"))
    assert risk.get(path).status_code == 200
    mine = answer_reviews.c.id == row["id"]
    kept = shop.home.plane.reviews.find(row["id"])
    assert kept is not None
    shop.home.sql(update(answer_reviews).where(mine).values(altered))
    told = [risk.get(path), risk.get("/api/v1/reviews?limit=1000")]
    if "row" not in altered:
        told += [risk.get(f"{place}/why"), shop.api.post(f"{place}/review", {"because": "contested"})]
    assert [(t.status_code, t.json()["code"]) for t in told] == [(500, "review_altered")] * len(told)
    if "digest" not in altered:  # whose version it was is then not known, and nobody may decide
        assert risk.post(f"{path}/decision", CONFIRM).json()["code"] == "review_altered", (
            "and nothing is decided over it"
        )
    shop.home.sql(update(answer_reviews).where(mine).values(msgspec.structs.asdict(kept)))
    assert risk.get(path).status_code == 200


def test_a_decision_beside_a_look_is_no_alarm(shop: Asked, risk: Api) -> None:
    """Somebody reads a row, somebody else decides, and the first one asks the log."""
    define(shop.home, review=ALL)
    (row,) = waiting(shop, shop.ask())
    reviews = shop.home.plane.reviews
    stale = reviews.find(row["id"])
    assert stale is not None
    risk.post(f"/api/v1/reviews/{row['id']}/decision", CONFIRM)
    assert reviews._checked(stale).state == "confirmed"


def test_a_rule_holds_while_another_project_has_its_turn(shop: Asked) -> None:
    define(shop.home, review=ALL)
    shop.home.plane.definitions.apply(
        shop.home.author, ProjectDefinition("another", digest_of("another"), (), (), (), ())
    )
    waiting(shop, shop.ask())


def test_what_waits_too_long_opens_an_incident_until_somebody_decides(shop: Asked, risk: Api) -> None:
    for row in listed(shop.api, state="pending", limit=1000):
        assert risk.post(f"/api/v1/reviews/{row['id']}/decision", CONFIRM).status_code == 200
    define(shop.home, review=ReviewPolicy(every=True, within_seconds=1))
    (row,) = waiting(shop, shop.ask())

    def late() -> list[Any]:
        return [i for i in shop.home.plane.incidents.open_of(MODEL) if i.kind == "review"]

    eventually(lambda: bool(late()), "it is due after a second")
    assert "1 answer waits for a person longer" in late()[0].reason
    assert risk.post(f"/api/v1/reviews/{row['id']}/decision", CONFIRM).status_code == 200
    eventually(lambda: not late(), "nothing waits any more")
