"""The web application around the routes: errors as JSON, and no route without an action."""

from __future__ import annotations

from collections.abc import Sequence

from fastapi import APIRouter, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from falaj.governance.identity.guard import PUBLIC, Guard
from falaj.kernel.errors import FalajError, Invalid, NotFound


def make_app(routers: Sequence[APIRouter], guard: Guard) -> FastAPI:
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
    undeclared = guard.undeclared(app)
    if undeclared:
        raise Invalid(
            f"routes without an action: {', '.join(undeclared)}",
            hint="make each with Guard.router, naming the action that it is",
            code="undeclared_route",
        )
    return app


def _falaj_error(_request: Request, error: FalajError) -> JSONResponse:
    return JSONResponse(error.as_dict(), status_code=error.status)


def _validation_error(_request: Request, error: RequestValidationError) -> JSONResponse:
    first = error.errors()[0] if error.errors() else {}
    place = ".".join(str(p) for p in first.get("loc", ())[1:])
    told = Invalid(
        f"the request is not acceptable: {place}: {first.get('msg', '')}",
        hint="see the API reference for this route",
        code="bad_request",
    )
    return JSONResponse(told.as_dict(), status_code=told.status)


def _http_error(_request: Request, error: HTTPException) -> JSONResponse:
    told = NotFound(f"there is nothing here ({error.detail})", hint="check the path and the method", code="no_route")
    return JSONResponse(told.as_dict(), status_code=error.status_code)
