"""The pages of actions and of audit events."""

from __future__ import annotations

import ast
import importlib
import inspect
import sys
from collections.abc import Iterator

from falaj.bootstrap.control_plane import actions as declared_actions
from falaj.governance.identity.model import ROLES
from falaj.governance.policy.decide import CedarAuthoriser, policy_text
from falaj.kernel.access import SYSTEM, Action, Principal, Question, Resource
from falaj.kernel.environments import ENVIRONMENTS
from tools.manual.errors import modules
from tools.manual.http import routes
from tools.manual.tables import table

_SOMEBODY = {"__entity": {"type": "Principal", "id": "somebody-else"}}
_FAVOURABLE = {
    "author": _SOMEBODY, "proposed_by": _SOMEBODY, "purpose": "asked", "purposes": ["asked"], "quarantined": False, "region": "",
    "regions": [],
}  # fmt: skip
"""Facts under which no rule of the default policy forbids: another author, a purpose that the data allows."""
Function = ast.FunctionDef | ast.AsyncFunctionDef
_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


def actions() -> str:
    """Each action with the roles that the default policy lets do it, as Cedar answers."""
    authoriser = CedarAuthoriser(policy_text(), all_actions())
    rows = [
        (f"`{a.name}`", a.group, a.resource, a.summary, _who(authoriser, a), _forbidding(authoriser, a))
        for a in all_actions()
    ]
    head = ("action", "group", "done to", "what it is", "roles", "forbidden unless")
    return f"""# Actions

Whatever somebody can do has a name, and a rule must permit it. This is how the policy of a new home
([default.cedar](../../src/falaj/governance/policy/default.cedar)) answers above the platform's own rules
([platform.cedar](../../src/falaj/governance/policy/platform.cedar)): default is deny, any forbid wins, and a rule
that cannot be evaluated denies. A rule in the last column forbids for every role while its condition does not hold.
A home may [replace its policy](../how-to/change-the-policy.md), and never the platform's rules.

Roles: {", ".join(f"`{r}`" for r in ROLES)}.
*platform* is Falaj itself, within a flow that somebody started; nobody can be given that role.

{table(head, rows)}
## In an environment

What is done to something in an environment is decided with that environment's own rules
([environments](../../src/falaj/governance/policy/environments)) beside the platform's. Where roles differ from the table above:

{table(("action", *ENVIRONMENTS), _by_environment(authoriser))}"""


def _by_environment(default: CedarAuthoriser) -> list[tuple[str, ...]]:
    """The actions that an environment decides otherwise than the default, with the roles in each."""
    own = [CedarAuthoriser(policy_text(name), all_actions()) for name in ENVIRONMENTS]
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

{table(("action", "subject", "outcomes", "what it is"), rows)}"""


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
    for name, parsed in modules().items():
        if any(isinstance(n, ast.Attribute) and n.attr in _OUTCOMES for n in ast.walk(parsed.tree)) and _light(name):
            importlib.import_module(name)
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


def _light(name: str) -> bool:
    """Whether a module can be imported here: steps bring heavy libraries, and call no door."""
    return not any(part in name for part in (".steps", ".entrypoints", ".sandbox", ".plane"))


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
