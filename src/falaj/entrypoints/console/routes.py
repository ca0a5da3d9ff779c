"""The console's HTTP paths. Each names the action that it needs; errors come back as pages."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, Depends, Path, Query
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from falaj.entrypoints.console.channel import draw
from falaj.entrypoints.console.pages import Pages, href, to_login
from falaj.entrypoints.console.reader import COOKIE, ConsoleReader, Guard, Sessions
from falaj.entrypoints.console.security import form_of, same_origin
from falaj.entrypoints.console.views import AuditQuery
from falaj.entrypoints.console.words import english
from falaj.governance.audit.model import AUDIT_READ, AUDIT_VERIFY
from falaj.governance.identity.guard import PUBLIC, declare
from falaj.kernel.access import Action, Principal
from falaj.kernel.errors import Denied, FalajError, Invalid, NotFound, Unauthenticated
from falaj.kernel.log import logger
from falaj.lifecycle.evidence.model import EVIDENCE_READ
from falaj.lifecycle.loop.model import STATUS_READ
from falaj.lifecycle.monitoring.model import DRIFT_READ, INCIDENT_READ, INCIDENT_RESOLVE
from falaj.lifecycle.monitoring.reviews.model import REVIEW_DECIDE, REVIEW_READ, word_of
from falaj.lifecycle.registry.model import VERSION_READ
from falaj.lifecycle.rollout.strategy import ROLLOUT_READ, ROLLOUT_STEER
from falaj.lifecycle.serving.model import PREDICTION_READ
from falaj.lifecycle.training.model import RUN_READ

_log = logger("console")

Name = Annotated[str, Path(max_length=300)]
Text = Annotated[str, Query(max_length=300)]
Form = Annotated[dict[str, str], Depends(form_of)]
Before = Annotated[int, Query(ge=0, le=2**62)]
F = TypeVar("F", bound=Callable[..., Any])

OUTCOMES = ("done", "denied", "refused")


def build(
    reader: ConsoleReader,
    sessions: Sessions,
    guard: Guard,
    login_command: str = "falaj console",
    *,
    provider: bool = False,
) -> APIRouter:
    """The console's routes. `login_command` is what a person types to get a one-time link; `provider` says that one may
    sign in with an identity provider too."""
    pages = Pages(english())
    desk = _Desk(reader, sessions, pages, login_command, provider=provider)
    router = APIRouter(route_class=route_class(pages), include_in_schema=False)

    def add(method: str, path: str, endpoint: Callable[..., Response]) -> None:
        action = endpoint.__falaj_action__  # type: ignore[attr-defined]
        asks: list[Callable[..., Any]] = [same_origin] if method == "POST" else []
        if action is not PUBLIC:
            asks += [desk.visitor, guard.page(action)]
        needs = [Depends(ask) for ask in asks]
        router.add_api_route(path, endpoint, methods=[method], dependencies=needs, response_model=None)

    add("GET", "/", desk.overview)
    add("GET", "/models/{name}", desk.model)
    add("GET", "/models/{name}/{reference}/evidence", desk.evidence)
    add("GET", "/models/{name}/rollout", desk.rollout)
    add("POST", "/models/{name}/rollout", desk.order)
    add("GET", "/models/{name}/drift", desk.drift)
    add("GET", "/incidents", desk.incidents)
    add("POST", "/incidents/{incident}/resolve", desk.resolve)
    add("GET", "/reviews", desk.reviews)
    add("GET", "/reviews/{review}", desk.review)
    add("POST", "/reviews/{review}/decision", desk.decide)
    add("GET", "/runs/{run_id}", desk.run)
    add("GET", "/audit", desk.audit)
    add("POST", "/audit/verify", desk.verify)
    add("GET", "/login", desk.login_page)
    add("POST", "/login", desk.login)
    add("POST", "/logout", desk.logout)
    add("GET", "/static/{name:path}", desk.asset)
    return router


def no_such_page(request: Request) -> Response:
    """The page for an address that no route has; for the application's own 404 handler, where HTML is asked for."""
    pages = Pages(english())
    return pages.problem(request, _nowhere(pages))


