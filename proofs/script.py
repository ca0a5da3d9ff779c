"""Script stored in whatever people and clients may fill, opened in a real browser: none of it runs.

    python proofs/script.py [--sample] [--broken]

Every page of the console is drawn from a home in which each text holds one of the payloads of `_script.py`: each kind in turn, in every
field at once, then again in states and kinds too. After that a control plane takes the payloads through its API, in reasons,
owners, uses, findings, names of tokens, incidents, parameters of runs, wherever it takes them, and its own pages are opened,
addresses with payloads in them, and the model card as a reader of Markdown shows it that lets markup pass. Chromium opens
each page without a window; whatever could act is clicked. A payload ran when it called a function that only the browser knows, opened a
dialog, or asked another server for something.

Holds when nothing ran, nothing that could act is in a page, and every HTML answer carries the strict policy. Controls: each payload
runs in the page that guards nothing; pages with neither escaping nor policy let payloads run; with either of them alone none runs.
`--broken` takes escaping and policy away from the pages: then it must not hold. `--sample` takes every 16th payload.

Exits 1 when it does not hold. Needs Chromium.
"""

from __future__ import annotations

import argparse
import html
import http.server
import re
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "src")]

import httpx  # noqa: E402  # the paths come first
import jinja2  # noqa: E402
import markdown_it  # noqa: E402
import uvicorn  # noqa: E402
from fastapi import FastAPI  # noqa: E402
from starlette.responses import HTMLResponse  # noqa: E402

from falaj.entrypoints.console import pages, routes  # noqa: E402
from falaj.entrypoints.console.reader import COOKIE  # noqa: E402
from falaj.entrypoints.console.security import CONTENT_SECURITY_POLICY, SecurityHeaders  # noqa: E402
from falaj.entrypoints.control_plane import application  # noqa: E402
from falaj.lifecycle.evidence.documents.card import card  # noqa: E402
from proofs._browser import Browser  # noqa: E402
from proofs._script import PAYLOADS, Payload, Tags, text_of, unguarded  # noqa: E402
from proofs._script_home import Poisoned, facts, fill, poisoned  # noqa: E402
from tests.entrypoints.console.conftest import BAD_REF, RUN_ID, Codes, Gatekeeper  # noqa: E402
from tests.lifecycle.house import house  # noqa: E402

PAGES = (
    "/", "/models/flight-delay", "/models/flight-delay/2/evidence", f"/models/flight-delay/{BAD_REF}/evidence",
    "/models/flight-delay/rollout", "/models/flight-delay/drift", "/incidents", "/reviews", "/reviews/rev_1", f"/runs/{RUN_ID}", "/audit",
)  # fmt: skip
FEW = ("/", "/incidents", "/audit")
"""Those of the controls."""
REFLECTED = (
    "/models/{}", "/models/{}/1/evidence", "/models/flight-delay/{}/evidence", "/models/{}/rollout", "/models/{}/drift?window={}", "/runs/{}",
    "/audit?principal={}&action={}&subject={}&outcome={}", "/login?code={}", "/static/{}", "/nowhere/{}", "/oidc/login?{}", "/health?{}",
    "/oidc/callback?state={}&code={}&iss={}&error={}", "/api/v1/{}", "/api/v1/models/{}/versions",
)  # fmt: skip
ACT = """(async () => {
  let armed = 0;
  const places = [];
  for (const e of document.querySelectorAll('*')) {
    for (const a of [...e.attributes]) {
      const event = a.name.match(/^(?:data-)?(?:hx-on:+|on)(.+)/i);
      if (!event) continue;
      armed++;
      const at = e.getBoundingClientRect();
      if (/hx-on/.test(a.name)) places.push([at.x + at.width / 2, at.y + at.height / 2]);
      else e.dispatchEvent(new Event(event[1]));
    }
    for (const u of [e.href?.baseVal ?? e.href, e.getAttribute('formaction'), e.action]) {
      if (typeof u === 'string' && /^\\s*javascript:/i.test(u)) { armed++; e.dispatchEvent(new MouseEvent('click', {bubbles: true, cancelable: true})); }
    }
  }
  await new Promise(done => setTimeout(done, WAIT));
  return {armed, places};
})()"""
"""Does what a person could do to set something off; how many things could, and where to click: what runs by `eval` must be set
off by the mouse, since the browser lets its own tools evaluate what the policy forbids pages."""


