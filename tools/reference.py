"""Write the pages of docs/reference from the code: `python tools/reference.py`.

A test compares each page with what the code says now, so none of them can grow old.
"""

from __future__ import annotations

import ast
import functools
import inspect
import itertools
import sys
import tempfile
import textwrap
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
from cyclopts import App
from starlette.routing import BaseRoute

from falaj.bootstrap.control_plane import ControlPlane
from falaj.bootstrap.control_plane import actions as declared_actions
from falaj.entrypoints.cli.app import app as cli
from falaj.entrypoints.control_plane import application
from falaj.governance.identity.guard import PUBLIC
from falaj.governance.identity.model import ROLES
from falaj.governance.policy.decide import CedarAuthoriser, default_policy, environment_policy
from falaj.kernel.access import SYSTEM, Action, Principal, Question, Resource
from falaj.kernel.environments import ENVIRONMENTS
from falaj.kernel.settings import Settings
from falaj.lifecycle.serving.plane.app import ROUTES, Public

FOLDER = Path(__file__).resolve().parent.parent / "docs" / "reference"
MADE = "<!-- made from the code by `python tools/reference.py`; a test compares them -->"
_SOMEBODY = {"__entity": {"type": "Principal", "id": "somebody-else"}}
_FAVOURABLE = {"author": _SOMEBODY, "purpose": "asked", "purposes": ["asked"]}
"""Facts under which no rule of the default policy forbids: another author, a purpose that the data allows."""


Function = ast.FunctionDef | ast.AsyncFunctionDef
_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
_VALUES = {
    "--as": "NAME", "--as-of": "TIME", "--by": "PERIOD", "--data": "FILE", "--from": "DAY", "--param": "NAME=VALUE",
    "--until": "DAY",
}  # fmt: skip
"""What an option's value is called, where the option's own name would not say it."""


class Route(msgspec.Struct, frozen=True):
    """A row of the API: its tag, method and path, what it does, and what it takes."""

    tag: str
    method: str
    path: str
    action: Action
    query: tuple[str, ...]
    body: tuple[str, ...]


def pages() -> dict[str, str]:
    """Every page by file name, as it should be now."""
    return {name: f"{MADE}\n{make().rstrip()}\n" for name, make in PAGES.items()}


# ── Settings ─────────────────────────────────────────────────────────────────────────────────────


def settings() -> str:
    """Each field of `Settings` with its variable, its default and its docstring."""
    told = _docstrings(Settings)
    rows = [
        (f"`{f.name}`", f"`FALAJ_{f.name.upper()}`", _default(f.default), told[f.name])
        for f in msgspec.structs.fields(Settings)
    ]
    return f"""# Settings

Each is read from its environment variable, else from the table `[falaj]` of `falaj.toml` in the present folder or a
parent of it, else it has its default. Paths in the file are relative to the file. An unknown name or a value of the
wrong kind is refused.

```toml
[falaj]
home = ".falaj"
approvals = 2
```

{_table(("setting", "variable", "default", "what it is"), rows)}"""


def _docstrings(kind: type) -> dict[str, str]:
    """The string below each field."""
    (tree,) = ast.parse(textwrap.dedent(inspect.getsource(kind))).body
    body = tree.body if isinstance(tree, ast.ClassDef) else []
    return {
        field.target.id: text.value.value.strip()
        for field, text in itertools.pairwise(body)
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)
        if isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant) and isinstance(text.value.value, str)
    }


def _default(value: object) -> str:
    return f"`{value}`" if str(value) else "empty"


# ── Actions ──────────────────────────────────────────────────────────────────────────────────────


def actions() -> str:
    """Each action with the roles that the default policy lets do it, as Cedar answers."""
    authoriser = CedarAuthoriser(default_policy(), all_actions())
    rows = [
        (f"`{a.name}`", a.group, a.resource, a.summary, _who(authoriser, a), _forbidding(authoriser, a))
        for a in all_actions()
    ]
    head = ("action", "group", "done to", "what it is", "roles", "forbidden unless")
    return f"""# Actions

Whatever somebody can do has a name, and a rule must permit it. This is how the policy of a new home
([default.cedar](../../src/falaj/governance/policy/default.cedar)) answers: default is deny, any forbid wins, and a rule
that cannot be evaluated denies. A rule in the last column forbids for every role while its condition does not hold.

Roles: {", ".join(f"`{r}`" for r in ROLES)}.
*platform* is Falaj itself, within a flow that somebody started; nobody can be given that role.

{_table(head, rows)}
## In an environment

What is done to something in an environment is decided by that environment's own policy on top
([environments](../../src/falaj/governance/policy/environments)). Where roles differ from the table above:

{_table(("action", *ENVIRONMENTS), _by_environment(authoriser))}"""


