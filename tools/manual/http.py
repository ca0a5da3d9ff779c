"""The page of both planes' routes."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec
from starlette.routing import BaseRoute

from falaj.governance.identity.guard import PUBLIC
from falaj.kernel.access import Action
from falaj.lifecycle.serving.plane.app import ROUTES, Public
from tools.manual.opened import opened
from tools.manual.tables import table


class Route(msgspec.Struct, frozen=True):
    """A row of the API: its tag, method and path, what it does, and what it takes."""

    tag: str
    method: str
    path: str
    action: Action
    query: tuple[str, ...]
    body: tuple[str, ...]


def api() -> str:
    """The routes of both planes, from the tables that they serve by."""
    served = routes()
    parts = []
    for tag in dict.fromkeys(r.tag for r in served if r.tag):
        rows = [
            (r.method, f"`{r.path}`", _action(r.action), r.action.summary, _takes(r)) for r in served if r.tag == tag
        ]
        parts.append(f"### {tag}\n\n{table(('method', 'path', 'action', 'what it does', 'takes'), rows)}")
    shown = [(r.method, f"`{r.path}`", _action(r.action)) for r in served if not r.tag]
    plane = [
        (r.method, f"`{r.path}`", "public" if isinstance(r.access, Public) else f"`{r.access.name}`",
         r.access.reason if isinstance(r.access, Public) else r.access.summary)
        for r in ROUTES
    ]  # fmt: skip
    return f"""# HTTP

Send `Authorization: Bearer TOKEN`. Bodies and answers are JSON. Who may do which action stands in
[actions](actions.md). An error has the same form everywhere:

```json
{{"error": "…", "kind": "denied", "code": "denied_by_policy", "hint": "what to do next", "details": {{}}}}
```

## Control plane

`falaj status` prints its address. Work that takes long answers 202 with the id of a flow; ask
`/api/v1/flows/{{flow}}?wait=20` until its `state` is `done` or `failed`.

{chr(10).join(parts)}
### console

Pages for a browser, behind a session that a one-time link opens (`falaj console`).

{table(("method", "path", "action"), shown)}
## Data plane

It speaks the [Open Inference Protocol v2](https://github.com/kserve/open-inference-protocol); see
[call a model](../how-to/call-a-model.md).

{table(("method", "path", "action", "what it does"), plane)}"""


@functools.cache
def routes() -> tuple[Route, ...]:
    """The control plane's routes, from the application that a home of its own is served by."""
    return tuple(_route(path, route) for path, route in _leaves(opened().routes, ""))


def _leaves(routing: Sequence[BaseRoute], prefix: str) -> Iterator[tuple[str, Any]]:
    for route in routing:
        included = getattr(route, "original_router", None)  # how FastAPI keeps an included router
        path = prefix + getattr(route, "path", "")
        if included is not None:
            yield from _leaves(included.routes, path)
        else:
            yield path, route


def _route(path: str, route: Any) -> Route:
    body = getattr(route.body_field, "field_info", None)
    fields = getattr(getattr(body, "annotation", None), "model_fields", {})
    return Route(
        tag=next((str(t) for t in route.tags), ""),
        method=", ".join(sorted(route.methods)),
        path=path.replace(":path}", "}"),
        action=route.endpoint.__falaj_action__,
        query=tuple(p.name for p in _query(route.dependant)),
        body=tuple(n if f.is_required() else f"{n}?" for n, f in fields.items()),
    )


def _query(dependant: Any) -> Iterator[Any]:
    """The query's parameters of a route, those of what it depends on too."""
    yield from dependant.query_params
    for below in dependant.dependencies:
        yield from _query(below)


def _action(action: Action) -> str:
    return "public" if action is PUBLIC else f"`{action.name}`"


def _takes(route: Route) -> str:
    query = [f"`?{name}=`" for name in route.query]
    body = [f"`{{{', '.join(route.body)}}}`"] if route.body else []
    return " ".join(query + body)
