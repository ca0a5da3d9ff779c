"""Signing in with a real provider, from the button to the session and back out again."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest

from falaj.bootstrap.control_plane import ControlPlane
from falaj.entrypoints.console.oidc import BINDING
from falaj.entrypoints.console.reader import COOKIE
from falaj.entrypoints.control_plane import application
from falaj.governance.audit.model import Conditions
from falaj.governance.identity.oidc import keys
from falaj.governance.identity.ports import External
from falaj.kernel.access import SYSTEM
from falaj.kernel.settings import Settings
from tests.governance.identity.forged import Forge, id_tokens
from tests.governance.support import StillClock
from tests.provider.relay import Relay
from tests.provider.running import CLIENT, SECRET, RunningProvider, signing_key

CONSOLE = "http://127.0.0.1:4321"
BACK = f"{CONSOLE}/oidc/callback"
GROUPS = "engineers=ml-engineer; engineers=viewer; risk=risk-officer; a=b=auditor"
OURS = {"sec-fetch-site": "same-origin"}

pytestmark = pytest.mark.timeout(300)  # npm may have to be asked for the provider


class Home:
    """A home with a provider, asked without a socket as a browser would; what it keeps are its cookies."""

    def __init__(self, folder: Path, relay: Relay, **more: Any) -> None:
        settings = Settings(
            home=folder / "home", project=folder, oidc_issuer=relay.issuer, oidc_client_id=CLIENT,
            oidc_client_secret=SECRET, oidc_groups=GROUPS, oidc_scopes="openid profile groups", **more,
        )  # fmt: skip
        self.plane = ControlPlane(settings)
        self.app = application(self.plane)
        self.cookies: dict[str, str] = {}

    def ask(self, method: str, path: str, **more: Any) -> httpx.Response:
        async def send() -> httpx.Response:
            transport = httpx.ASGITransport(self.app, raise_app_exceptions=False)
            async with httpx.AsyncClient(transport=transport, base_url=CONSOLE, cookies=self.cookies) as browser:
                answer = await browser.request(method, path, **more)
            await self.plane.steps.dismiss()  # this loop ends here
            return answer

        answer = asyncio.run(send())
        for cookie in answer.headers.get_list("set-cookie"):
            name, _, value = cookie.partition(";")[0].partition("=")
            self.cookies[name] = value.strip('"')
            if not self.cookies[name]:
                del self.cookies[name]
        return answer

    def begin(self) -> str:
        """Where the console's button leads."""
        answer = self.ask("GET", "/oidc/login")
        assert answer.status_code == 303, answer.text
        return answer.headers["location"]

    def come_back(self, address: str) -> httpx.Response:
        """Be sent back from the provider."""
        assert address.startswith(BACK), address
        return self.ask("GET", address.removeprefix(CONSOLE))

    def who(self) -> str:
        """Who the console says is signed in; empty for nobody."""
        found = self.plane.sessions.principal(self.cookies.get(COOKIE, ""))
        return found.name if found else ""

    def log(self, action: str) -> list[Any]:
        return [f.entry for f in self.plane.audit.search(Conditions(action=action, limit=100))]


@pytest.fixture(scope="module")
def relay() -> Iterator[Relay]:
    with Relay() as made:
        yield made


@pytest.fixture(scope="module")
def provider(relay: Relay, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningProvider]:
    made = RunningProvider(tmp_path_factory.mktemp("provider"), [BACK], relay.issuer)
    relay.port = made.port
    yield made
    made.stop()


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory, relay: Relay, provider: RunningProvider) -> Iterator[Home]:
    made = Home(tmp_path_factory.mktemp("home"), relay)
    made.plane._first_principal()
    yield made
    made.plane.close()


@pytest.fixture
def home(opened: Home, relay: Relay, provider: RunningProvider) -> Iterator[Home]:
    opened.cookies.clear()
    for name, groups in {"alice": ["engineers", "others"], "rita": ["risk"], "nobody": ["others"]}.items():
        provider.account(name, groups)
    yield opened
    relay.tamper = None
    relay.override = {}


def sign_in(home: Home, provider: RunningProvider, account: str = "alice") -> httpx.Response:
    return home.come_back(provider.authorize(home.begin(), account))