def _nowhere(pages: Pages) -> NotFound:
    return NotFound(pages.words("problem.nopage"), hint=pages.words("problem.nopage.hint"), code="no_such_page")


def route_class(pages: Pages) -> type[APIRoute]:
    """Routes whose errors, their dependencies' included, become pages."""

    class ConsoleRoute(APIRoute):
        def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
            handle = super().get_route_handler()

            async def handled(request: Request) -> Response:
                try:
                    return await handle(request)
                except FalajError as e:
                    return pages.problem(request, e)
                except RequestValidationError as e:
                    return pages.problem(request, _unreadable(pages, e))
                except HTTPException:
                    raise
                except Exception:
                    # A person looks at this: they get a page, the log gets the cause.
                    _log.exception("console_page_failed", path=request.url.path)
                    broken = FalajError(
                        pages.words("problem.unexpected"),
                        hint=pages.words("problem.unexpected.hint"),
                        code="internal_error",
                    )
                    return pages.problem(request, broken)

            return handled

    return ConsoleRoute


def _unreadable(pages: Pages, error: RequestValidationError) -> Invalid:
    fields = ", ".join(str(e["loc"][-1]) for e in error.errors())
    return Invalid(
        pages.words("problem.input", field=fields), hint=pages.words("problem.input.hint"), code="bad_page_input"
    )


def _viewer(request: Request) -> Principal:
    """Whoever `visitor` found; it runs before every page."""
    found = request.state.principal
    if not isinstance(found, Principal):
        raise Unauthenticated("nobody is signed in", hint="sign in with a one-time link", code="not_signed_in")
    return found


def _does(action: Action) -> Callable[[F], F]:
    """Say which action a page is. Without one, `build` fails."""

    def mark(endpoint: F) -> F:
        declare(endpoint, action)
        return endpoint

    return mark


