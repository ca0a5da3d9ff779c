"""What stands before every route.

A `Guard` makes routes; a route names its action, and there is no other way to make one. At start
`undeclared` walks the application's own route table, so a route that came in another way stops it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from fastapi import APIRouter, Depends, FastAPI, Request
from starlette.routing import BaseRoute, Mount

from falaj.governance.door import Door, Intent
from falaj.governance.identity.verify import bearer
from falaj.kernel.access import Action, Principal, Resource
from falaj.kernel.errors import Invalid

PUBLIC = Action("public", "read", "Platform", "open to everyone: says nothing about anyone")


class Authenticator(Protocol):
    def authenticate(self, token: str) -> Principal: ...


class Guard:
    """Authenticates every request and authorises reads. Changes are authorised by the door, where
    all the facts about their resource are known."""

    def __init__(self, authenticator: Authenticator, door: Door) -> None:
        self._authenticator = authenticator
        self._door = door
        self.declared: dict[tuple[str, str], Action] = {}

    def router(self, prefix: str, tag: str) -> GuardedRouter:
        return GuardedRouter(self, prefix, tag)

    def before(self, action: Action) -> Callable[[Request], None]:
        """The dependency that runs before a route of this action."""

        def check(request: Request) -> None:
            principal = self._authenticator.authenticate(bearer(request.headers.get("authorization", "")))
            request.state.principal = principal
            if action.group in ("read", "audit"):
                name = next(iter(request.path_params.values()), "*")
                self._door.check(Intent(principal, action, Resource(action.resource, str(name))))

        return check

    def undeclared(self, app: FastAPI) -> list[str]:
        """Routes of the application that declare no action."""
        missing: list[str] = []
        for path, methods, route in _walk(app.routes, ""):
            marked = [getattr(route, "endpoint", None), *(d.dependency for d in getattr(route, "dependencies", ()))]
            if not any(hasattr(m, "__falaj_action__") for m in marked):
                missing.append(f"{'/'.join(sorted(methods)) or '*'} {path}")
        return missing


class GuardedRouter:
    """Routes of one stage; each names its action."""

    def __init__(self, guard: Guard, prefix: str, tag: str) -> None:
        self._guard = guard
        self._prefix = prefix
        self.router = APIRouter(prefix=prefix, tags=[tag])

    def get(self, path: str, action: Action, **options: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        return self._route("GET", path, action, options)

    def post(self, path: str, action: Action, **options: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        return self._route("POST", path, action, options)

    def delete(self, path: str, action: Action, **options: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        return self._route("DELETE", path, action, options)

    def _route(
        self, method: str, path: str, action: Action, options: dict[str, Any]
    ) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        def add(endpoint: Callable[..., Any]) -> Callable[..., Any]:
            declare(endpoint, action)
            self._guard.declared[method, self._prefix + path] = action
            dependencies = [] if action is PUBLIC else [Depends(self._guard.before(action))]
            self.router.add_api_route(
                path, endpoint, methods=[method], dependencies=dependencies, summary=action.summary, **options
            )
            return endpoint

        return add


def declare(endpoint: Callable[..., Any], action: Action) -> None:
    """Mark an endpoint with its action. An endpoint serves one action only."""
    earlier = getattr(endpoint, "__falaj_action__", action)
    if earlier != action:
        raise Invalid(f"{endpoint.__name__} already declares {earlier.name}", hint="write a second endpoint")
    endpoint.__falaj_action__ = action  # type: ignore[attr-defined]


def actor(request: Request) -> Principal:
    """Who is asking; only behind a guarded route."""
    principal: Principal = request.state.principal
    return principal


def _walk(routes: list[BaseRoute], prefix: str) -> list[tuple[str, set[str], BaseRoute]]:
    found: list[tuple[str, set[str], BaseRoute]] = []
    for route in routes:
        path = prefix + getattr(route, "path", "")
        included = getattr(route, "original_router", None)  # how FastAPI keeps an included router
        if included is not None:
            found += _walk(list(included.routes), path)
        elif isinstance(route, Mount) and route.routes:
            found += _walk(list(route.routes), path)
        else:
            found.append((path, set(getattr(route, "methods", None) or ()), route))
    return found