def test_a_person_signs_in_and_their_groups_are_their_roles(home: Home, provider: RunningProvider) -> None:
    login = home.ask("GET", "/login")
    assert 'href="/oidc/login"' in login.text and "falaj console" in login.text, "both ways are offered"
    address = home.begin()
    asked = {k: v for k, (v,) in parse_qs(urlsplit(address).query).items()}
    assert asked["code_challenge_method"] == "S256" and len(asked["code_challenge"]) == 43
    assert asked["redirect_uri"] == BACK and len(asked["state"]) >= 43 and len(asked["nonce"]) >= 43
    answer = home.come_back(provider.authorize(address, "alice"))
    assert answer.status_code == 200 and 'http-equiv="refresh" content="0;url=/"' in answer.text
    (session,) = [c for c in answer.headers.get_list("set-cookie") if c.startswith(COOKIE)]
    assert "HttpOnly" in session and "SameSite=strict" in session
    assert home.who() == "oidc:alice" and BINDING not in home.cookies
    assert home.plane.identity.principal("oidc:alice").roles == ("viewer", "ml-engineer")
    assert home.plane.identity.display("oidc:alice") == "Alice"
    assert home.ask("GET", "/").status_code == 200
    assert home.ask("GET", "/audit").status_code == 403, "no more than the roles give"
    entry = home.log("identity.sign_in")[0]
    assert (entry.resource_id, entry.outcome, entry.principal) == ("oidc:alice", "done", SYSTEM.name)
    assert entry.detail["roles"] == ["viewer", "ml-engineer"] and "Alice" not in str(entry.detail)


def test_the_binding_cookie_is_for_the_way_back_only(home: Home) -> None:
    (cookie,) = home.ask("GET", "/oidc/login").headers.get_list("set-cookie")
    assert "HttpOnly" in cookie and "SameSite=lax" in cookie and "Path=/oidc" in cookie and "Max-Age=600" in cookie
    (cookie,) = home.ask("GET", "/oidc/login", headers={"x": "y"}).headers.get_list("set-cookie")
    assert cookie.startswith(BINDING)


def test_signing_out_ends_the_session_and_its_token(home: Home, provider: RunningProvider) -> None:
    sign_in(home, provider)
    (token,) = [
        t.id for t in home.plane.identity.known_tokens() if t.id == home.log("identity.sign_in")[0].detail["token"]
    ]
    kept = dict(home.cookies)
    assert home.ask("POST", "/logout", headers=OURS).status_code == 303
    home.cookies = kept
    assert home.who() == "" and home.ask("GET", "/").status_code == 303
    assert not home.plane.identity.knows(token)
    entry = home.log("identity.sign_out")[0]
    assert (entry.resource_id, entry.detail["on_behalf_of"]) == (token, "oidc:alice")


def test_a_session_ends_with_its_token(home: Home, provider: RunningProvider) -> None:
    sign_in(home, provider)
    assert home.who() == "oidc:alice"
    home.plane.identity.revoke(home.plane.identity.principal("owner"), home.log("identity.sign_in")[0].detail["token"])
    assert home.who() == "" and home.ask("GET", "/").status_code == 303


def test_nobody_gets_in_without_a_group_and_who_lost_theirs_loses_everything(
    home: Home, provider: RunningProvider
) -> None:
    refused = sign_in(home, provider, "nobody")
    assert refused.status_code == 403 and "is in no group that has a role here" in refused.text
    assert home.who() == "" and "no_mapped_group" in refused.text
    assert home.log("identity.sign_in")[0].outcome == "refused"
    assert not [p for p in home.plane.identity.principals() if p.name == "oidc:nobody"]
    assert sign_in(home, provider, "rita").status_code == 200
    session, home.cookies = home.cookies, {}
    provider.account("rita", ["others"])
    assert sign_in(home, provider, "rita").status_code == 403
    home.cookies = session
    assert home.who() == "" and home.plane.identity.principal("oidc:rita").roles == ()
    assert not [t for t in home.plane.identity.known_tokens() if t.principal == "oidc:rita"]
    assert home.log("identity.withdraw")[0].resource_id == "oidc:rita"


def test_roles_follow_the_groups_at_each_sign_in(home: Home, provider: RunningProvider) -> None:
    sign_in(home, provider)
    provider.account("alice", ["risk", "a=b"])
    sign_in(home, provider)
    assert home.plane.identity.principal("oidc:alice").roles == ("risk-officer", "auditor")


def test_what_the_person_declines_is_told_as_a_page(home: Home, provider: RunningProvider) -> None:
    answer = home.come_back(provider.authorize(home.begin(), "alice", refuse=True))
    assert answer.status_code == 403 and "the identity provider said no: access_denied" in answer.text
    assert 'href="/oidc/login"' in answer.text and home.who() == ""


