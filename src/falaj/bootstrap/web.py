"""The web application around the routes: errors as JSON, and no route without an action."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from http import HTTPStatus
from pathlib import Path

from fastapi import APIRouter, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from falaj.governance.identity.guard import PUBLIC, Guard
from falaj.governance.identity.narrowing import discreet
from falaj.kernel.access import Principal
from falaj.kernel.disk import refusal
from falaj.kernel.errors import FalajError, Invalid, NotFound, Unavailable


def make_app(routers: Sequence[APIRouter], guard: Guard, home: Path) -> FastAPI:
    """The application. Raises `Invalid` when a route declares no action: nothing unlisted is ever open."""
    app = FastAPI(title="Falaj", version="1", openapi_url=None, docs_url=None, redoc_url=None)
    open_routes = guard.router("", "health")

    @open_routes.get("/health", PUBLIC)
    def health() -> dict[str, str]:
        return {"status": "ok"}

    for router in (open_routes.router, *routers):
        app.include_router(router)
    app.exception_handler(FalajError)(_falaj_error)
    app.exception_handler(RequestValidationError)(_validation_error)
    app.exception_handler(HTTPException)(_http_error)
    app.exception_handler(Exception)(_fault(home))
    undeclared = guard.undeclared(app)
    if undeclared:
        raise Invalid(
            f"routes without an action: {', '.join(undeclared)}",
            hint="make each with Guard.router, naming the action that it is",
            code="undeclared_route",
        )
    return app


def _falaj_error(request: Request, error: FalajError) -> JSONResponse:
    principal: Principal | None = getattr(request.state, "principal", None)
    told = discreet(error.as_dict()) if principal is not None and principal.project else error.as_dict()
    return JSONResponse(told, status_code=error.status)


def _fault(home: Path) -> Callable[[Request, Exception], JSONResponse]:
    """What is left is an answer too: the disk's refusal in words, or a fault of ours, whose trace is in the log."""

    def answer(_request: Request, error: Exception) -> JSONResponse:
        told = refusal(error, home) or Unavailable(
            f"the control plane failed at this: {type(error).__name__}",
            hint="nothing was changed by what failed; the trace is in control-plane.log in the home's run folder",
            code="control_plane_fault",
        )
        return JSONResponse(told.as_dict(), status_code=told.status)

    return answer


def _validation_error(_request: Request, error: RequestValidationError) -> JSONResponse:
    first = error.errors()[0] if error.errors() else {}
    place = ".".join(str(p) for p in first.get("loc", ())[1:])
    if first.get("type") == "json_invalid":
        why = f"the body is not JSON: {first.get('ctx', {}).get('error', '')} at character {place}"
    else:
        why = f"the request is not acceptable: {place}: {first.get('msg', '')}"
    told = Invalid(
        why,
        hint="see the API reference for this route",
        code="bad_request",
    )
    return JSONResponse(told.as_dict(), status_code=told.status)


def _http_error(request: Request, error: HTTPException) -> JSONResponse:
    cause = error.__cause__
    if isinstance(cause, FalajError):
        return _falaj_error(request, cause)
    if error.status_code == HTTPStatus.BAD_REQUEST:  # FastAPI could not read the body
        why = "it is nested too deeply" if isinstance(cause, RecursionError) else str(cause or error.detail)
        unread = Invalid(
            f"the body cannot be read: {why}"[:300], hint="see the API reference for this route", code="bad_request"
        )
        return JSONResponse(unread.as_dict(), status_code=error.status_code)
    told = NotFound(f"there is nothing here ({error.detail})", hint="check the path and the method", code="no_route")
    return JSONResponse(told.as_dict(), status_code=error.status_code)
