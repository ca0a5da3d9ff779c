"""What a new home starts with: one administrator, nobody's default, and a link that opens the console once."""

from __future__ import annotations

from pathlib import Path

import httpx

from falaj.entrypoints.console.reader import COOKIE
from tests.entrypoints.cli.shell import Shell, cleaned


def test_the_first_start_shows_a_link_that_opens_the_console_once(tmp_path: Path) -> None:
    shell = Shell(tmp_path, FALAJ_HOME=str(tmp_path / ".falaj"))
    with cleaned(tmp_path):
        started = shell.done("up")
        address, _, code = started["console"].partition("/login?code=")
        assert address == started["control_plane"] and len(code) >= 32
        ours = {"sec-fetch-site": "same-origin"}
        with httpx.Client(base_url=address) as browser:
            assert browser.get("/").headers["location"] == "/login", "nobody is signed in by default"
            opened = browser.post("/login", data={"code": code}, headers=ours)
            assert opened.status_code == 303 and COOKIE in opened.cookies
            assert "owner" in browser.get("/").text
        with httpx.Client(base_url=address) as other:
            again = other.post("/login", data={"code": code}, headers=ours)
            assert again.status_code == 403 and COOKIE not in again.cookies
        assert "console" not in shell.done("up"), "only the first start shows one"
        assert [(t["principal"], t["roles"]) for t in shell.done("token", "list")] == [("owner", ["platform-admin"])]
        assert shell("down").code == 0
