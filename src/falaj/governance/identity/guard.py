"""What stands before every route.

A `Guard` makes routes; a route names its action, and there is no other way to make one. At start
`undeclared` walks the application's own route table, so a route that came in another way stops it.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from datetime import datetime
from typing import Any, Protocol

from fastapi import APIRouter, Depends, FastAPI, Request
from fastapi.routing import APIRoute
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response
from starlette.routing import BaseRoute, Mount
from starlette.types import Message

from falaj.governance.door import Door, Intent
from falaj.governance.identity.narrowing import Narrow, Own, Within, apart, narrowed
from falaj.governance.identity.peers import check_bearer
from falaj.governance.identity.verify import bearer
from falaj.kernel.access import Action, Principal, Resource
from falaj.kernel.errors import Invalid
from falaj.kernel.ids import id_of, new_id

_LONGEST_KEY = 200
MAX_BODY = 32 << 20
MAX_PUBLIC_BODY = 4 << 10
PUBLIC = Action("public", "read", "Platform", "open to everyone: says nothing about anyone")


class TooLarge(Invalid):
    """More than is read of one request."""

    status = 413


class Authenticator(Protocol):
    """Knows whom a token stands for."""

    def authenticate(self, token: str) -> Principal:
        """Raises `Unauthenticated`."""
        ...


class Guard:
    """Authenticates every request and authorises reads. Changes are authorised by the door, where
    all the facts about their resource are known."""

    def __init__(self, authenticator: Authenticator, door: Door) -> None:
        self._authenticator = authenticator
        self._door = door
        self.declared: dict[tuple[str, str], Action] = {}
        self.shared: set[tuple[str, str]] = set()

    def router(self, prefix: str, tag: str) -> GuardedRouter:
        """A router below `prefix` whose routes cannot be declared without an action."""
        return GuardedRouter(self, prefix, tag)

    def identify(self, request: Request) -> Principal:
        """Who is asking, remembered with the request. Raises `Unauthenticated`."""
        principal: Principal | None = getattr(request.state, "principal", None)
        if principal is None:
            principal = self._authenticator.authenticate(bearer(request.headers.get("authorization", "")))
            check_bearer(getattr(request.state, "peer", None), principal.name)
            request.state.principal = principal
        return principal

    def own(self, request: Request, action: Action) -> Own | None:
        """What whoever asks may see, where their token is bound to a project; None where it is bound to none."""
        principal = self.identify(request)
        return Within(self._door, principal, action) if principal.project else None

    def before(self, action: Action, shared: bool = False) -> Callable[[Request], None]:
        """The dependency that runs before a route of this action. Of a `shared` list the rows are asked about afterwards, each
        with the project; here it is asked whether the roles allow the list.
        """

        def check(request: Request) -> None:
            principal = self.identify(request)
            name = next(iter(request.path_params.values()), "*")
            if shared and not request.path_params:
                principal = apart(principal)
            intent = Intent(principal, action, Resource(action.resource, str(name)))
            self._door.check_within(intent)
            if action.group in ("read", "audit"):
                self._door.check(intent)

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
        self.router = APIRouter(prefix=prefix, tags=[tag], route_class=_known_first(guard))

    def get(self, path: str, action: Action, **options: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        """A GET route that needs `action`."""
        return self._route("GET", path, action, options)

    def shared(
        self, path: str, action: Action, narrow: Narrow, **options: Any
    ) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        """A GET route that a token bound to a project may ask as well: it gets what `narrow` leaves of the answer."""

        def add(endpoint: Callable[..., Any]) -> Callable[..., Any]:
            self._guard.shared.add(("GET", self._prefix + path))
            answer = narrowed(endpoint, action, narrow, self._guard)
            return self._route("GET", path, action, options, shared=True)(answer)

        return add

    def post(self, path: str, action: Action, **options: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        """A POST route that needs `action`."""
        return self._route("POST", path, action, options)

    def delete(self, path: str, action: Action, **options: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        """A DELETE route that needs `action`."""
        return self._route("DELETE", path, action, options)

    def _route(
        self, method: str, path: str, action: Action, options: dict[str, Any], shared: bool = False
    ) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        def add(endpoint: Callable[..., Any]) -> Callable[..., Any]:
            declare(endpoint, action)
            self._guard.declared[method, self._prefix + path] = action
            dependencies = [] if action is PUBLIC else [Depends(self._guard.before(action, shared))]
            self.router.add_api_route(
                path, endpoint, methods=[method], dependencies=dependencies, summary=action.summary, **options
            )
            return endpoint

        return add


def _known_first(guard: Guard) -> type[APIRoute]:
    """Routes that read no body before they know who sends it, and no more of one than they can use."""

    class Known(APIRoute):
        def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
            handle = super().get_route_handler()
            public = getattr(self.endpoint, "__falaj_action__", None) is PUBLIC

            async def known(request: Request) -> Response:
                if not public:
                    await run_in_threadpool(guard.identify, request)
                most = MAX_PUBLIC_BODY if public else MAX_BODY
                return await handle(_limited(request, most) if self.body_field is not None else request)

            return known

    return Known


def _limited(request: Request, most: int) -> Request:
    """The request; reading it raises `TooLarge` once its body is larger than is ever needed."""
    size = 0

    async def receive() -> Message:
        nonlocal size
        message = await request.receive()
        size += len(message.get("body", b""))
        if size > most:
            raise TooLarge(
                f"the body is larger than {most:,} bytes", hint="send it in several requests", code="too_large"
            )
        return message

    return Request(request.scope, receive)


def declare(endpoint: Callable[..., Any], action: Action) -> None:
    """Mark an endpoint with its action. An endpoint serves one action only."""
    earlier = getattr(endpoint, "__falaj_action__", action)
    if earlier != action:
        raise Invalid(
            f"{endpoint.__name__} already declares {earlier.name}",
            hint="write a second endpoint",
            code="action_declared_twice",
        )
    endpoint.__falaj_action__ = action  # type: ignore[attr-defined]


def actor(request: Request) -> Principal:
    """Who is asking; only behind a guarded route."""
    principal: Principal = request.state.principal
    return principal


def flow_id(request: Request, prefix: str, now: datetime) -> str:
    """The id of the flow that a request starts.

    Whoever got no answer may ask again with the same `Idempotency-Key`: the same flow is meant then, and none is
    started beside it. Keys are each principal's own, for one path. Raises `Invalid` for one above 200 characters.
    """
    key = request.headers.get("idempotency-key", "")
    if len(key) > _LONGEST_KEY:
        raise Invalid(
            f"the Idempotency-Key has {len(key)} characters",
            hint=f"use up to {_LONGEST_KEY}: a UUID will do",
            code="bad_idempotency_key",
        )
    return id_of(prefix, actor(request).name, request.url.path, key) if key else new_id(prefix, now)


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
