"""What nobody should send to the control plane: every route, with and without a token, refuses clearly and never fails."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Iterator

import httpx
import pytest
from fastapi import FastAPI

from falaj.entrypoints.control_plane import application
from falaj.governance.identity.guard import MAX_BODY, PUBLIC, _walk
from falaj.kernel.access import SYSTEM
from tests.lifecycle.house import House

DEEP = 100_000
BODIES: tuple[bytes, ...] = (
    b"", b"null", b"true", b"5", b'""', b"[]", b"{}", b"[{}]", b"{", b'{"a":', b"\xff\xfe", b"\xef\xbb\xbf{}", b'{"a":NaN}', b'{"a":1e999}',
    b'{"a":"\\ud800"}', b'{"a":"\x00"}', b"[" * DEEP, b'{"a":' * DEEP, b"9" * 5000, b'{"a":' + b"9" * 5000 + b"}", b"a=b&c=d", b"<x/>",
)  # fmt: skip
VALUES: tuple[bytes, ...] = (
    b"null", b"true", b"-1", b"0", b"1.5", b"NaN", b"Infinity", b"-Infinity", b"1e999", b"9" * 4000, b'""', b'"x"', b'"\\ud800"', b'"\\u0000"', b'"a\\nb"',
    b'"../../etc/passwd"', b'"' + b"x" * 20_000 + b'"', b"[]", b"{}", b"[null]", b'[{"a":NaN}]', b'{"a":{"a":[NaN]}}', b'["\\ud800"]', b'"2013-01-01"',
    b'"99999-01-01T00:00:00Z"', b'"2013-01-01T00:00:00"', b"[[]]", b"[1e999]",
)  # fmt: skip
NAMES = (
    "flight-delay",
    "flight-delay@1",
    "x",
    "%2e%2e",
    "%00",
    "%ff",
    "a%0ab",
    "x" * 3000,
    "sha256:" + "0" * 64,
    "-1",
    "9" * 40,
    "%ED%A0%80",
    "'\"<>",
    "é",
)


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    made = House(tmp_path_factory.mktemp("hostile"))
    made.registered()
    yield made
    made.plane.close()


class Battery:
    """Asks every route of the API, and remembers what was no clear answer."""

    def __init__(self, app: FastAPI, token: str) -> None:
        self._transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        self._token = {"authorization": f"Bearer {token}"}
        self.complaints: list[str] = []
        self.asked = 0

    async def run(self, routes: list[tuple[str, str, tuple[str, ...]]]) -> None:
        chance = random.Random(5)
        async with httpx.AsyncClient(transport=self._transport, base_url="http://127.0.0.1") as http:
            for method, path, fields in routes:
                for name in chance.sample(NAMES, 5):
                    await self.ask(http, method, path, name, b"{}", self._token)
                for body in BODIES if method != "GET" else BODIES[:1]:
                    await self.ask(http, method, path, "flight-delay", body, self._token)
                    if chance.random() < 0.3:
                        await self.ask(http, method, path, chance.choice(NAMES), body, {})
                for field in fields:
                    for value in chance.sample(VALUES, 12):
                        body = (
                            b"{"
                            + b",".join(
                                b'"%s":%s'
                                % (f.encode(), value if f == field else chance.choice(VALUES + (b'"x"',) * 40))
                                for f in fields
                            )
                            + b"}"
                        )
                        await self.ask(http, method, path, "flight-delay", body, self._token)

    async def ask(
        self, http: httpx.AsyncClient, method: str, path: str, name: str, body: bytes, headers: dict[str, str]
    ) -> None:
        for part in [p for p in path.split("/") if p.startswith("{")]:
            path = path.replace(part, name)
        url = httpx.URL(f"http://127.0.0.1{path}")
        answer = await http.request(method, url, content=body, headers={"content-type": "application/json", **headers})
        self.asked += 1
        if answer.status_code < 400:
            return
        try:
            said = answer.json()
        except ValueError:
            said = {}
        clear = all(said.get(k) for k in ("error", "code", "hint")) and "Traceback" not in answer.text
        no_route = said.get("code") == "no_route"
        wanted = answer.status_code if headers or no_route else 401
        nowhere = no_route and not any(n in path for n in ("%", "'", "é"))
        if answer.status_code >= 500 or not clear or answer.status_code != wanted or nowhere:
            self.complaints.append(f"{method} {path[:80]} {body[:150]!r}: {answer.status_code} {answer.text[:300]}")


def test_no_body_is_read_of_somebody_unknown_and_none_without_end(house: House) -> None:
    """Chunks are read until the limit, and not one before a token was seen."""
    app, read = application(house.plane), 0
    token = house.plane.identity.grant(SYSTEM, house.owner, 1).token

    async def endless() -> AsyncIterator[bytes]:
        nonlocal read
        while True:
            read += 1
            yield b" " * (1 << 20)

    async def ask(headers: dict[str, str]) -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://127.0.0.1") as http:
            return await http.post("/api/v1/models/flight-delay/labels", content=endless(), headers=headers)

    assert asyncio.run(ask({})).json()["code"] == "no_token"
    assert read == 0
    answer = asyncio.run(ask({"authorization": f"Bearer {token}"}))
    assert (answer.status_code, answer.json()["code"]) == (413, "too_large")
    assert read == (MAX_BODY >> 20) + 1


def routes_of(app: FastAPI) -> list[tuple[str, str, tuple[str, ...]]]:
    """(method, path, the members of its body) of every route that needs a token and answers at once."""
    found: list[tuple[str, str, tuple[str, ...]]] = []
    for path, methods, route in _walk(app.routes, ""):
        kind = getattr(getattr(getattr(route, "body_field", None), "field_info", None), "annotation", None)
        if (
            path.startswith("/api/")
            and getattr(getattr(route, "endpoint", None), "__falaj_action__", None) is not PUBLIC
        ):
            found += [(m, path, tuple(getattr(kind, "model_fields", {}))) for m in methods - {"HEAD"}]
    return sorted(found)


def test_every_route_refuses_clearly(house: House) -> None:
    app = application(house.plane)
    token = house.plane.identity.grant(SYSTEM, house.owner, 1).token
    battery = Battery(app, token)
    asyncio.run(battery.run(routes_of(app)))
    assert not battery.complaints, battery.complaints[:3]
    assert battery.asked > 1000