def test_a_sign_in_is_good_once_and_in_its_own_browser(home: Home, provider: RunningProvider) -> None:
    back = provider.authorize(home.begin(), "alice")
    binding = home.cookies.pop(BINDING)
    assert home.come_back(back).status_code == 403, "another browser: no cookie"
    home.cookies[BINDING] = binding
    assert home.come_back(back).status_code == 403, "and that used it up"
    back = provider.authorize(home.begin(), "alice")
    kept = dict(home.cookies)
    assert home.come_back(back).status_code == 200
    home.cookies = kept
    assert home.come_back(back).status_code == 403, "the state was used"
    other = parse_qs(urlsplit(provider.authorize(home.begin(), "alice")).query)["state"][0]
    code = parse_qs(urlsplit(back).query)["code"][0]
    issuer = home.plane.settings.oidc_issuer
    again = home.ask("GET", "/oidc/callback", params={"state": other, "code": code, "iss": issuer})
    assert again.status_code == 403 and "invalid_grant" in again.text, "the code was used"
    assert home.who() == ""


@pytest.mark.parametrize(
    "change",
    [
        {"state": "x"}, {"state": None}, {"code": None}, {"code": "x"}, {"iss": "https://evil.example"}, {"iss": None},
        {"code": "x" * 5000},
    ],
)  # fmt: skip
def test_a_changed_answer_opens_nothing(home: Home, provider: RunningProvider, change: dict[str, Any]) -> None:
    told = {k: v for k, (v,) in parse_qs(urlsplit(provider.authorize(home.begin(), "alice")).query).items()}
    params = {k: v for k, v in {**told, **change}.items() if v is not None}
    answer = home.ask("GET", "/oidc/callback", params=params)
    assert answer.status_code in (403, 422) and home.who() == ""
    twice = home.ask("GET", "/oidc/callback", params=[*told.items(), ("state", told["state"])])
    assert (twice.status_code, home.who()) == (422, "")


def test_a_code_of_another_sign_in_is_not_taken(home: Home, provider: RunningProvider) -> None:
    """PKCE: a stolen code is worth nothing without the verifier that stays here."""
    first = parse_qs(urlsplit(provider.authorize(home.begin(), "alice")).query)
    second = parse_qs(urlsplit(provider.authorize(home.begin(), "alice")).query)
    params = {"state": second["state"][0], "code": first["code"][0], "iss": second["iss"][0]}
    assert home.ask("GET", "/oidc/callback", params=params).status_code == 403 and home.who() == ""


def test_what_the_provider_says_wrongly_is_not_believed(home: Home, provider: RunningProvider, relay: Relay) -> None:
    """A sample of the proof's tokens: the proof sends them all (`make prove NAME=tokens`)."""
    forge = Forge(relay.issuer, CLIENT, SECRET, provider.keys[0])
    names = [name for name, _ in id_tokens(forge, "any")][::12]
    for name in names:

        def tamper(told: dict[str, Any], name: str = name) -> dict[str, Any]:
            return {**told, "id_token": dict(id_tokens(forge, relay.nonce))[name]}

        relay.tamper = tamper
        answer = sign_in(home, provider)
        assert (answer.status_code, home.who()) == (401, ""), name
        assert home.log("identity.sign_in")[0].outcome == "refused"
    relay.tamper = lambda told: {**told, "id_token": forge.good(relay.nonce)}
    assert sign_in(home, provider).status_code == 200 and home.who() == "oidc:alice"
    assert len(names) >= 12


