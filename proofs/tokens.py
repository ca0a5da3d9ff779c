"""No hostile token gets in: not at the control plane, not at the data plane, not by way of the identity provider.

    python proofs/tokens.py [--every 1] [--name TEXT] [--break CHECK]

A real provider (npm's oidc-provider) runs, a home that trusts it, and a data plane with one version. Hostile ID tokens, most
of them signed by the provider's own key, come out of its token endpoint in the place of the true one, each in a sign-in of its own
through the console's callback. The same, and hostile tokens of Falaj's own format, are sent to both planes. Then each check
of an ID token is taken away in turn: some token must get through, or the check would have been tested by nothing.

`--every N` sends each Nth token through the callback, `--name TEXT` only those whose name holds it. `--break CHECK` takes that check away for the whole run (`_check_time`, …; with
`tokens` the planes' own): the proof must end red. Exits 1 when one hostile token was accepted, or a good one was not.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import string
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "src")]

import httpx  # noqa: E402  # the paths come first

from falaj.entrypoints.console.oidc import BINDING  # noqa: E402
from falaj.entrypoints.console.reader import COOKIE  # noqa: E402
from falaj.entrypoints.control_plane import application  # noqa: E402
from falaj.governance.identity import verify as falaj_verify  # noqa: E402
from falaj.governance.identity.oidc import tokens  # noqa: E402
from falaj.governance.identity.oidc.model import Setup  # noqa: E402
from falaj.governance.identity.ports import External  # noqa: E402
from falaj.governance.identity.verify import token_hash  # noqa: E402
from falaj.kernel.access import SYSTEM, Principal  # noqa: E402
from falaj.kernel.errors import Unauthenticated  # noqa: E402
from tests.governance.identity.forged import Forge, falaj_tokens, id_tokens  # noqa: E402
from tests.lifecycle.house import MODEL, House, house  # noqa: E402
from tests.lifecycle.serving.plane.fleet import flight  # noqa: E402
from tests.provider.relay import Relay  # noqa: E402
from tests.provider.running import CLIENT, SECRET, RunningProvider  # noqa: E402

CONSOLE = "http://127.0.0.1:4321"
BACK = f"{CONSOLE}/oidc/callback"
CHECKS = ("_check_parties", "_check_time", "_check_nonce", "_check_key", "_signed", "_HEADER", "_object")
"""What is taken away in turn, by its name in tokens.py."""


class Stand:
    """The provider, the home and the data plane, and who asks them."""

    def __init__(self, stack: ExitStack, folder: Path) -> None:
        self.relay = stack.enter_context(Relay())
        self.provider = RunningProvider(folder, [BACK], self.relay.issuer)
        stack.callback(self.provider.stop)
        self.relay.port = self.provider.port
        self.provider.account("alice", ["engineers"])
        self.forge = Forge(self.relay.issuer, CLIENT, SECRET, self.provider.keys[0])
        told = {
            "oidc_issuer": self.relay.issuer, "oidc_client_id": CLIENT, "oidc_client_secret": SECRET,
            "oidc_scopes": "openid profile groups", "oidc_groups": "engineers=ml-engineer; admins=platform-admin",
        }  # fmt: skip
        self.home: House = stack.enter_context(house(folder / "house", **told))
        self.app = application(self.home.plane)
        assert self.home.release(self.home.registered()).state == "done"
        address = stack.enter_context(self.home.data_plane()).address
        self.data_plane = stack.enter_context(httpx.Client(base_url=address))
        self.home.plane.serving.settle(self.home.plane.serving.generation(), 10)

    def ask(self, path: str, **more: Any) -> httpx.Response:
        """Ask the control plane's application."""

        async def send() -> httpx.Response:
            transport = httpx.ASGITransport(self.app, raise_app_exceptions=False)
            async with httpx.AsyncClient(transport=transport, base_url=CONSOLE) as http:
                answer = await http.get(path, **more)
            await self.home.plane.steps.dismiss()  # this loop ends here
            return answer

        return asyncio.run(send())

    def begun(self) -> tuple[dict[str, str], dict[str, str]]:
        """A sign-in that came back from the provider: what it brought, and the browser's cookie."""
        sent = self.ask("/oidc/login")
        binding = {BINDING: sent.cookies[BINDING]}
        back = self.provider.authorize(sent.headers["location"], "alice")
        return {k: v for k, (v,) in parse_qs(urlsplit(back).query).items()}, binding

    def came_in(self, told: dict[str, str], binding: dict[str, str]) -> bool:
        """Whether the callback opened a session."""
        answer = self.ask("/oidc/callback", params=told, cookies=binding)
        value = answer.cookies.get(COOKIE, "")
        return answer.status_code < 300 or self.home.plane.sessions.principal(value) is not None

    def signs_in(self, id_token: Callable[[str], str]) -> bool:
        """Whether somebody gets in when the provider answers with this ID token, made for the nonce."""
        self.relay.tamper = lambda told: {**told, "id_token": id_token(self.relay.nonce)}
        try:
            return self.came_in(*self.begun())
        finally:
            self.relay.tamper = None

    def planes_accept(self, token: str) -> list[str]:
        """Which planes take a token as it is."""
        headers = {"authorization": f"Bearer {token}"}
        answers = {
            "control plane": self.ask("/api/v1/whoami", headers=headers).status_code,
            "data plane": self.data_plane.post(
                f"/v2/models/{MODEL}/infer", json=flight(1), headers=headers
            ).status_code,
        }
        return [plane for plane, status in answers.items() if status != httpx.codes.UNAUTHORIZED]


