"""Tables handed over to a house, as its command line does it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx

from tests.lifecycle.house import House


def ask(home: House, who: str, method: str, path: str, **options: Any) -> httpx.Response:
    """Ask the house's API as somebody, with any body."""
    return home.api(who).ask(method, path, **options)


def hand_over(home: House, who: str, table: Path | bytes) -> str:
    """Send a table; the parcel's name."""
    data = table if isinstance(table, bytes) else table.read_bytes()
    answer = ask(home, who, "POST", "/api/v1/tables", content=data)
    assert answer.status_code == 201, answer.text
    return str(answer.json()["name"])
