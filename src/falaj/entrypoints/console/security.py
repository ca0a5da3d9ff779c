"""Headers for every answer, and a check that changes come from our own pages."""

from __future__ import annotations

import re
from urllib.parse import parse_qs, urlsplit

from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from falaj.kernel.errors import Denied, Invalid

CONTENT_SECURITY_POLICY = "; ".join(
    (
        "default-src 'self'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        "connect-src 'self'",
        "form-action 'self'",
        "object-src 'none'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
    )
)

# `same-origin` and not `no-referrer`: with the latter, browsers send "Origin: null" with our own forms.
HEADERS: tuple[tuple[str, str], ...] = (
    ("Content-Security-Policy", CONTENT_SECURITY_POLICY),
    ("X-Content-Type-Options", "nosniff"),
    ("X-Frame-Options", "DENY"),
    ("Referrer-Policy", "same-origin"),
    ("Cross-Origin-Opener-Policy", "same-origin"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
    ("Permissions-Policy", "camera=(), geolocation=(), microphone=(), payment=(), usb=()"),
)

MAX_FORM = 8192
"""Bytes of a posted form; ours are far smaller."""


class SecurityHeaders:
    """ASGI middleware: adds `HEADERS` where a response has not set them itself.

    What says nothing about caching is not stored; over TLS the browser is told to stay with it.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, with the headers."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS:
                    headers.setdefault(name, value)
                headers.setdefault("Cache-Control", "no-store")
                if scope.get("scheme") == "https":
                    headers.setdefault("Strict-Transport-Security", "max-age=31536000")
            await send(message)

        await self._app(scope, receive, with_headers)


_OWN_NAME = re.compile(r"(?:127\.0\.0\.1|localhost|\[::1\])(?::\d{1,5})?\Z", re.IGNORECASE)


class LoopbackNames:
    """ASGI middleware: answers only those who asked for 127.0.0.1, localhost or [::1], at any port, or came with a
    certificate: over TLS the browser itself has compared the name with the server's certificate.

    A page elsewhere can let its own name resolve to this machine (DNS rebinding); then the browser takes
    that page and this server for one site. The Host header still tells the name that was asked for.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, if the request names this machine."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        names = [value for name, value in scope["headers"] if name == b"host"]
        known = scope.get("state", {}).get("peer") is not None  # set by the TLS listener alone, not by a header
        if known or (len(names) == 1 and _OWN_NAME.match(names[0].decode("latin-1"))):
            await self._app(scope, receive, send)
            return
        error = Denied(
            "this address is not one of this server's names",
            hint="open it as http://127.0.0.1 or http://localhost with its port; a proxy in front sends one of these as Host",
            code="foreign_host",
        )
        await JSONResponse(error.as_dict(), status_code=error.status)(scope, receive, send)


def same_origin(request: Request) -> None:
    """Raise `Denied` unless the browser says that this request comes from our own pages.

    Browsers set Sec-Fetch-Site themselves, on trustworthy origins (TLS or loopback); elsewhere they
    send Origin with every POST. Neither can be forged by a page. Neither present: refused.
    """
    site = request.headers.get("sec-fetch-site")
    if site is not None:
        allowed = site == "same-origin"
    else:
        origin = urlsplit(request.headers.get("origin", ""))
        allowed = bool(origin.netloc) and (origin.scheme, origin.netloc.lower()) == (
            request.url.scheme,
            request.url.netloc.lower(),
        )
    if not allowed:
        raise Denied(
            "this request does not come from a page of this console",
            hint="open the console itself and press the button there",
            code="cross_site",
        )


async def form_of(request: Request) -> dict[str, str]:
    """A small url-encoded form: the first value of each field. Raises `Invalid` when it is too large or not text."""
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_FORM:
            raise Invalid("the form is too large", hint="send the form as the page drew it", code="form_too_large")
    try:
        fields = parse_qs(body.decode(), max_num_fields=20)
    except ValueError as e:  # not UTF-8, or too many fields
        raise Invalid(
            "the form cannot be read", hint="send the form as the page drew it", code="form_unreadable"
        ) from e
    return {name: values[0] for name, values in fields.items()}