def test_a_rotation_of_the_providers_keys_is_noticed(
    home: Home, provider: RunningProvider, relay: Relay, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert sign_in(home, provider).status_code == 200
    monkeypatch.setattr(keys, "AGAIN", keys.AGAIN * 0)  # another test's unknown key may just have made us ask
    before, fetched = provider.keys[0], relay.asked["/jwks"]
    provider.rotate(signing_key("second"))
    try:
        assert sign_in(home, provider).status_code == 200
        assert relay.asked["/jwks"] == fetched + 1
        old = Forge(relay.issuer, CLIENT, SECRET, before)
        relay.tamper = lambda told: {**told, "id_token": old.good(relay.nonce)}
        assert sign_in(home, provider).status_code == 401
    finally:
        provider.rotate(before)
    relay.tamper = None
    assert sign_in(home, provider).status_code == 200, "and back again, for whoever comes next"


@pytest.mark.parametrize(
    ("path", "status", "body"),
    [
        ("/token", 200, b"{}"), ("/token", 200, b"["), ("/token", 500, b""), ("/token", 302, b""),
        ("/token", 200, b'{"id_token": 1}'), ("/token", 200, b'{"id_token": "a", "id_token": "b"}'),
        ("/token", 200, b" " * (1 << 20) + b"{}"), ("/token", 400, b"<html>"),
    ],
)  # fmt: skip
def test_a_provider_that_answers_nonsense_lets_nobody_in(
    home: Home, provider: RunningProvider, relay: Relay, path: str, status: int, body: bytes
) -> None:
    back = provider.authorize(home.begin(), "alice")
    relay.override = {path: (status, body)}
    answer = home.come_back(back)
    assert answer.status_code in (401, 503) and home.who() == "" and "<h1>" in answer.text


@pytest.mark.parametrize(
    "change",
    [
        {"issuer": "https://evil.example"}, {"token_endpoint": None}, {"token_endpoint": "ftp://x/"},
        {"jwks_uri": "http://evil.example/keys"}, {"authorization_endpoint": "javascript:alert(1)"},
        {"code_challenge_methods_supported": ["plain"]}, {"token_endpoint": "http://127.0.0.1@evil.example/"},
    ],
)  # fmt: skip
def test_a_discovery_that_leads_astray_is_not_followed(
    relay: Relay, provider: RunningProvider, tmp_path: Path, change: dict[str, Any]
) -> None:
    told = {**httpx.get(f"{relay.issuer}/.well-known/openid-configuration").json(), **change}
    body = json.dumps({k: v for k, v in told.items() if v is not None}).encode()
    relay.override = {"/.well-known/openid-configuration": (200, body)}
    home = Home(tmp_path, relay)
    try:
        answer = home.ask("GET", "/oidc/login")
        assert answer.status_code == 503 and "provider_unavailable" in answer.text
    finally:
        relay.override = {}
        home.plane.close()


def test_a_device_is_confirmed_elsewhere_and_gets_a_token_once(
    home: Home, provider: RunningProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    pending = home.plane.sign_ins._pending  # type: ignore[union-attr]  # it is there: this home has a provider
    shown = home.ask("POST", "/api/v1/sign-in/device").json()
    assert "device_code" not in shown and len(shown["handle"]) >= 43
    asked = {"handle": shown["handle"]}
    assert home.ask("POST", "/api/v1/sign-in/device/token", json=asked).json() == {"state": "waiting"}
    assert "signed in" in provider.confirm(shown["complete"], "alice")
    clock = StillClock()
    clock.shows = datetime.now(UTC) + timedelta(seconds=shown["interval"] + 1)
    monkeypatch.setattr(pending, "_clock", clock)
    done = home.ask("POST", "/api/v1/sign-in/device/token", json=asked).json()
    assert (done["state"], done["principal"], done["display"]) == ("done", "oidc:alice", "Alice")
    bearer = {"authorization": f"Bearer {done['token']}"}
    assert home.ask("GET", "/api/v1/whoami", headers=bearer).json()["roles"] == ["viewer", "ml-engineer"]
    again = home.ask("POST", "/api/v1/sign-in/device/token", json=asked)
    assert (again.status_code, again.json()["code"]) == (403, "device_sign_in_over")
    assert home.ask("DELETE", "/api/v1/sign-in", headers=bearer).json() == {"revoked": done["id"]}
    assert home.ask("GET", "/api/v1/whoami", headers=bearer).status_code == 401


def test_only_a_sign_in_can_sign_itself_out(home: Home) -> None:
    owner = (home.plane.layout.tokens / "owner").read_text().strip()
    answer = home.ask("DELETE", "/api/v1/sign-in", headers={"authorization": f"Bearer {owner}"})
    assert (answer.status_code, answer.json()["code"]) == (404, "not_a_sign_in")
    unknown = home.ask("POST", "/api/v1/sign-in/device/token", json={"handle": "x"})
    assert (unknown.status_code, unknown.json()["code"]) == (403, "device_sign_in_over")
    assert home.ask("POST", "/api/v1/sign-in/device/token", content=b"{" * 5000).status_code == 413


def test_another_issuer_does_not_inherit_names(home: Home, provider: RunningProvider, tmp_path: Path) -> None:
    sign_in(home, provider)
    home.plane.database.change(
        lambda tx: home.plane.identity._store.put_external(tx, External("oidc:alice", "https://old.example", "A"), "x")
    )
    answer = sign_in(home, provider)
    assert answer.status_code == 403 and "another_issuer" in answer.text
    home.plane.database.change(
        lambda tx: home.plane.identity._store.put_external(
            tx, External("oidc:alice", home.plane.settings.oidc_issuer, "A"), "x"
        )
    )