class Canary(http.server.ThreadingHTTPServer):
    """Another server; `asked` is what it was asked for."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        super().__init__(("127.0.0.1", 0), _Answer)
        threading.Thread(target=self.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server_port}"


class _Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        """Remember, and give a script that runs."""
        assert isinstance(self.server, Canary)
        self.server.asked.append(self.path)
        self.send_response(200)
        self.send_header("Content-Type", "text/javascript")
        self.send_header("Access-Control-Allow-Origin", "*")
        self.end_headers()
        self.wfile.write(b"ran('from elsewhere')")

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


class Watch:
    """A browser, the other server, and what ran."""

    def __init__(self, browser: Browser) -> None:
        self.browser, self.canary = browser, Canary()
        self.opened = 0

    def ran(self, url: str, wait: int = 0) -> list[str]:
        """What ran or could have on a page."""
        self.canary.asked.clear()
        self.browser.open(url)
        told = self.browser.evaluate(ACT.replace("WAIT", str(wait))) or {"armed": 0, "places": []}
        armed = told["armed"]
        for place in told["places"][:3]:
            self.browser.click(*place)
        self.opened += 1
        found = [s for s in self.browser.seen if not s.startswith("asked ")]
        return [
            *found,
            *(f"asked another server for {a}" for a in self.canary.asked),
            *([f"{armed} things could act"] if armed else []),
        ]


@contextmanager
def served(app: FastAPI) -> Iterator[str]:
    """The application on loopback."""
    config = uvicorn.Config(app, port=0, log_level="error", lifespan="off")
    listener, server = config.bind_socket(), uvicorn.Server(config)
    listener.listen()  # whoever comes before the server does waits
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(20)


class Careless(pages.Pages):
    """Pages that escape nothing."""

    def __init__(self, words: Any) -> None:
        super().__init__(words)
        self._env.autoescape = False


def console(reader: Poisoned, *, escape: bool, policy: bool) -> FastAPI:
    """The console over a reader, with or without what guards it."""
    named = vars(routes)
    known = named["Pages"]
    try:
        named["Pages"] = pages.Pages if escape else Careless
        app = FastAPI(openapi_url=None)
        app.include_router(routes.build(reader, Codes(), Gatekeeper()))
    finally:
        named["Pages"] = known
    if policy:
        app.add_middleware(SecurityHeaders)
    return app


def unguarded_app(canary: str) -> FastAPI:
    """A page for each payload and context that guards nothing."""
    app, assets = FastAPI(openapi_url=None), pages.load_assets()

    @app.get("/static/vendor/htmx.min.js")
    def htmx() -> HTMLResponse:
        return HTMLResponse(assets["vendor/htmx.min.js"].body, media_type="text/javascript")

    @app.get("/{number}/{context}")
    def page(number: int, context: str) -> HTMLResponse:
        if context not in PAYLOADS[number].contexts:
            return HTMLResponse("", 404)  # what a payload itself asks for
        text = text_of(PAYLOADS[number], "here", canary)
        if context == "template":
            return HTMLResponse(jinja2.Template(text, autoescape=False).render())
        if "Markdown" in context:
            return HTMLResponse(rendered(text, anything=True))
        return HTMLResponse(unguarded(context, text))

    return app


def rendered(markdown: str, *, anything: bool = False) -> str:
    """Markdown as a page, by a reader that lets markup pass; `anything`: and any address."""
    reader = markdown_it.MarkdownIt("commonmark", {"html": True}).enable("table")
    if anything:
        reader.validateLink = _any  # type: ignore[method-assign]
    return f"<!doctype html><meta charset=utf-8><body>{reader.render(markdown)}</body>"


def _any(url: str) -> bool:
    return url is not None


def dead(watch: Watch) -> list[str]:
    """Payloads that do not run where nothing holds them: a proof with them would show nothing."""
    found = []
    with served(unguarded_app(watch.canary.url)) as url:
        for number, payload in enumerate(PAYLOADS):
            for context in payload.contexts:
                ran = watch.ran(f"{url}/{number}/{quote(context)}", 60)
                told = watch.browser.evaluate("document.documentElement.textContent") or ""
                if not [r for r in ran if "could act" not in r] and not (context == "template" and "zqSSTI" in told):
                    found.append(f"{payload.kind} in {context}")
    return found


def drawn(
    watch: Watch, kinds: list[Payload], *, escape: bool, policy: bool, addresses: tuple[str, ...] = PAGES
) -> tuple[int, int, list[str]]:
    """(payloads that ran, fields shown, complaints) when the console is drawn from texts that are payloads."""
    reader = Poisoned()
    complaints, shown, ran = list[str](), set[str](), set[str]()
    with (
        served(console(reader, escape=escape, policy=policy)) as url,
        httpx.Client(base_url=url, cookies={COOKIE: "c"}) as http,
    ):
        watch.browser.cookie(COOKIE, "c", url)
        for payload in kinds:
            for states in (False, True):
                reader.holds(partial(text_of, payload, canary=watch.canary.url), states=states)
                for address in addresses:
                    found = watch.ran(url + address)
                    ran |= {payload.kind} if found else set()
                    complaints += [f"{payload.kind} on {address}: {f}" for f in found]
                    if payload is kinds[0]:
                        answer = http.get(address)
                        shown |= set(re.findall(r"ran\('(\d+)'\)", html.unescape(answer.text)))
                        complaints += unruled(address, answer) if policy and escape else []
    return len(ran), len(shown), complaints


def unruled(address: str, answer: httpx.Response) -> list[str]:
    """What is wrong with an answer itself."""
    policy = answer.headers.get("content-security-policy", "")
    is_html = answer.headers.get("content-type", "").startswith("text/html")
    found = (
        [] if policy == CONTENT_SECURITY_POLICY and "unsafe" not in policy else [f"{address}: the policy is {policy!r}"]
    )
    found += [f"{address}: {answer.status_code}"] if answer.status_code >= 500 else []
    found += [f"{address}: a script or a style in the page"] if is_html and Tags(answer.text).own_script() else []
    return found


def through_the_api(watch: Watch, kinds: list[Payload], root: Path) -> tuple[int, int, list[str]]:
    """(texts taken, texts refused, complaints) of a control plane that was sent the payloads."""
    complaints = list[str]()
    with house(root) as home:
        taken, refused = fill(home, [(p.kind, text_of(p, "stored", watch.canary.url)) for p in kinds])
        cookie = home.plane.sessions.open(home.plane.sessions.link(home.owner))
        with served(application(home.plane)) as url, httpx.Client(base_url=url, cookies={COOKIE: cookie}) as http:
            watch.browser.cookie(COOKIE, cookie, url)
            known = ["/", "/models/flight-delay", "/models/flight-delay/1/evidence", "/models/flight-delay/rollout", "/models/flight-delay/drift",
                     "/incidents", "/reviews", "/reviews/rev_stored", "/runs/run_stored", "/audit", "/login"]  # fmt: skip
            older = http.get("/audit")
            while (link := re.search(r'href="(/audit\?[^"]*before=\d+)"', older.text)) and len(known) < 60:
                known.append(html.unescape(link[1]))
                older = http.get(known[-1])
            said = [text_of(p, "address", watch.canary.url) for p in kinds]
            known += [a.replace("{}", quote(text, safe="")) for a in REFLECTED for text in said[::3]]
            for address in known:
                complaints += [f"{address[:120]}: {f}" for f in watch.ran(url + address)]
            complaints += [c for a in known[:30] for c in unruled(a[:120], http.get(a, follow_redirects=True))]
    return taken, refused, complaints


def cards(watch: Watch, kinds: list[Payload]) -> list[str]:
    """What ran in model cards that were read as Markdown with markup."""
    documents = [card(poisoned(facts(), partial(text_of, p, canary=watch.canary.url), states=True), ()) for p in kinds]
    app, found = FastAPI(openapi_url=None), list[str]()

    @app.get("/{number}")
    def page(number: int) -> HTMLResponse:
        return HTMLResponse(rendered(documents[number]))

    with served(app) as url:
        for number, payload in enumerate(kinds):
            found += [f"model card, {payload.kind}: {f}" for f in watch.ran(f"{url}/{number}", 30)]
    return found


def prove(program: str, root: Path, every: int, broken: bool) -> tuple[str, list[str]]:
    """(the figures, what went wrong)."""
    browser = Browser(program, root / "browser")
    try:
        watch, kinds = Watch(browser), list(PAYLOADS[::every])
        lifeless = dead(watch) if every == 1 else []
        ran, shown, wrong = drawn(watch, kinds, escape=not broken, policy=not broken)
        taken, refused, more = through_the_api(watch, kinds, root / "house")
        wrong += more + cards(watch, kinds) + [f"control: {kind} runs nowhere" for kind in lifeless]
        neither = drawn(watch, kinds, escape=False, policy=False, addresses=FEW)[0]
        alone = drawn(watch, kinds, escape=True, policy=False, addresses=FEW)[0]
        held = [c for c in drawn(watch, kinds, escape=False, policy=True, addresses=FEW)[2] if "could act" not in c]
    finally:
        browser.close()
    wrong += ["control: nothing runs in pages that guard nothing"] if not neither else []
    wrong += [f"escaping alone lets {alone} kinds run"] if alone else []
    wrong += [f"the policy alone: {c}" for c in held]
    text = (
        f"{len(kinds)} kinds of script in {shown} texts of {len(PAGES)} pages, and {taken} stored through the API ({refused} were refused there):"
        f" {watch.opened} pages opened, {ran} kinds ran, {len(wrong)} complaints; controls: {len(PAYLOADS) - len(lifeless) if every == 1 else 'not all'}"
        f" kinds run unguarded, {neither} without escaping and policy, {alone} with escaping alone, {len(held)} with the policy alone"
    )
    return text, wrong


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sample", action="store_true")
    parser.add_argument("--broken", action="store_true")
    options = parser.parse_args()
    program = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if program is None:
        raise SystemExit("script: needs Chromium: apt-get install chromium")
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="falaj-proof-", ignore_cleanup_errors=True) as folder:
        text, wrong = prove(program, Path(folder), 16 if options.sample else 1, options.broken)
    for line in wrong[:30]:
        print(line, file=sys.stderr)
    print(f"script: {text} ({time.monotonic() - began:.0f} s)")
    if wrong:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
