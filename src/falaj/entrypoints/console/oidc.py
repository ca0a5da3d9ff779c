"""Signing in to the console with an identity provider: there and back (authorization code with PKCE).

    GET /oidc/login     → the provider, with state, nonce and challenge; a cookie binds them to this browser
    GET /oidc/callback  → a session, and a page that opens the console

The binding cookie is `Lax`, or the browser would not bring it back from the provider. The session's is `Strict`, and a
browser does not send that one on a way that began elsewhere: hence a page between, which our own address opens.
"""

from __future__ import annotations

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from falaj.bootstrap.control_plane import ControlPlane
from falaj.entrypoints.console.pages import Pages
from falaj.entrypoints.console.reader import COOKIE, SignInDesk
from falaj.entrypoints.console.routes import route_class
from falaj.entrypoints.console.words import english
from falaj.governance.identity.guard import PUBLIC, declare
from falaj.governance.identity.oidc.routes import there
from falaj.governance.identity.oidc.signin import Returned, Sent
from falaj.kernel.errors import FalajError, Invalid

BINDING = "falaj_sign_in"
_MINUTES = 10
_LONGEST = 4096
_KNOWN = ("state", "code", "iss", "error")


def build(desk: SignInDesk) -> APIRouter:
    """The two routes."""
    pages = Pages(english())
    router = APIRouter(route_class=route_class(pages), include_in_schema=False)

    def failed(error: FalajError) -> Response:
        return pages.render("sign_in_failed.html", status=error.status, section="", error=error)

    def login(request: Request) -> Response:
        try:
            sent = desk.begin(f"{request.url.scheme}://{request.url.netloc}")
        except FalajError as e:
            return failed(e)
        answer = RedirectResponse(sent.address, 303)
        answer.set_cookie(
            BINDING,
            sent.browser,
            max_age=_MINUTES * 60,
            httponly=True,
            samesite="lax",
            secure=_secure(request),
            path="/oidc",
        )
        return answer

    def callback(request: Request) -> Response:
        try:
            value = desk.finish(_returned(request), request.cookies.get(BINDING, ""))
        except FalajError as e:
            return failed(e)
        answer = pages.render("signed_in.html", section="")
        answer.set_cookie(COOKIE, value, httponly=True, samesite="strict", secure=_secure(request), path="/")
        answer.delete_cookie(BINDING, path="/oidc", httponly=True, samesite="lax")
        return answer

    for path, endpoint in (("/oidc/login", login), ("/oidc/callback", callback)):
        declare(endpoint, PUBLIC)
        router.add_api_route(path, endpoint, methods=["GET"], response_model=None)
    return router


class HomeSignIns:
    """`SignInDesk` over the home's provider. A session ends with the token that the sign-in gave, which nobody holds."""

    def __init__(self, plane: ControlPlane) -> None:
        self._p = plane

    def begin(self, console: str) -> Sent:
        """Send a browser to the provider. Raises `NotFound` when there is none."""
        return there(self._p.sign_ins).begin(console)

    def finish(self, returned: Returned, browser: str) -> str:
        """A session for whoever came back."""
        token = there(self._p.sign_ins).finish(returned, browser)
        principal = self._p.identity.principal(token.principal)
        return self._p.sessions.open(self._p.sessions.link(principal, token.id))


def _returned(request: Request) -> Returned:
    told: dict[str, str] = {}
    for name, value in request.query_params.multi_items():
        if name in told or len(value) > _LONGEST:
            raise Invalid(
                "the provider's answer cannot be read: something in it stands twice, or is too long",
                hint="begin again: open the console and press the button there",
                code="bad_callback",
            )
        told[name] = value
    state, code, issuer, error = (told.get(name, "") for name in _KNOWN)
    return Returned(state, code, issuer, error)


def _secure(request: Request) -> bool:
    return request.url.scheme == "https"
