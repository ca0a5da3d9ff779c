"""Every route of the real application, walked."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any, get_args, get_origin

import httpx
import pytest
from fastapi import FastAPI
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from starlette.routing import BaseRoute

from falaj.authoring.project import load_project
from falaj.bootstrap import api
from falaj.bootstrap.control_plane import ControlPlane
from falaj.governance.identity.guard import PUBLIC
from falaj.kernel.access import SYSTEM, Action, Principal
from falaj.kernel.settings import load_settings

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND")

SIGN_IN = {("POST", "/api/v1/sign-in/device"), ("POST", "/api/v1/sign-in/device/token")}


class Walk:
    """The application of a fresh home, with a viewer's and an administrator's token."""

    def __init__(self, home: Path) -> None:
        self.plane = ControlPlane(load_settings({}, home))
        self.app: FastAPI = api.build(self.plane)
        grant = self.plane.identity.grant
        self.tokens = {
            role: grant(SYSTEM, Principal(role, "person", (role,)), 1).token
            for role in ("viewer", "service", "platform-admin")
        }
        self.declared = self.plane.guard.declared
        definition = load_project(Path(__file__).parents[2] / "authoring" / "tiny").definition()
        self.plane.definitions.apply(Principal("owner", "person", ("platform-admin",)), definition)
        self.names = {
            "model": definition.models[0].name,
            "view": definition.views[0].name,
            "name": definition.sources[0].name,
            "number": "1",
        }

    def concrete(self, path: str) -> str:
        """A path that names things of the applied project, where the route says what they are."""
        return re.sub(r"\{(\w+)(:\w+)?\}", lambda m: self.names.get(m[1], "x"), path)

    def ask(self, requests: list[tuple[str, str, Any]], token: str = "") -> list[httpx.Response]:
        """Answers to (method, path, body), in order."""
        headers = {"authorization": f"Bearer {token}"} if token else {}

        async def send() -> list[httpx.Response]:
            transport = httpx.ASGITransport(self.app, raise_app_exceptions=False)
            async with httpx.AsyncClient(transport=transport, base_url="http://localhost", headers=headers) as client:
                answers = [await client.request(m, p, json=b) for m, p, b in requests]
            await self.plane.steps.dismiss()  # this loop ends here
            return answers

        return asyncio.run(send())

    def of(self, *groups: str) -> list[tuple[str, str, Action]]:
        """(method, path, action) of the declared routes of some groups."""
        return [(m, p, a) for (m, p), a in self.declared.items() if a.group in groups and a != PUBLIC]


@pytest.fixture(scope="module")
def walk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Walk]:
    made = Walk(tmp_path_factory.mktemp("home"))
    yield made
    made.plane.close()


def matches(declared: str, path: str) -> bool:
    """Whether a path is one of those that a route declares."""
    return re.fullmatch(re.sub(r"\{\w+(:path)?\}", lambda m: ".+" if m[1] else "[^/]+", declared), path) is not None


def flat(routes: list[BaseRoute]) -> Iterator[tuple[str, Any]]:
    for route in routes:
        included = getattr(route, "original_router", None)
        if included is not None:
            yield from flat(included.routes)
        else:
            yield str(getattr(route, "path", "?")), route


def body_of(walk: Walk, method: str, path: str) -> Any:
    """A body that passes the route's own checks, so that authorisation is what answers."""
    for at, route in flat(walk.app.routes):
        if at == path and method in route.methods and route.dependant.body_params:
            return sample(route.dependant.body_params[0].field_info.annotation)
    return None


def sample(model: type[BaseModel]) -> dict[str, Any]:
    return {name: value_of(field) for name, field in model.model_fields.items() if field.is_required()}


def value_of(field: FieldInfo) -> Any:
    """Any value that the field accepts; of a choice, its first."""
    pattern = next((m.pattern for m in field.metadata if getattr(m, "pattern", None)), "")
    choice = re.search(r"\(([^)|]+)", pattern)
    if choice:
        return choice[1]
    return any_of(field.annotation)


def any_of(kind: Any) -> Any:
    if get_origin(kind) is list:
        return [any_of(get_args(kind)[0])]
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return sample(kind)
    return {str: "viewer", int: 1, float: 1.0, bool: True, datetime: "2026-01-01T00:00:00Z"}.get(kind, {})


