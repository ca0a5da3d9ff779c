"""Templates, assets and errors as pages. Everything that enters a page is escaped unless `charts` drew it."""

from __future__ import annotations

import hashlib
import math
from datetime import timedelta
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Any
from urllib.parse import quote, urlencode

import jinja2
import msgspec
from markupsafe import Markup, escape
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from falaj.entrypoints.console import charts
from falaj.entrypoints.console.views import AuditQuery, Frame
from falaj.entrypoints.console.words import Words
from falaj.kernel.access import Principal
from falaj.kernel.clock import parse_iso
from falaj.kernel.digests import short
from falaj.kernel.errors import FalajError

_OK = (
    "steady",
    "resolved",
    "promoted",
    "passed",
    "Successful",
    "serving",
    "finished",
    "done",
    "well",
    "current",
    "approved",
    "flowing",
    "in its place",
    "confirmed",
)
_WAIT = (
    "unresolved",
    "shadow",
    "canary",
    "open",
    "awaiting approval",
    "Inconclusive",
    "Missing",
    "attention",
    "behind",
    "waiting",
    "candidate",
    "registered",
    "running",
    "pending",
    "overridden",
)
_BAD = (
    "drifted",
    "aborted",
    "rolled back",
    "Failed",
    "Error",
    "refused",
    "rejected",
    "failed",
    "denied",
    "down",
    "silent",
    "refusing",
    "stopped",
    "killed",
    "late",
)
TONES: dict[str, str] = {**dict.fromkeys(_OK, "ok"), **dict.fromkeys(_WAIT, "wait"), **dict.fromkeys(_BAD, "bad")}
"""State → how it looks: ok, wait or bad; any other is quiet. The word stands beside it always."""

NO_VALUE = "\N{EN DASH}"
"""Stands where nothing was measured."""

_TYPES = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}


class Asset(msgspec.Struct, frozen=True):
    """A file that the pages load: its bytes, its type, and a digest that changes its address when it changes."""

    body: bytes
    media_type: str
    etag: str


def load_assets() -> dict[str, Asset]:
    """The console's own files by name. Only these are served, so no request ever becomes a path."""
    assets: dict[str, Asset] = {}

    def walk(folder: Traversable, prefix: str) -> None:
        for entry in folder.iterdir():
            name = prefix + entry.name
            if entry.is_dir():
                walk(entry, name + "/")
            elif (kind := _TYPES.get("." + entry.name.rpartition(".")[2])) is not None:
                body = entry.read_bytes()
                assets[name] = Asset(body, kind, hashlib.sha256(body).hexdigest()[:16])

    walk(files("falaj.entrypoints.console") / "static", "")
    return assets


def thousands(value: float) -> str:
    """A whole number with separators."""
    return f"{value:,.0f}"


def significant(value: float | None, digits: int = 5) -> str:
    """A measured value, short; large whole numbers keep their digits and get separators."""
    if value is None:
        return NO_VALUE
    if math.isfinite(value) and value == int(value) and abs(value) < 1e15:
        return f"{value:,.0f}"
    return f"{value:.{digits}g}"


def percent(value: float) -> str:
    """A share from 0 to 1 as percent: '12.3 %'."""
    return f"{100 * value:.3g} %"


def evalue(value: float) -> str:
    """Evidence, short: what is far beyond any decision is not written out."""
    return "> 10\N{SUPERSCRIPT SIX}" if value > 1e6 else "< 0.01" if value < 0.01 else f"{value:.3g}"


def milliseconds(value: float | None) -> str:
    """A latency: '0.49 ms', '12 ms'."""
    if value is None:
        return NO_VALUE
    return f"{value:.2f} ms" if value < 10 else f"{value:,.0f} ms"


