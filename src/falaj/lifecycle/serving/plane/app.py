"""Routes, each with its action; requests in, answers out. RSGI:
https://github.com/emmett-framework/granian/blob/master/docs/spec/RSGI.md

Errors are `{"error", "code", "hint", "kind", "details"}`; what is wrong with the input is 400, as the
Open Inference Protocol has it, and never 5xx.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from time import perf_counter
from typing import Any, Protocol

import msgspec
from granian.rsgi import ProtocolClosed  # type: ignore[attr-defined]  # public, but not said so to type checkers

from falaj.kernel.access import Action, Principal
from falaj.kernel.clock import Clock
from falaj.kernel.errors import FalajError, Invalid, NotFound, Unauthenticated
from falaj.kernel.log import logger
from falaj.lifecycle.serving.model import OBSERVE, PREDICT, PlaneStatus
from falaj.lifecycle.serving.plane.generations import Generations
from falaj.lifecycle.serving.plane.inference import Inference
from falaj.lifecycle.serving.plane.metrics import CONTENT_TYPE, exposition
from falaj.lifecycle.serving.plane.protocol import LARGE, metadata, read_request

MAX_BODY = 4 << 20
BODY_SECONDS = 5.0
_REMEMBERED_PATH = 300  # characters


class Public(msgspec.Struct, frozen=True):
    """Explicitly open to everyone, and why."""

    name: str
    reason: str


HEALTH = Public("serving.health", "probes carry no token; the answers say nothing about models or callers")


class Observer(Protocol):
    """What the application asks its worker about."""

    def status(self) -> PlaneStatus:
        """This worker's status now."""
        ...

    def all_workers(self) -> list[PlaneStatus]:
        """This worker's status now, and the others' as they last wrote it."""
        ...

    def alive(self) -> bool:
        """Whether the housekeeping still runs."""
        ...

    def check_caller(self, scope: Any, principal: Principal) -> None:
        """Raise `Denied` unless the principal's token may come over this request's connection."""
        ...


class TooLarge(Invalid):
    """The body is larger than the limit."""

    status = 413


class NotAllowed(Invalid):
    """The path has no such method."""

    status = 405


class SlowBody(Invalid):
    """The body did not come in time."""

    status = 408


class Call:
    """One request that was routed and, unless the route is public, permitted."""

    __slots__ = ("app", "parameters", "principal", "proto", "scope", "started")

    def __init__(
        self, app: App, scope: Any, proto: Any, parameters: dict[str, str], principal: str, started: float
    ) -> None:
        self.app, self.scope, self.proto, self.parameters = app, scope, proto, parameters
        self.principal, self.started = principal, started


Reply = tuple[int, list[tuple[str, str]], bytes]
Handler = Callable[[Call], Awaitable[Reply]]


class Route(msgspec.Struct, frozen=True):
    """A method and a path pattern, who may use it, what answers. There is no route without access."""

    method: str
    path: str
    access: Action | Public
    handler: Handler

    def __post_init__(self) -> None:
        if not isinstance(self.access, (Action, Public)):
            raise Invalid(
                f"{self.method} {self.path} declares no action",
                hint="give the route an Action, or Public with a reason",
                code="route_without_action",
            )


_JSON = [("content-type", "application/json"), ("cache-control", "no-store"), ("x-content-type-options", "nosniff")]
_TEXT = [("content-type", CONTENT_TYPE), ("cache-control", "no-store"), ("x-content-type-options", "nosniff")]
_encode = msgspec.json.encode


async def server_metadata(call: Call) -> Reply:
    """`GET /v2`."""
    return 200, _JSON, _encode({"name": "falaj", "version": call.app.version, "extensions": []})


async def live(call: Call) -> Reply:
    """`GET /v2/health/live`."""
    if call.app.observer.alive():
        return 200, _JSON, b'{"live":true}'
    return (
        400,
        _JSON,
        b'{"live":false,"error":"housekeeping has stopped","code":"not_live","hint":"restart this process"}',
    )


async def ready(call: Call) -> Reply:
    """`GET /v2/health/ready`: whether every planned model can answer."""
    if call.app.generations.state.ready:
        return 200, _JSON, b'{"ready":true}'
    return 400, _JSON, _encode({"ready": False, "error": "not every planned model can answer", "code": "not_ready",
                                "hint": "GET /falaj/v1/status says why"})  # fmt: skip


async def model_metadata(call: Call) -> Reply:
    """`GET /v2/models/{model}[/versions/{version}]`."""
    model = call.app.generations.state.model(call.parameters["model"])
    label = call.parameters.get("version")
    route = model.named(label) if label else model.stable()
    version = route.version
    return 200, _JSON, _encode(metadata(version.contract, [r.version.label for r in model.routes], version.shapes))