def _by_environment(default: CedarAuthoriser) -> list[tuple[str, ...]]:
    """The actions that an environment decides otherwise than the default, with the roles in each."""
    own = [CedarAuthoriser(environment_policy(name), all_actions()) for name in ENVIRONMENTS]
    found = [(a, [_who(authoriser, a) for authoriser in own]) for a in all_actions()]
    return [(f"`{a.name}`", *who) for a, who in found if set(who) != {_who(default, a)}]


def all_actions() -> list[Action]:
    """Every declared action once, in the channel's order."""
    return list({a.name: a for a in reversed(declared_actions())}.values())[::-1]


def _who(authoriser: CedarAuthoriser, action: Action) -> str:
    principals = [*(Principal("asker", roles=(r,)) for r in ROLES), SYSTEM]
    facts = Resource(action.resource, "it", _FAVOURABLE)
    able = [p.roles[0] for p in principals if authoriser.decide(Question(p, action.name, facts)).allowed]
    people = [r for r in able if r in ROLES]
    others = [r for r in ROLES if r not in people]
    if len(others) == 1:
        return f"all but {others[0]}"
    return ", ".join(people) or ("*platform*" if able else "nobody")


def _forbidding(authoriser: CedarAuthoriser, action: Action) -> str:
    """The rules that forbid as long as nothing is known about the resource."""
    everything = Principal("asker", roles=ROLES)
    decision = authoriser.decide(Question(everything, action.name, Resource(action.resource, "it")))
    return ", ".join(f"`{r}`" for r in decision.rules if not decision.allowed)


# ── Audit events ─────────────────────────────────────────────────────────────────────────────────


def audit_events() -> str:
    """Each action with the outcomes that the log can hold, as the code calls the door."""
    calls = door_calls()
    guarded = {r.action.name for r in routes() if r.action.group in ("read", "audit")}
    rows = []
    for action in all_actions():
        how = calls.get(action.name, set()) | ({"check"} if action.name in guarded else set())
        outcomes = sorted({o for h in how for o in _OUTCOMES[h]}, key=("done", "denied", "refused").index)
        rows.append((f"`{action.name}`", action.resource, ", ".join(outcomes) or "–", action.summary))
    return f"""# Audit events

An entry of the log says when, who (and for whom the platform acted), which action, to which thing, with which outcome,
under which operation, and details: digests, numbers, names, the reason of a refusal.

| outcome | means |
|---|---|
| `done` | it was permitted, it was done, and both were committed together |
| `denied` | policy said no; the rules that decided stand in the entry |
| `refused` | policy said yes, but a gate, a check or the state of things said no; code and reason stand in the entry |

“–” means that the log never holds it: it changes nothing itself, or it happens on the data plane, which keeps a
record of every prediction instead.

{_table(("action", "subject", "outcomes", "what it is"), rows)}"""


_OUTCOMES: dict[str, tuple[str, ...]] = {
    "change": ("done", "denied", "refused"),
    "read": ("done", "denied"),
    "check": ("denied",),
    "refuse": ("refused",),
}


def door_calls() -> dict[str, set[str]]:
    """Action → methods of the door that are called with it, read from the functions that name both.

    A private function that others of its module call lends them its part: `_intent` the action, `_move` the call.
    """
    found: dict[str, set[str]] = {}
    for name, module in sorted(sys.modules.items()):
        if not name.startswith("falaj.") or name.startswith("falaj.entrypoints.cli"):
            continue
        known = {key: value for key, value in vars(module).items() if isinstance(value, Action)}
        if not known:
            continue
        functions = [f for f in ast.walk(ast.parse(inspect.getsource(module))) if isinstance(f, _FUNCTIONS)]
        named = {f.name: {known[n] for n in _names(f) if n in known} for f in functions}
        asked = {f.name: set(_door_methods(f)) for f in functions}
        for f in functions:
            helpers = {c for c in _calls(f) if c.startswith("_") and c in named}
            methods = asked[f.name].union(*(asked[h] for h in helpers))
            for action in named[f.name].union(*(named[h] for h in helpers)):
                found.setdefault(action.name, set()).update(methods)
    return found


def _own(function: Function) -> Iterator[ast.AST]:
    """What stands in a function itself: neither its decorators nor the functions in it."""
    waiting: list[ast.AST] = list(function.body)
    while waiting:
        node = waiting.pop()
        yield node
        if not isinstance(node, _FUNCTIONS):
            waiting += ast.iter_child_nodes(node)


def _names(function: Function) -> Iterator[str]:
    return (n.id for n in _own(function) if isinstance(n, ast.Name))


def _calls(function: Function) -> Iterator[str]:
    for node in _own(function):
        if isinstance(node, ast.Call):
            yield node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")


def _door_methods(function: Function) -> Iterator[str]:
    for node in _own(function):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in _OUTCOMES:
            of = node.func.value
            owner = of.attr if isinstance(of, ast.Attribute) else getattr(of, "id", "")
            if owner.strip("_") == "door":
                yield node.func.attr


