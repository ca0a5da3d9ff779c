"""Tables of cases: who asks what, and what must come of it. Pure rules.

In TOML:

    [[case]]
    principal = "ann"
    roles = ["risk-officer"]
    action = "changes.approve"
    resource = "delay@1"
    attributes = { author = "bob", environment = "production" }
    expected = "permit"                  # or "deny"
    rule = "risk-officers-and-admins-judge"  # optional: one of the rules that decide

In CSV the same names head the columns; roles are separated by spaces, attributes are written `author=bob;
purposes=research operations`, and what is empty is left out.
"""

from __future__ import annotations

import csv
import io
import tomllib
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from falaj.governance.identity.model import ROLES
from falaj.governance.policy.decide import Decider
from falaj.governance.policy.schema import BOOL, FACTS, PRINCIPAL, PROJECT, STRING, STRINGS, principal_fact
from falaj.kernel.access import SYSTEM, Action, Principal, Question, Resource
from falaj.kernel.errors import Invalid

FORMATS = ("toml", "csv")
_ADDED: dict[str, Any] = {"quarantined": False, "region": "", "regions": []}
"""What the platform itself adds to a question; a case that does not say it means nothing out of the ordinary."""
MOST = 20_000


class Case(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One question and the answer that is expected. `attributes` are facts about the resource, a principal by its name.

    `scope` are the actions and groups that the token is good for; None is all that the roles give. `project` is the one that
    it is bound to; empty: none.
    """

    action: str
    expected: str  # permit | deny
    principal: str = "asker"
    roles: tuple[str, ...] = ()
    resource: str = "it"
    attributes: dict[str, Any] = {}
    rule: str = ""
    scope: tuple[str, ...] | None = None
    project: str = ""


class Result(msgspec.Struct, frozen=True):
    """What came of a case; `ok` when it is what was expected."""

    case: Case
    ok: bool
    allowed: bool
    rules: tuple[str, ...]
    reason: str


def read_cases(text: str, kind: str) -> list[Case]:
    """The cases in a file. Raises `Invalid` (`bad_cases`) with the place of what cannot be read."""
    try:
        rows = _of_toml(text) if kind == "toml" else _of_csv(text)
    except (tomllib.TOMLDecodeError, csv.Error) as e:
        raise _bad(f"the file is no {kind.upper()}: {e}") from e
    if not rows:
        raise _bad("the file has no case")
    if len(rows) > MOST:
        raise _bad(f"the file has {len(rows):,} cases; at most {MOST:,} are asked at once")
    found = []
    for place, row in rows:
        try:
            found.append(msgspec.convert(row, Case))
        except msgspec.ValidationError as e:
            raise _bad(f"{place}: {e}") from e
    return found


def question_of(case: Case, actions: Mapping[str, Action]) -> Question:
    """The question of a case. Raises `Invalid` for an action, a role or a fact that there is not."""
    action = actions.get(case.action)
    if action is None:
        raise _bad(f"there is no action {case.action[:80]!r}")
    unknown = sorted(set(case.roles) - {*ROLES, *SYSTEM.roles})
    if unknown:
        raise _bad(f"there is no role {unknown[0][:80]!r}")
    kinds = {**FACTS.get(action.resource, {}), PROJECT: STRING}
    facts = {name: value for name, value in _ADDED.items() if name in kinds}
    facts |= {name: _fact(name, value, kinds.get(name), action) for name, value in case.attributes.items()}
    principal = Principal(case.principal, "person", case.roles, case.scope, project=case.project)
    return Question(principal, action.name, Resource(action.resource, case.resource, facts))


def checked(decider: Decider, cases: Iterable[Case], actions: Iterable[Action]) -> list[Result]:
    """Ask cases, in their order. Raises `Invalid` for one that cannot be asked."""
    known = {a.name: a for a in actions}
    found = []
    for case in cases:
        if case.expected not in ("permit", "deny"):
            raise _bad(f"{case.expected[:80]!r} cannot be expected: write permit or deny")
        decision = decider.decide(question_of(case, known))
        ok = decision.allowed == (case.expected == "permit") and (not case.rule or case.rule in decision.rules)
        found.append(Result(case, ok, decision.allowed, decision.rules, decision.reason))
    return found


def attributes_of(text: str) -> dict[str, str]:
    """`author=bob; purpose=operations` as a dict. Raises `Invalid`."""
    pairs = [p.strip() for p in text.split(";") if p.strip()]
    if any("=" not in p for p in pairs):
        raise _bad(f"attributes are written name=value; {text[:80]!r} is not")
    return {name.strip(): value.strip() for name, _, value in (p.partition("=") for p in pairs)}


def _of_toml(text: str) -> list[tuple[str, dict[str, Any]]]:
    parsed = tomllib.loads(text)
    rows = parsed.pop("case", [])
    if parsed or not isinstance(rows, list) or not all(isinstance(r, dict) for r in rows):
        raise _bad("the file must hold [[case]] tables and nothing else")
    return [(f"case {n}", row) for n, row in enumerate(rows, start=1)]


def _of_csv(text: str) -> list[tuple[str, dict[str, Any]]]:
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    reader = csv.DictReader(io.StringIO("\n".join(lines)), strict=True, skipinitialspace=True)
    rows = []
    for number, row in enumerate(reader, start=1):
        if None in row or None in row.values():
            raise _bad(
                f"case {number}: it has {'more' if None in row else 'fewer'} cells than the first line has names"
            )
        filled: dict[str, Any] = {k.strip(): v.strip() for k, v in row.items() if v.strip()}
        for name in ("roles", "scope"):
            if name in filled:
                filled[name] = filled[name].split()
        if "attributes" in filled:
            filled["attributes"] = attributes_of(filled["attributes"])
        rows.append((f"case {number}", filled))
    return rows


def _fact(name: str, value: Any, kind: str | None, action: Action) -> Any:
    if kind is None:
        known = ", ".join(sorted(FACTS.get(action.resource, {}))) or "none"
        raise _bad(f"a {action.resource} ({action.name}) has no fact {name[:80]!r}; it has {known}")
    if kind == STRINGS:
        value = value.split() if isinstance(value, str) else value
        if not isinstance(value, list | tuple) or not all(isinstance(v, str) for v in value):
            raise _bad(f"{name} is a list of words")
        return list(value)
    if kind == BOOL:
        told = {"true": True, "false": False}.get(value) if isinstance(value, str) else value
        if not isinstance(told, bool):
            raise _bad(f"{name} is true or false")
        return told
    if not isinstance(value, str):
        raise _bad(f"{name} is a word")
    return principal_fact(value) if kind == PRINCIPAL else value


def _bad(why: str) -> Invalid:
    return Invalid(
        f"the cases cannot be asked: {why}",
        hint="see docs/how-to/change-the-policy.md for the columns, docs/reference/actions.md for the actions",
        code="bad_cases",
    )
