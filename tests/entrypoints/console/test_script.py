"""Script that somebody stored stays text: in every text of every page, in the model card, under one strict policy.

Here without a browser: a page drawn from payloads has the tags and attributes of one drawn from harmless texts. With one:
`proofs/script.py`, a sample of which stands at the end.
"""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import markdown_it
import pytest
from fastapi import FastAPI

from falaj.entrypoints.console.reader import COOKIE
from falaj.entrypoints.console.security import CONTENT_SECURITY_POLICY
from falaj.entrypoints.control_plane import application
from falaj.governance.identity.guard import _walk
from falaj.lifecycle.evidence.documents.card import card
from proofs._script import PAYLOADS, Tags, text_of
from proofs._script_home import Poisoned, facts, poisoned
from proofs.script import PAGES, REFLECTED, Careless, console
from tests.debian import needed
from tests.lifecycle.house import House

PROOF = Path(__file__).parents[3] / "proofs" / "script.py"


def asked(app: FastAPI, *addresses: str, cookie: str = "c") -> list[httpx.Response]:
    async def ask() -> list[httpx.Response]:
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with httpx.AsyncClient(
            transport=transport, base_url="http://127.0.0.1", cookies={COOKIE: cookie}
        ) as http:
            return [await http.get(a) for a in addresses]

    return asyncio.run(ask())


def some(where: str, shift: int) -> str:
    """A payload for a place."""
    return text_of(PAYLOADS[(int(where) + shift) % len(PAYLOADS)], where, "http://canary")


@pytest.mark.parametrize("states", [False, True])
@pytest.mark.parametrize("shift", [0, 17, 41])
def test_a_page_of_payloads_is_built_like_one_of_words(shift: int, states: bool) -> None:
    """Each text holds another payload; the browser's proof puts every payload into every text."""
    reader = Poisoned()
    app = console(reader, escape=True, policy=True)
    reader.holds(lambda where: f"word {where}", states=states)
    harmless = [Tags(a.text) for a in asked(app, *PAGES)]
    reader.holds(lambda where: some(where, shift), states=states)
    for address, answer, words in zip(PAGES, asked(app, *PAGES), harmless, strict=True):
        tags = Tags(answer.text)
        assert answer.status_code == 200
        assert tags.found == words.found, address
        assert not [t for t in tags.texts if re.match(r"[\x00-\x20]*(javascript|data|vbscript):|https?:|//", t)], (
            address
        )


def test_without_escaping_it_is_not() -> None:
    reader = Poisoned()
    app = console(reader, escape=False, policy=True)
    reader.holds(lambda where: f"word {where}", states=False)
    (harmless,) = asked(app, "/")
    reader.holds(lambda where: text_of(PAYLOADS[0], where, "http://canary"), states=False)
    (answer,) = asked(app, "/")
    assert issubclass(Careless, object) and Tags(answer.text).found != Tags(harmless.text).found


def test_the_policy_lets_nothing_run_that_stands_in_a_page() -> None:
    rules = dict(rule.split(" ", 1) for rule in CONTENT_SECURITY_POLICY.split("; "))
    assert "unsafe" not in CONTENT_SECURITY_POLICY and "*" not in CONTENT_SECURITY_POLICY
    assert {rules[r] for r in ("default-src", "script-src", "style-src", "img-src", "connect-src", "form-action")} == {
        "'self'"
    }
    assert {rules[r] for r in ("object-src", "base-uri", "frame-ancestors")} == {"'none'"}


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    made = House(tmp_path_factory.mktemp("script"))
    made.registered()
    yield made
    made.plane.close()


def test_every_answer_carries_the_policy_and_no_script_of_its_own(house: House) -> None:
    """Every route that gives HTML, with payloads in its address, and what no route has."""
    app = application(house.plane)
    found = {path for path, methods, _ in _walk(app.routes, "") if "GET" in methods and not path.startswith("/api/")}
    addresses = [re.sub(r"{\w+[^}]*}", "flight-delay", path) for path in sorted(found)]
    assert {"/", "/login", "/audit", "/models/flight-delay", "/oidc/callback"} <= set(addresses)
    addresses += [a.replace("{}", "%3Cscript%3Eran(1)%3C/script%3E") for a in REFLECTED]
    cookie = house.plane.sessions.open(house.plane.sessions.link(house.owner))
    pages = 0
    for answer in asked(app, *addresses, cookie=cookie):
        assert answer.headers["content-security-policy"] == CONTENT_SECURITY_POLICY, answer.url
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert "<script>ran" not in answer.text or answer.headers["content-type"] == "application/json"
        if answer.headers.get("content-type", "").startswith("text/html"):
            pages += 1
            tags = Tags(answer.text).found
            assert all("src" in names for tag, names in tags if tag == "script"), answer.url
            assert not [t for t in tags if t[0] == "style" or {"style", "srcdoc"} & set(t[1])], answer.url
            assert not [n for _, names in tags for n in names if n.startswith("on")], answer.url
    assert pages > 15


@pytest.mark.parametrize("shift", range(0, len(PAYLOADS), 4))
def test_a_model_card_of_payloads_has_no_markup_of_theirs(shift: int) -> None:
    """Even for a reader of Markdown that lets markup pass."""
    reader = markdown_it.MarkdownIt("commonmark", {"html": True}).enable("table")
    known = poisoned(facts(), lambda where: some(where, shift), states=True)
    tags = Tags(reader.render(card(known, ())))
    assert {t for t, _ in tags.found} <= {
        "h1",
        "h2",
        "p",
        "table",
        "thead",
        "tbody",
        "tr",
        "th",
        "td",
        "code",
        "pre",
        "ul",
        "li",
        "strong",
        "em",
    }
    assert not tags.texts


@pytest.mark.timeout(600)  # a fresh machine installs the browser first
def test_a_sample_in_a_browser_runs_nothing_and_the_controls_run() -> None:
    needed("chromium", "/usr/bin/chromium")
    done = subprocess.run([sys.executable, PROOF, "--sample"], capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    told = re.search(
        r" (\d+) pages opened, 0 kinds ran, 0 complaints; controls: .*, (\d+) without escaping and policy", done.stdout
    )
    assert told and int(told[1]) > 100 and int(told[2]) > 2, done.stdout
