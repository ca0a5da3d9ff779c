"""Tables handed over to a house, as its command line does it."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import httpx

from falaj.kernel.access import SYSTEM
from tests.lifecycle.house import House


def ask(home: House, who: str, method: str, path: str, **options: Any) -> httpx.Response:
    """Ask the house's API as somebody, with any body."""
    token = home.plane.identity.grant(SYSTEM, home.plane.identity.principal(who), 1).token

    async def asked() -> httpx.Response:
        transport = httpx.ASGITransport(home.plane.app())
        headers = {"Authorization": f"Bearer {token}"}
        async with httpx.AsyncClient(transport=transport, base_url="http://home", headers=headers) as http:
            return await http.request(method, path, **options)

    return asyncio.run(asked())


def hand_over(home: House, who: str, table: Path | bytes) -> str:
    """Send a table; the parcel's name."""
    data = table if isinstance(table, bytes) else table.read_bytes()
    answer = ask(home, who, "POST", "/api/v1/tables", content=data)
    assert answer.status_code == 201, answer.text
    return str(answer.json()["name"])