def replays(stand: Stand) -> Iterator[tuple[str, bool]]:
    """Answers of the browser that were used, changed or taken from another one: each with whether it got in."""
    told, binding = stand.begun()
    other, _ = stand.begun()
    yield "a state and a code without their browser", stand.came_in(told, {})
    yield "the same with their browser, after that", stand.came_in(told, binding)
    told, binding = stand.begun()
    yield "the code of another sign-in", stand.came_in({**told, "code": other["code"]}, binding)
    told, binding = stand.begun()
    yield "another browser's cookie", stand.came_in(told, {BINDING: "x" * 43})
    for name, value in {"state": "x", "code": "x", "iss": "https://evil.example"}.items():
        told, binding = stand.begun()
        yield f"another {name}", stand.came_in({**told, name: value}, binding)
        told, binding = stand.begun()
        yield f"no {name}", stand.came_in({k: v for k, v in told.items() if k != name}, binding)
    told, binding = stand.begun()
    assert stand.came_in(told, binding), "a good sign-in was refused"
    yield "a state that was used", stand.came_in(told, binding)
    later, binding = stand.begun()
    yield "a code that was used", stand.came_in({**later, "code": told["code"]}, binding)


def gone(stand: Stand) -> dict[str, str]:
    """Tokens of this home and another that were good once."""
    identity, shop = stand.home.plane.identity, Principal("shop", "service", ("service",))
    revoked = identity.grant(SYSTEM, shop, 1)
    identity.revoke(stand.home.owner, revoked.id)
    person = External("oidc:gone", stand.relay.issuer, "Gone")
    expired = identity.sign_in(person, ("ml-engineer",), timedelta(milliseconds=1))
    out = identity.sign_in(person, ("ml-engineer",), timedelta(hours=1))
    identity.sign_out(identity.principal(person.name), out.id)
    _, foreign = falaj_verify.make_token()
    return {
        "a revoked token": revoked.token, "an expired token": expired.token, "a token that was signed out": out.token,
        "another home's token": foreign,
    }  # fmt: skip


def sendable(token: str) -> bool:
    """Whether a client can put it into a header at all."""
    plain = set(string.printable) - set("\r\n\v\f\0")
    return bool(token) and token == token.strip() and len(token) < 10_000 and set(token) <= plain


@contextmanager
def without(check: str) -> Iterator[None]:
    """Verification with one of its checks taken away."""
    kept = getattr(tokens, check)
    lax: Any = lambda *_args: None  # noqa: E731
    if check == "_HEADER":
        lax = kept | {"jwk", "jku", "x5u", "x5c", "crit", "b64", "zip", "enc", "cty", "p2c"}
    elif check == "_signed":
        lax = lambda token, *_: tokens._bytes(token.split(".")[1])  # noqa: E731
    elif check == "_object":
        lax = lambda text, _what: json.loads(text)  # noqa: E731
    setattr(tokens, check, lax)
    try:
        yield
    finally:
        setattr(tokens, check, kept)


