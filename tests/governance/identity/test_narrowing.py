"""Lists for bound tokens: what is left, what is said of what went wrong, and who is asked what."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest
from fastapi import APIRouter, FastAPI

from falaj.bootstrap.web import make_app
from falaj.governance.identity.guard import Guard
from falaj.governance.identity.narrowing import Own, discreet, rows
from falaj.governance.identity.service import Terms
from falaj.kernel.access import SYSTEM, Principal, Question
from falaj.kernel.errors import Denied, NotFound
from falaj.lifecycle.registry.model import VERSION_READ
from tests.governance.support import Desk

ROWS = [{"name": "north-a", "n": 1}, {"name": "south-a", "n": 2}, {"name": "north-b", "n": 3}]


def _whose(question: Question) -> dict[str, Any]:
    return {"project": question.resource.id.partition("-")[0]} if question.principal.project else {}


class Shop:
    """An application with two lists, asked by people with tokens."""

    def __init__(self, desk: Desk, tmp_path: Any) -> None:
        self._desk = desk
        self.seen: list[str] = []
        guard = Guard(desk.identity, desk.door)
        routes = guard.router("/things", "things")

        @routes.shared("", VERSION_READ, rows("ModelVersion", "name"))
        def things(own: Own | None, most: int = 9) -> list[dict[str, Any]]:
            return [r for r in ROWS if own is None or own("ModelVersion", str(r["name"]))][:most]

        @routes.shared("/names", VERSION_READ, rows("ModelVersion"))
        def names() -> list[str]:
            return [str(r["name"]) for r in ROWS]

        @routes.get("/closed", VERSION_READ)
        def closed() -> list[str]:
            return [str(r["name"]) for r in ROWS]

        @routes.get("/one/{name}", VERSION_READ)
        def one(name: str) -> None:
            raise NotFound(
                f"there is no {name}", hint="there are south-a and south-b", code="nothing_known", details={"a": 1}
            )

        router: APIRouter = routes.router
        self.app: FastAPI = make_app([router], guard, tmp_path)
        desk.informed.learn_from(whose=_whose)

    def ask(self, path: str, *roles: str, project: str = "") -> httpx.Response:
        who = Principal("ann" + project, "person", roles)
        token = self._desk.identity.grant(SYSTEM, who, Terms(1, project=project)).token
        return asyncio.run(self._get(path, {"authorization": f"Bearer {token}"}))

    async def _get(self, path: str, headers: dict[str, str]) -> httpx.Response:
        transport = httpx.ASGITransport(self.app)
        async with httpx.AsyncClient(transport=transport, base_url="http://shop", headers=headers) as http:
            return await http.get(path)


@pytest.fixture
def shop(desk: Desk, tmp_path: Any) -> Shop:
    return Shop(desk, tmp_path)


def test_a_list_is_whole_for_who_is_bound_to_nothing_and_ones_own_for_who_is(shop: Shop) -> None:
    assert shop.ask("/things", "viewer").json() == ROWS
    assert shop.ask("/things", "viewer", project="north").json() == [ROWS[0], ROWS[2]]
    assert shop.ask("/things/names", "viewer", project="south").json() == ["south-a"]
    assert shop.ask("/things/names", "viewer", project="west").json() == []


def test_what_is_left_out_takes_no_place_on_a_page(shop: Shop) -> None:
    assert shop.ask("/things?most=2", "viewer", project="north").json() == [ROWS[0], ROWS[2]]


def test_a_list_that_was_not_taught_stays_closed(shop: Shop) -> None:
    told = shop.ask("/things/closed", "viewer", project="north")
    assert told.status_code == 403 and told.json()["details"]["rules"] == ["within-the-project"]


def test_roles_that_may_not_read_get_no_list_however_short(shop: Shop) -> None:
    for project in ("", "north"):
        assert shop.ask("/things", "service", project=project).status_code == 403


def test_a_refusal_names_nothing_else_to_a_bound_token(shop: Shop) -> None:
    free, bound = (shop.ask("/things/one/north-x", "viewer", project=p).json() for p in ("", "north"))
    assert "south-b" in free["hint"] and free["details"] == {"a": 1}
    assert "south" not in str(bound) and bound["details"] == {} and "falaj errors nothing_known" in bound["hint"]


def test_the_hint_of_a_rule_stays_and_that_of_a_failure_goes() -> None:
    by_rule = Denied("no", hint="someone else", code="denied_by_policy", details={"rules": ["four-eyes"], "errors": []})
    assert discreet(by_rule.as_dict()) == by_rule.as_dict()
    failed = Denied("no", hint="look at south", code="denied_by_policy", details={"rules": ["x"], "errors": ["south"]})
    assert "south" not in str(discreet(failed.as_dict()))


def test_a_single_thing_is_asked_about_with_the_project(shop: Shop) -> None:
    assert shop.ask("/things/one/south-a", "viewer", project="north").status_code == 403