async def model_ready(call: Call) -> Reply:
    """`GET /v2/models/{model}[/versions/{version}]/ready`."""
    model = call.app.generations.state.model(call.parameters["model"])
    label = call.parameters.get("version")
    if label:
        model.named(label)
    else:
        model.stable()
    return 200, _JSON, _encode({"name": model.name, "ready": True})


async def infer(call: Call) -> Reply:
    """`POST /v2/models/{model}[/versions/{version}]/infer`."""
    headers = call.scope.headers
    if "inference-header-content-length" in headers or (
        "content-encoding" in headers and headers.get("content-encoding") != "identity"
    ):
        raise Invalid("the body is binary or compressed", hint="send plain JSON", code="binary_not_supported")
    body_read = await call.app.bodies.read(call.scope, call.proto)
    if len(body_read) > LARGE:
        async with call.app.turn:
            request = read_request(body_read)
            await asyncio.sleep(0)  # those who came meanwhile are answered before the next large one is read
    else:
        request = read_request(body_read)
    parameters = call.parameters
    body = await call.app.inference.answer(
        call.app.generations.state,
        parameters["model"],
        parameters.get("version", ""),
        request,
        call.principal,
        call.started,
    )
    return 200, _JSON, body


async def status(call: Call) -> Reply:
    """`GET /falaj/v1/status`: this worker, for people."""
    return 200, _JSON, _encode(call.app.observer.status())


async def metrics(call: Call) -> Reply:
    """`GET /metrics`: all workers, for Prometheus."""
    return 200, _TEXT, exposition(call.app.observer.all_workers()).encode()


ROUTES: tuple[Route, ...] = (
    Route("GET", "/v2", HEALTH, server_metadata),
    Route("GET", "/v2/health/live", HEALTH, live),
    Route("GET", "/v2/health/ready", HEALTH, ready),
    Route("GET", "/v2/models/{model}", PREDICT, model_metadata),
    Route("GET", "/v2/models/{model}/versions/{version}", PREDICT, model_metadata),
    Route("GET", "/v2/models/{model}/ready", PREDICT, model_ready),
    Route("GET", "/v2/models/{model}/versions/{version}/ready", PREDICT, model_ready),
    Route("POST", "/v2/models/{model}/infer", PREDICT, infer),
    Route("POST", "/v2/models/{model}/versions/{version}/infer", PREDICT, infer),
    Route("GET", "/falaj/v1/status", OBSERVE, status),
    Route("GET", "/metrics", OBSERVE, metrics),
)


class Router:
    """From a path to its routes by method."""

    def __init__(self, routes: tuple[Route, ...]) -> None:
        self._patterns: dict[int, list[tuple[list[str], dict[str, Route]]]] = {}
        self._found: dict[str, tuple[dict[str, Route], dict[str, str]]] = {}
        for route in routes:
            parts = route.path.split("/")
            known = self._patterns.setdefault(len(parts), [])
            for pattern, methods in known:
                if pattern == parts:
                    methods[route.method] = route
                    break
            else:
                known.append((parts, {route.method: route}))

    def find(self, path: str) -> tuple[dict[str, Route], dict[str, str]]:
        """(routes by method, path parameters). Raises `NotFound`."""
        found = self._found.get(path)
        if found is None:
            found = self._match(path)
            if len(path) > _REMEMBERED_PATH:  # whoever asks is not known yet, and may ask for anything
                return found
            if len(self._found) >= 1000:
                self._found.clear()
            self._found[path] = found
        return found

    def _match(self, path: str) -> tuple[dict[str, Route], dict[str, str]]:
        parts = path.split("/")
        for pattern, methods in self._patterns.get(len(parts), ()):
            parameters = {}
            for wanted, part in zip(pattern, parts, strict=True):
                if wanted[:1] == "{":
                    parameters[wanted[1:-1]] = part
                elif wanted != part:
                    break
            else:
                return methods, parameters
        raise NotFound(f"there is nothing at {path[:80]!r}", hint="GET /v2 describes this server", code="no_such_path")


