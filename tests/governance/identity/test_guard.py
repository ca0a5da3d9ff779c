from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Any, cast

import httpx
import pytest
from fastapi import APIRouter, FastAPI, Request, WebSocket
from fastapi.responses import PlainTextResponse
from starlette.applications import Starlette
from starlette.routing import Mount, Route

from falaj.bootstrap.web import make_app
from falaj.governance.identity.guard import PUBLIC, Guard, actor, declare, flow_id
from falaj.governance.identity.peers import spiffe_id
from falaj.kernel.access import Action, Principal
from falaj.kernel.errors import Invalid
from tests.governance.support import ADMIN, Desk

READ = Action("identity.read", "read", "Account", "see")
AUDIT = Action("audit.read", "audit", "AuditLog", "read the log")
GRANT = Action("identity.grant", "administration", "Account", "grant")


def ask(app: FastAPI, method: str, path: str, **more: Any) -> httpx.Response:
    async def send() -> httpx.Response:
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            return await client.request(method, path, **more)

    return asyncio.run(send())


def bearer(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


@pytest.fixture
def guard(desk: Desk) -> Guard:
    return Guard(desk.identity, desk.door)


def token(desk: Desk, *roles: str) -> str:
    return desk.identity.grant(ADMIN, Principal("-".join(roles), "person", roles), 1).token


def small_app(guard: Guard) -> FastAPI:
    routes = guard.router("/api", "test")

    @routes.get("/things/{name}", READ)
    def read(name: str) -> dict[str, str]:
        return {"read": name}

    @routes.get("/log", AUDIT)
    def log() -> dict[str, str]:
        return {"read": "log"}

    @routes.post("/things", GRANT)
    def change(body: dict[str, int]) -> dict[str, int]:
        return body

    @routes.delete("/things/{name}", GRANT)
    def remove(name: str) -> dict[str, str]:
        return {"removed": name}

    return make_app([routes.router], guard, Path("home"))


def test_a_token_is_good_only_over_its_own_principals_certificate(desk: Desk, guard: Guard) -> None:
    app, own = small_app(guard), bearer(token(desk, "viewer"))

    def over(identity: str) -> FastAPI:
        async def known(scope: Any, receive: Any, send: Any) -> None:  # as the TLS listener tells it
            await app({**scope, "state": {"peer": spiffe_id(f"spiffe://example.org/{identity}")}}, receive, send)

        return cast(FastAPI, known)

    assert ask(app, "GET", "/api/things/x", headers=own).status_code == 200
    assert ask(over("operator/viewer"), "GET", "/api/things/x", headers=own).status_code == 200
    for other in ("operator/eve", "control-plane", "caller/production/viewer"):
        refused = ask(over(other), "GET", "/api/things/x", headers=own)
        assert (refused.status_code, refused.json()["code"]) == (403, "certificate_of_another")


def test_reads_are_authorised_before_the_route_runs(desk: Desk, guard: Guard) -> None:
    app = small_app(guard)
    viewer, service = token(desk, "viewer"), token(desk, "service")
    assert ask(app, "GET", "/api/things/a", headers=bearer(viewer)).json() == {"read": "a"}
    assert ask(app, "GET", "/api/things/a", headers=bearer(service)).status_code == 403
    assert ask(app, "GET", "/api/log", headers=bearer(viewer)).status_code == 403
    assert ask(app, "GET", "/api/log", headers=bearer(token(desk, "auditor"))).status_code == 200
    denied = desk.entries(outcome="denied")
    assert [(e.principal, e.resource_id) for e in denied] == [("service", "a"), ("viewer", "*")]


@pytest.mark.parametrize("header", [None, "", "Bearer", "Bearer x", "Basic b3duZXI6b3duZXI="])
@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/api/things/a"), ("GET", "/api/log"), ("POST", "/api/things"), ("DELETE", "/api/things/a")],
)
def test_without_a_token_nothing_runs(guard: Guard, header: str | None, method: str, path: str) -> None:
    headers = {} if header is None else {"authorization": header}
    answer = ask(small_app(guard), method, path, headers=headers, json={"a": 1} if method == "POST" else None)
    assert answer.status_code == 401
    assert answer.json()["hint"]


def test_a_token_elsewhere_than_in_the_header_is_none(desk: Desk, guard: Guard) -> None:
    app, good = small_app(guard), token(desk, "viewer")
    assert ask(app, "GET", f"/api/things/a?token={good}&access_token={good}").status_code == 401
    assert ask(app, "GET", "/api/things/a", headers={"cookie": f"token={good}; session={good}"}).status_code == 401
    assert ask(app, "GET", "/api/things/a", headers={"x-api-key": good}).status_code == 401