def test_the_walk_sees_the_whole_application(walk: Walk) -> None:
    seen = {(m, at) for at, route in flat(walk.app.routes) for m in route.methods}
    assert seen == set(walk.declared)
    assert len(seen) > 25
    assert {key for key, action in walk.declared.items() if action == PUBLIC} == {("GET", "/health"), *SIGN_IN}
    assert walk.plane.guard.undeclared(walk.app) == []


def test_without_a_token_every_route_answers_401_and_every_other_method_405(walk: Walk) -> None:
    paths = sorted({p for _, p in walk.declared})
    requests = [(m, walk.concrete(p), None) for p in paths for m in METHODS]
    for (method, path, _), answer in zip(requests, walk.ask(requests), strict=True):
        declared = {m for m, p in walk.declared if matches(p, path)}
        if path == "/health" and method == "GET":
            assert answer.status_code == 200
        elif (method, path) in SIGN_IN:  # open, and there is no provider: nobody gets further
            assert answer.status_code in (401, 422) and "token" not in answer.json()
        else:
            assert answer.status_code == (401 if method in declared else 405), (method, path, answer.text)


@pytest.mark.parametrize("token", ["x", "falaj_0000000000000000_" + "A" * 43 + "_00000000", "a.b.c"])
def test_a_bad_token_is_no_better_than_none(walk: Walk, token: str) -> None:
    requests = [(m, walk.concrete(p), body_of(walk, m, p)) for (m, p), a in walk.declared.items() if a != PUBLIC]
    assert {a.status_code for a in walk.ask(requests, token)} == {401}


def test_a_viewer_changes_nothing(walk: Walk) -> None:
    before = walk.plane.audit.size()
    routes = walk.of("engineering", "risk", "administration", "audit", "inference", "system")
    requests = [(m, walk.concrete(p), body_of(walk, m, p)) for m, p, _ in routes]
    answers = walk.ask(requests, walk.tokens["viewer"])
    for (method, path, _), answer in zip(requests, answers, strict=True):
        # Not 403 where a route looks first whether what it is about exists, or can be read at all.
        assert answer.status_code in (403, 404, 409, 422), (method, path, answer.text)
        assert answer.json()["hint"]
    assert sum(a.status_code == 403 for a in answers) > len(answers) / 2
    assert walk.plane.audit.size() - before >= 8  # and each denial is in the log
    everyone = walk.ask(requests, walk.tokens["platform-admin"])
    assert sum(a.status_code != 403 for a in everyone) > len(everyone) / 2  # else the walk would prove nothing


def test_a_service_reads_nothing(walk: Walk) -> None:
    requests = [(m, walk.concrete(p), body_of(walk, m, p)) for m, p, _ in walk.of("read", "audit")]
    answers = walk.ask(requests, walk.tokens["service"])
    assert {a.status_code for a in answers} == {403}
    assert len(answers) > 10


def test_nobodys_code_runs_before_it_is_authorised(walk: Walk, tmp_path: Path) -> None:
    """Describing a project imports it."""
    trap = tmp_path / "ran"
    files = {
        "falaj.toml": '[project]\nname = "trap"\n',
        "trap.py": f"open({str(trap)!r}, 'w').close()\n",
    }
    requests = [("POST", p, {"files": files}) for p in ("/api/v1/definition", "/api/v1/definition/plan")]
    for role in ("viewer", "service"):
        assert [a.status_code for a in walk.ask(requests, walk.tokens[role])] == [403, 403]
    assert not trap.exists()
    assert [a.status_code for a in walk.ask(requests[:1], walk.tokens["platform-admin"])] == [422]
    assert trap.exists()  # so the trap works


def test_hostile_names_in_paths_reach_no_file(walk: Walk) -> None:
    names = [
        "..%2f..%2fkeys%2fkek.bin",
        "%2e%2e%2f%2e%2e",
        "..%5c..%5c",
        "%00",
        "sha256:..%2f",
        "a%0a",
        "%c0%ae%c0%ae%2f",
    ]
    paths = [p for m, p in walk.declared if m == "GET" and "{" in p and "/flows/" not in p]  # no engine runs
    requests = [("GET", re.sub(r"\{[^}]*\}", name, p), None) for p in paths for name in names]
    secrets = [path.read_bytes() for path in walk.plane.layout.keys.iterdir()]
    for request, answer in zip(requests, walk.ask(requests, walk.tokens["platform-admin"]), strict=True):
        assert answer.status_code < 500, (request, answer.text)
        assert answer.headers.get("location", "http://localhost/").startswith("http://localhost/")
        assert not any(secret in answer.content for secret in secrets)
    assert len(requests) > 30