def unneeded(forge: Forge) -> list[str]:
    """Checks without which nothing of the corpus gets through."""
    setup = Setup(forge.issuer, CLIENT, CLIENT, "openid", "groups", (("engineers", "ml-engineer"),), 12)
    published = json.dumps({"keys": [forge.key.as_dict(private=False)]}).encode()
    corpus, keys = list(id_tokens(forge, "n" * 43)), tokens.read_keys(published).get

    def through() -> int:
        count = 0
        for _, token in corpus:
            try:
                tokens.verify(token, setup, keys, "n" * 43, datetime.now(UTC))
                count += 1
            except Unauthenticated:
                pass
            except Exception:  # noqa: S110  # a check that is gone may leave what the next cannot stand
                pass
        return count

    assert through() == 0
    found = []
    for check in CHECKS:
        with without(check):
            if not through():
                found.append(check)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--every", type=int, default=1)
    parser.add_argument("--name", default="", help="only the ID tokens whose name holds this, and the callback alone")
    parser.add_argument("--break", dest="broken", default="", choices=["", "tokens", *CHECKS])
    options = parser.parse_args()
    started = time.monotonic()
    warnings.filterwarnings("ignore", ".*EdDSA")  # its name is on the way out, and providers still use it
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="falaj-tokens-")))
        stand = Stand(stack, folder)
        needed = unneeded(stand.forge)
        if options.broken == "tokens":
            falaj_verify.hmac = type("Lax", (), {**vars(falaj_verify.hmac), "compare_digest": lambda *_: True})  # type: ignore[assignment]
        elif options.broken:
            stack.enter_context(without(options.broken))
        accepted, sent, sign_ins, replayed = _run(stand, options.every, options.name)
    for line in [*accepted, *(f"no token needs the check {n}" for n in needed)][:20]:
        print(line, file=sys.stderr)
    print(
        f"tokens: {len(accepted)} accepted of {sent} hostile tokens sent to both planes, {sign_ins} hostile ID tokens and "
        f"{replayed} replays at the callback; {len(CHECKS) - len(needed)} of {len(CHECKS)} checks taken away let some "
        f"through ({time.monotonic() - started:.0f} s)"
    )
    sys.exit(1 if accepted or needed else 0)


def _run(stand: Stand, every: int, name: str) -> tuple[list[str], int, int, int]:
    """What was accepted, and how many of each kind were tried."""
    identity = stand.home.plane.identity
    good, other = (identity.grant(SYSTEM, Principal("shop", "service", ("service",)), 1).token for _ in range(2))
    stored = token_hash(good, stand.home.plane.keys.pepper)
    own = [(n, t) for n, t in falaj_tokens(good, other, gone(stand), stored) if sendable(t)]
    foreign = [(n, t) for n, t in id_tokens(stand.forge, "n" * 43) if sendable(t)]
    foreign.append(("a good ID token", stand.forge.good("n" * 43)))
    stand.home.plane.serving.settle(stand.home.plane.serving.generation(), 10)
    assert stand.data_plane.post(
        f"/v2/models/{MODEL}/infer", json=flight(1), headers={"authorization": f"Bearer {good}"}
    ).is_success, "the data plane refuses a good token"
    tokens_sent = [] if name else [*own, *foreign]
    accepted = [f"{plane}: {what}" for what, token in tokens_sent for plane in stand.planes_accept(token)]
    names = [n for n, _ in id_tokens(stand.forge, "n") if name in n][::every]
    accepted += [f"callback: {n}" for n in names if stand.signs_in(partial(_named, stand.forge, n))]
    if not stand.signs_in(stand.forge.good):
        accepted.append("nothing proves anything: a good ID token was refused")
    tried = list(replays(stand))
    accepted += [f"callback: {what}" for what, came_in in tried if came_in]
    return accepted, len(tokens_sent), len(names), len(tried)


def _named(forge: Forge, name: str, nonce: str) -> str:
    return dict(id_tokens(forge, nonce))[name]


if __name__ == "__main__":
    main()