def file_size(value: int) -> str:
    """Bytes for people, in steps of 1,000."""
    if value < 1000:
        return f"{value} B"
    power = min(4, int(math.log10(value)) // 3)
    return f"{value / 1000**power:.3g} {('kB', 'MB', 'GB', 'TB')[power - 1]}"


def moment(text: str) -> str:
    """A time for people, in UTC to the second; what is not a time stays as it is."""
    try:
        return parse_iso(text).strftime("%Y-%m-%d %H:%M:%S")
    except ValueError:
        return text


def ago(text: str, now: str, words: Words) -> str:
    """How long before `now`; what is not a time gives nothing."""
    try:
        age = parse_iso(now) - parse_iso(text)
    except ValueError:
        return ""
    if age < timedelta(seconds=-5):
        return words("ago.later")
    minutes = int(age.total_seconds() // 60)
    if minutes < 1:
        return words("ago.now")
    if minutes < 120:
        return words("ago.minutes", n=minutes)
    if minutes < 48 * 60:
        return words("ago.hours", n=minutes // 60)
    return words("ago.days", n=f"{minutes // 1440:,}")


def plain(value: Any) -> str:
    """A parameter's value as text: strings as they are, everything else as JSON."""
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


def pretty(value: Any) -> str:
    """Indented JSON."""
    return msgspec.json.format(msgspec.json.encode(value), indent=2).decode()


def coded(text: str) -> Markup:
    """Escaped text in which what stands between back quotes is set as code."""
    pieces = text.split("`")
    if len(pieces) % 2 == 0:  # a back quote without its partner
        return escape(text)
    return Markup("").join(Markup("<code>{}</code>").format(p) if i % 2 else escape(p) for i, p in enumerate(pieces))


def href(*parts: str) -> str:
    """An address on this console; each part is one path segment, whatever it holds."""
    return "/" + "/".join(quote(part, safe="@") for part in parts)


def older_href(query: AuditQuery, before: int) -> str:
    """The audit page with the same filter, from `before` downwards."""
    fields = {"principal": query.principal, "action": query.action, "subject": query.subject, "outcome": query.outcome}
    kept = {k: v for k, v in fields.items() if v}
    if before:
        kept["before"] = str(before)
    return "/audit" + ("?" + urlencode(kept) if kept else "")


class Pages:
    """Turns views into HTML."""

    def __init__(self, words: Words) -> None:
        self.words = words
        self.assets = load_assets()
        loader = jinja2.PackageLoader("falaj.entrypoints.console", "templates")
        self._env = jinja2.Environment(
            loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
        )
        self._env.filters.update(
            thousands=thousands,
            significant=significant,
            milliseconds=milliseconds,
            coded=coded,
            file_size=file_size,
            moment=moment,
            plain=plain,
            pretty=pretty,
            short=short,
            percent=percent,
            evalue=evalue,
            zip3=lambda labels, p, q: list(zip(labels, p, q, strict=True)),
        )
        self._env.globals.update(
            t=words,
            charts=charts,
            href=href,
            older_href=older_href,
            asset=self._asset,
            tone=lambda state: TONES.get(state, "quiet"),
            ago=lambda text, now: ago(text, now, words),
        )

    def render(
        self,
        template: str,
        *,
        principal: Principal | None = None,
        frame: Frame | None = None,
        status: int = 200,
        **context: Any,
    ) -> HTMLResponse:
        """A page. `frame` is None where nothing of the home may be shown."""
        text = self._env.get_template(template).render(principal=principal, frame=frame, **context)
        return HTMLResponse(text, status, headers={"Vary": "HX-Request, Cookie"})

    def problem(self, request: Request, error: FalajError) -> Response:
        """An error as a page, or as a notice where htmx asked for a part of a page. 401 leads to signing in."""
        partial = request.headers.get("hx-request") == "true"
        if error.status == 401:
            return Response(status_code=401, headers={"HX-Redirect": "/login"}) if partial else to_login()
        known = f"problem.{error.status}" if error.status in (403, 404, 409, 422, 500, 503) else "problem.500"
        page = self.render(
            "problem.html", status=error.status, title=self.words(known), error=error, partial=partial, section=""
        )
        if partial:
            page.headers.update({"HX-Retarget": "#notice", "HX-Reswap": "innerHTML", "HX-Reselect": "#problem"})
        return page

    def _asset(self, name: str) -> str:
        return f"/static/{name}?v={self.assets[name].etag}"


def to_login() -> RedirectResponse:
    """Off to the page that explains how to sign in."""
    return RedirectResponse("/login", 303)