# ── Command line ─────────────────────────────────────────────────────────────────────────────────


def command_line() -> str:
    """Each command with its arguments and options."""
    parts = [_command(path, command) for path, command in commands(cli, ())]
    (common,) = {_options(c, common=True) for _, c in commands(cli, ())}
    return f"""# Command line

{cli.help}

```
falaj COMMAND --help
```

Every command takes these options:

{common}
| exit code | means |
|---|---|
| 0 | done |
| 1 | refused or failed; the reason and the next step are on standard error |
| 2 | wrong usage of the command |
| 3 | something cannot be reached, or is busy |
| 4 | bytes are not what they were signed to be |
| 130 | interrupted |

{"".join(parts)}"""


def commands(app: App, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], App]]:
    """Every command that does something, with the words that call it."""
    for name in app:
        if name.startswith("-"):
            continue
        command = app[name]
        if command.default_command is None:
            yield from commands(command, (*path, name))
        else:
            yield (*path, name), command


def _command(path: tuple[str, ...], command: App) -> str:
    required = [a for a in command.assemble_argument_collection() if a.required]
    words = [a.name if not a.name.startswith("-") else f"{a.name} {_kind(a)}" for a in required]
    usage = " ".join(["falaj", *path, *words])
    options = _options(command, common=False)
    return f"## {' '.join(path)}\n\n{command.help}\n\n```\n{usage}\n```\n\n" + (f"{options}\n" if options else "")


def _options(command: App, *, common: bool) -> str:
    arguments = [
        a
        for a in command.assemble_argument_collection()
        if a.names != ("*",) and (_group(a) == "Common") == common and a.parameter.help
    ]
    rows = [(f"`{' '.join(filter(None, (a.name, _kind(a))))}`", a.parameter.help or "", _given(a)) for a in arguments]
    return _table(("option" if common else "argument", "what it is", "if not given"), rows) if rows else ""


def _group(argument: Any) -> str:
    return next((str(g.name) for g in argument.parameter.group or ()), "")


def _kind(argument: Any) -> str:
    """What stands behind an option: nothing for a switch, else a word for its value."""
    if not argument.name.startswith("-") or argument.hint is bool:
        return ""
    return "N" if argument.hint is int else _VALUES.get(argument.name, argument.name.strip("-").upper())


def _given(argument: Any) -> str:
    default = argument.field_info.default
    if argument.required:
        return "required"
    return "" if default in (None, "", False) else f"`{default}`"


# ── HTTP ─────────────────────────────────────────────────────────────────────────────────────────


def api() -> str:
    """The routes of both planes, from the tables that they serve by."""
    table = routes()
    parts = []
    for tag in dict.fromkeys(r.tag for r in table if r.tag):
        rows = [
            (r.method, f"`{r.path}`", _action(r.action), r.action.summary, _takes(r)) for r in table if r.tag == tag
        ]
        parts.append(f"### {tag}\n\n{_table(('method', 'path', 'action', 'what it does', 'takes'), rows)}")
    shown = [(r.method, f"`{r.path}`", _action(r.action)) for r in table if not r.tag]
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

{_table(("method", "path", "action"), shown)}
## Data plane

It speaks the [Open Inference Protocol v2](https://github.com/kserve/open-inference-protocol); see
[call a model](../how-to/call-a-model.md).

{_table(("method", "path", "action", "what it does"), plane)}"""


@functools.cache
def routes() -> tuple[Route, ...]:
    """The control plane's routes, from the application that a home of its own is served by."""
    with tempfile.TemporaryDirectory(prefix="falaj-reference-") as folder:
        opened = ControlPlane(Settings(home=Path(folder) / "home", project=Path(folder)))
        try:
            return tuple(_route(path, route) for path, route in _leaves(application(opened).routes, ""))
        finally:
            opened.close()


def _leaves(table: Sequence[BaseRoute], prefix: str) -> Iterator[tuple[str, Any]]:
    for route in table:
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
        query=tuple(p.name for p in route.dependant.query_params),
        body=tuple(n if f.is_required() else f"{n}?" for n, f in fields.items()),
    )


def _action(action: Action) -> str:
    return "public" if action is PUBLIC else f"`{action.name}`"


def _takes(route: Route) -> str:
    query = [f"`?{name}=`" for name in route.query]
    body = [f"`{{{', '.join(route.body)}}}`"] if route.body else []
    return " ".join(query + body)


# ── Pages ────────────────────────────────────────────────────────────────────────────────────────


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(c.replace('|', chr(92) + '|') or ' ' for c in line)} |\n" for line in lines)


PAGES: dict[str, Callable[[], str]] = {
    "settings.md": settings,
    "actions.md": actions,
    "audit-events.md": audit_events,
    "cli.md": command_line,
    "api.md": api,
}


if __name__ == "__main__":
    for name, text in pages().items():
        (FOLDER / name).write_text(text, "utf-8")