class _Desk:
    """One method for each page."""

    def __init__(
        self, reader: ConsoleReader, sessions: Sessions, pages: Pages, login_command: str, *, provider: bool
    ) -> None:
        self._provider = provider
        self._reader = reader
        self._sessions = sessions
        self._pages = pages
        self._login_command = login_command

    def visitor(self, request: Request) -> None:
        """Set `request.state.principal`, or raise `Unauthenticated`. Runs before the guard."""
        request.state.principal = self._sessions.principal(request)
        _viewer(request)

    @_does(STATUS_READ)
    def overview(self, request: Request) -> Response:
        return self._page(request, "overview.html", "overview", page=self._reader.overview(_viewer(request)))

    @_does(VERSION_READ)
    def model(self, request: Request, name: Name) -> Response:
        page = self._reader.model(_viewer(request), name)
        return self._page(request, "model.html", "model", page=page, reaches=draw(page.stages, page.versions))

    @_does(EVIDENCE_READ)
    def evidence(self, request: Request, name: Name, reference: Name) -> Response:
        page = self._reader.evidence(name, reference)
        return self._page(request, "evidence.html", "model", page=page)

    @_does(ROLLOUT_READ)
    def rollout(self, request: Request, name: Name) -> Response:
        return self._page(request, "rollout.html", "model", page=self._reader.rollout(_viewer(request), name))

    @_does(ROLLOUT_STEER)
    def order(self, request: Request, name: Name, fields: Form) -> Response:
        what = fields.get("order", "")
        if what not in ("promote", "abort"):
            raise Invalid("the order is neither promote nor abort", hint="press a button of the page", code="bad_order")
        self._reader.order(_viewer(request), name, fields.get("rollout", ""), what)
        return RedirectResponse(href("models", name, "rollout"), 303)

    @_does(DRIFT_READ)
    def drift(self, request: Request, name: Name, window: Text = "") -> Response:
        return self._page(request, "drift.html", "model", page=self._reader.drift(name, window))

    @_does(INCIDENT_READ)
    def incidents(self, request: Request) -> Response:
        return self._page(request, "incidents.html", "incidents", page=self._reader.incidents(_viewer(request)))

    @_does(INCIDENT_RESOLVE)
    def resolve(self, request: Request, incident: Name) -> Response:
        self._reader.resolve(_viewer(request), incident)
        return RedirectResponse("/incidents", 303)

    @_does(REVIEW_READ)
    def reviews(self, request: Request) -> Response:
        return self._page(request, "reviews.html", "reviews", page=self._reader.reviews(_viewer(request)))

    @_does(PREDICTION_READ)
    def review(self, request: Request, review: Name) -> Response:
        return self._page(request, "review.html", "reviews", page=self._reader.review(_viewer(request), review))

    @_does(REVIEW_DECIDE)
    def decide(self, request: Request, review: Name, fields: Form) -> Response:
        said = word_of(fields.get("decision", ""), fields.get("to", ""), fields.get("code", ""))
        self._reader.decide(_viewer(request), review, said)
        return RedirectResponse("/reviews", 303)

    @_does(RUN_READ)
    def run(self, request: Request, run_id: Name) -> Response:
        return self._page(request, "run.html", "run", page=self._reader.run(run_id))

    @_does(AUDIT_READ)
    def audit(
        self,
        request: Request,
        principal: Text = "",
        action: Text = "",
        subject: Text = "",
        outcome: Text = "",
        before: Before = 0,
    ) -> Response:
        query = AuditQuery(principal.strip(), action.strip(), subject.strip(), outcome, before)
        page = self._reader.audit(_viewer(request), query)
        part = request.headers.get("hx-target", "").endswith("#entries")
        template = "audit_entries.html" if part else "audit.html"
        return self._page(request, template, "audit", page=page, outcomes=OUTCOMES)

    @_does(AUDIT_VERIFY)
    def verify(self, request: Request) -> Response:
        report = self._reader.verify()
        part = request.headers.get("hx-request") == "true"
        return self._page(request, "audit_report.html" if part else "verify.html", "audit", report=report)

    @_does(PUBLIC)
    def login_page(self, code: Text = "") -> Response:
        return self._signing_in(code=code)

    @_does(PUBLIC)
    def login(self, request: Request, fields: Form) -> Response:
        try:
            value = self._sessions.login(fields.get("code", ""))
        except Denied as e:
            return self._signing_in(error=e, status=403)
        answer = RedirectResponse("/", 303)
        secure = request.url.scheme == "https"
        answer.set_cookie(COOKIE, value, httponly=True, samesite="strict", secure=secure, path="/")
        return answer

    @_does(PUBLIC)
    def logout(self, request: Request) -> Response:
        if value := request.cookies.get(COOKIE):
            self._sessions.logout(value)
        answer = to_login()
        answer.delete_cookie(COOKIE, path="/", httponly=True, samesite="strict")
        return answer

    @_does(PUBLIC)
    def asset(self, request: Request, name: Name) -> Response:
        found = self._pages.assets.get(name)
        if found is None:
            raise _nowhere(self._pages)
        # An address with the right digest never changes its content; without it the browser asks again.
        fixed = request.query_params.get("v") == found.etag
        headers = {
            "Cache-Control": "public, max-age=31536000, immutable" if fixed else "no-cache",
            "ETag": f'"{found.etag}"',
        }
        if request.headers.get("if-none-match") == headers["ETag"]:
            return Response(status_code=304, headers=headers)
        return Response(found.body, media_type=found.media_type, headers=headers)

    def _page(self, request: Request, template: str, section: str, **context: Any) -> Response:
        return self._pages.render(
            template, principal=_viewer(request), frame=self._reader.frame(), section=section, **context
        )

    def _signing_in(self, code: str = "", error: Denied | None = None, status: int = 200) -> Response:
        return self._pages.render(
            "login.html", status=status, section="", code=code, error=error, command=self._login_command,
            provider=self._provider,
        )  # fmt: skip