def test_a_revoked_token_is_refused_by_the_next_request(desk: Desk, guard: Guard) -> None:
    app = small_app(guard)
    given = desk.identity.grant(ADMIN, Principal("vic", "person", ("viewer",)), 1)
    assert ask(app, "GET", "/api/things/a", headers=bearer(given.token)).status_code == 200
    desk.identity.revoke(ADMIN, given.id)
    assert ask(app, "GET", "/api/things/a", headers=bearer(given.token)).status_code == 401


def test_health_is_open_and_says_nothing_about_anyone(guard: Guard) -> None:
    assert ask(small_app(guard), "GET", "/health").json() == {"status": "ok"}


def undeclared_router() -> APIRouter:
    router = APIRouter(prefix="/side")

    @router.get("/door")
    def door() -> str:
        return "open"

    return router


def nested() -> APIRouter:
    outer = APIRouter(prefix="/outer")
    outer.include_router(undeclared_router())
    return outer


def socket_router() -> APIRouter:
    router = APIRouter()

    @router.websocket("/socket")
    async def talk(socket: WebSocket) -> None:
        await socket.close()

    return router


def mounted() -> APIRouter:
    router = APIRouter()
    router.mount("/mounted", Starlette(routes=[Route("/deep", lambda _request: PlainTextResponse("open"))]))
    return router


def mounted_whole() -> APIRouter:
    router = APIRouter()
    router.routes.append(Mount("/files", app=PlainTextResponse("open")))
    return router


@pytest.mark.parametrize("make", [undeclared_router, nested, socket_router, mounted, mounted_whole])
def test_a_route_that_names_no_action_stops_the_start(guard: Guard, make: Any) -> None:
    with pytest.raises(Invalid) as refused:
        make_app([make()], guard, Path("home"))
    assert refused.value.code == "undeclared_route"
    assert any(part in refused.value.message for part in ("/side/door", "/socket", "/mounted/deep", "/files"))


def test_routes_of_a_guard_start(guard: Guard) -> None:
    assert guard.undeclared(small_app(guard)) == []
    assert guard.declared["POST", "/api/things"] == GRANT
    assert guard.declared["GET", "/health"] == PUBLIC


def test_fastapis_own_pages_are_off(guard: Guard) -> None:
    app = small_app(guard)
    for path in ("/docs", "/redoc", "/openapi.json", "/docs/oauth2-redirect"):
        assert ask(app, "GET", path).status_code == 404


def test_an_endpoint_serves_one_action() -> None:
    def endpoint() -> None: ...

    declare(endpoint, READ)
    declare(endpoint, READ)
    with pytest.raises(Invalid, match="already declares"):
        declare(endpoint, GRANT)


def test_a_body_that_is_not_acceptable_is_explained(desk: Desk, guard: Guard) -> None:
    app, headers = small_app(guard), bearer(token(desk, "viewer"))
    answer = ask(app, "POST", "/api/things", headers=headers, json={"a": "x"})
    assert (answer.status_code, answer.json()["code"]) == (422, "bad_request")
    assert ask(app, "GET", "/nowhere", headers=headers).json()["code"] == "no_route"


def test_the_route_knows_who_asks(desk: Desk, guard: Guard) -> None:
    routes = guard.router("/api", "test")

    @routes.get("/me", READ)
    def me(request: Any) -> dict[str, str]:
        return {"name": actor(request).name}

    assert (("GET", "/api/me") in guard.declared) and me is not None


def test_a_request_that_is_repeated_under_its_key_means_the_same_flow(desk: Desk) -> None:
    now = desk.clock.now()

    def flow(path: str = "/api/v1/models/m/builds", who: str = "ada", key: str = "") -> str:
        headers = [(b"idempotency-key", key.encode())] if key else []
        request = Request({"type": "http", "method": "POST", "path": path, "headers": headers, "query_string": b""})
        request.state.principal = Principal(who, "person", ())
        return flow_id(request, "bld", now)

    first = flow(key="7f0c")
    assert first == flow(key="7f0c") and re.fullmatch(r"bld_[0-9a-hjkmnp-tv-z]{26}", first)
    others = {flow(key="7f0d"), flow(who="bob", key="7f0c"), flow(path="/api/v1/models/n/builds", key="7f0c")}
    assert len({first, *others, flow(), flow()}) == 6
    with pytest.raises(Invalid) as refused:
        flow(key="k" * 201)
    assert refused.value.code == "bad_idempotency_key"