class App:
    """The RSGI application of one worker."""

    def __init__(
        self, generations: Generations, inference: Inference, clock: Clock, version: str, observer: Observer
    ) -> None:
        self.generations = generations
        self.inference = inference
        self.version = version
        self.observer = observer
        self.bodies = Bodies()
        self.turn = asyncio.Lock()  # of large bodies, one of which may take a tenth of a second
        self.responses: dict[int, int] = {}
        self._clock = clock
        self._router = Router(ROUTES)
        self._log = logger(__name__)

    async def __rsgi__(self, scope: Any, proto: Any) -> None:
        """Answer one request, whatever happens."""
        started = perf_counter()
        if scope.proto != "http":
            proto.close(403)
            return
        try:
            code, headers, body = await self._answer(scope, proto, started)
        except FalajError as e:
            code, headers, body = _refusal(e)
        except ProtocolClosed:
            return  # the caller hung up before it had sent its request
        except Exception as e:  # the last line of defence: a fault of ours must be an answer and a log line, not a hang
            self._log.error("request failed", path=scope.path[:200], error=f"{type(e).__name__}: {e}", exc_info=e)
            code, headers, body = (
                500,
                _JSON,
                b'{"error":"the data plane failed","code":"internal_error","hint":"see its log"}',
            )
        self.responses[code] = self.responses.get(code, 0) + 1
        proto.response_bytes(code, headers, body)

    async def _answer(self, scope: Any, proto: Any, started: float) -> Reply:
        methods, parameters = self._router.find(scope.path)
        route = methods.get(scope.method)
        # A wrong method is told only to those who may use the right one.
        access = (route or next(iter(methods.values()))).access
        principal = ""
        if isinstance(access, Action):
            resource = parameters.get("model") or self.generations.trust.environment
            header = scope.headers.get("authorization") or ""
            caller = self.generations.state.permits.admit(header, access, resource, self._clock.now())
            self.observer.check_caller(scope, caller)
            principal = caller.name
        if route is None:
            allowed = ", ".join(sorted(methods))
            raise NotAllowed(f"{scope.method[:20]} is not possible here", hint=f"use {allowed}", code="method_not_allowed",
                             details={"allow": allowed})  # fmt: skip
        return await route.handler(Call(self, scope, proto, parameters, principal, started))


class Bodies:
    """Reads request bodies, and gives up on those that do not arrive.

    One timer looks at all bodies under way: a timer for each would cost as much as the reading.
    """

    def __init__(self) -> None:
        self._reading: dict[asyncio.Task[Any], float] = {}
        self._timer: asyncio.TimerHandle | None = None

    async def read(self, scope: Any, proto: Any) -> bytes:
        """The whole body. Raises `TooLarge` beyond MAX_BODY and `SlowBody` after about BODY_SECONDS."""
        announced = scope.headers.get("content-length")
        fits = announced is not None and announced.isdigit() and len(announced) < 12 and int(announced) <= MAX_BODY
        task = asyncio.current_task()
        assert task is not None  # noqa: S101  # a coroutine that runs is in a task
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(1.0, self._give_up)
        self._reading[task] = perf_counter()
        try:
            if fits:
                body: bytes = await proto()
                return body
            return await _in_parts(proto)
        except asyncio.CancelledError:
            if task in self._reading or task.uncancel() > 0:
                raise
            raise SlowBody(
                f"the body did not arrive within {BODY_SECONDS:g} s", hint="send it at once", code="slow_body"
            ) from None
        finally:
            self._reading.pop(task, None)

    def _give_up(self) -> None:
        late = perf_counter() - BODY_SECONDS
        for task in [t for t, since in self._reading.items() if since < late]:
            del self._reading[task]
            task.cancel()
        self._timer = asyncio.get_running_loop().call_later(1.0, self._give_up) if self._reading else None


async def _in_parts(proto: Any) -> bytes:
    """A body whose length is not known or too large. Somewhat more than fits is read and dropped, because a
    caller that is still sending would not see the answer."""
    parts: list[bytes] = []
    size = 0
    async for part in proto:
        size += len(part)
        if size <= MAX_BODY:
            parts.append(bytes(part))
        else:
            parts.clear()
        if size > 4 * MAX_BODY:
            break
    if size > MAX_BODY:
        raise TooLarge(
            f"the body is larger than {MAX_BODY} bytes",
            hint="send fewer rows in a request, or score in batch",
            code="too_large",
        )
    return b"".join(parts)


def _refusal(error: FalajError) -> Reply:
    code = 400 if type(error) is Invalid else error.status
    headers = _JSON
    if isinstance(error, Unauthenticated):
        headers = [*_JSON, ("www-authenticate", "Bearer")]
    elif isinstance(error, NotAllowed):
        headers = [*_JSON, ("allow", str(error.details["allow"]))]
    elif isinstance(error, (TooLarge, SlowBody)):
        headers = [*_JSON, ("connection", "close")]  # what is left of the body must not be read as a request
    return code, headers, _encode(error.as_dict())
