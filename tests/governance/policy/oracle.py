"""What `cases.csv` says about a question: a table, independent of the policy's text and of Cedar."""

from __future__ import annotations

import csv
import itertools
import re
from collections.abc import Iterable, Iterator, Mapping
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from falaj.governance.policy.decide import Decider, Layers, layered
from falaj.governance.policy.schema import FACTS, principal_fact
from falaj.governance.policy.statements import invalid, statements, unnamed
from falaj.kernel.access import SYSTEM, Action, Decision, Principal, Question, Resource
from falaj.kernel.environments import ENVIRONMENTS as HOSTED
from falaj.kernel.environments import home_of
from falaj.kernel.errors import Invalid

TABLE = Path(__file__).with_name("cases.csv")
ENVIRONMENTS = ("none", "dev", "measurement", "staging", "production")
AUTHORS = ("unknown", "self", "other")
PURPOSES: dict[str, dict[str, Any]] = {
    "unknown": {},
    "allowed": {"purpose": "operations", "purposes": ["research", "operations"]},
    "refused": {"purpose": "marketing", "purposes": ["operations"]},
    "unlisted": {"purpose": "operations"},
    "undeclared": {"purposes": ["operations"]},
}
_USABLE: dict[str, Any] = {"quarantined": False, "region": "ae", "regions": ["ae"]}
_OF_DATA: dict[str, dict[str, Any]] = {
    "nothing": {},
    "usable": _USABLE,
    "anywhere": {**_USABLE, "region": "", "regions": []},
    "quarantined": {**_USABLE, "quarantined": True},
    "elsewhere": {**_USABLE, "regions": ["ae", "eu"]},
    "nowhere": {"quarantined": False, "regions": []},
}
ALSO: dict[str, dict[str, dict[str, Any]]] = {
    "ModelVersion": {
        **_OF_DATA,
        "one-person": {"tier": "one-person", "regulated": False, **_USABLE},
        "regulated": {"tier": "one-person", "regulated": True, **_USABLE},
        "untold": {"tier": "one-person", **_USABLE},
        "limited": {"tier": "limited", "regulated": False, **_USABLE},
        "one-held": {"tier": "one-person", "regulated": False, **_USABLE, "quarantined": True},
    },
    "Model": {**_OF_DATA, "proposed-by-self": {}, "proposed-by-other": {}},
    "Glass": {"nothing": {}, "proposed-by-self": {}, "proposed-by-other": {}},
    "FeatureView": _OF_DATA,
    "Dataset": {
        "nothing": {},
        "usable": {"region": "ae", "regions": ["ae"]},
        "anywhere": {"region": "", "regions": []},
        "elsewhere": {"region": "", "regions": ["ae"]},
        "nowhere": {"regions": []},
    },
}
"""What else may be known of a resource of this type; who proposed is filled in for each question."""
FOLDER = resources.files("falaj.governance.policy")
FILES = ("platform.cedar", "default.cedar", *(f"environments/{name}.cedar" for name in HOSTED))
PLATFORM, NOBODY = "platform", "nobody"
SCOPE = "within-the-tokens-scope"
BREAK_GLASS = frozenset({
    "changes.approve", "changes.reject", "changes.revoke_approval", "changes.kill", "rollout.start", "rollout.steer",
    "loop.cancel_flow", "monitoring.resolve_incident",
})  # fmt: skip
"""What break-glass can give, to whoever has it and whatever their roles; no more than that, and over no forbid."""
WITHIN = (
    "within-the-project"  # for whoever has a token that is bound to a project, of all that is not known to be in it
)
OTHERS = "only-the-platform"  # where a line names another rule too, it is that one alone that forbids the platform
_ALSO = tuple({name for states in ALSO.values() for name in states})
_VERDICTS = ("yes", "-", "NO")


class State(NamedTuple):
    """What is known of a resource, in the table's words."""

    environment: str = "none"
    author: str = "unknown"
    purpose: str = "unknown"
    also: str = "nothing"


class Line(NamedTuple):
    """A line of the table: which states it speaks of, the verdict for each role, and who forbids."""

    states: State
    verdicts: dict[str, str]
    forbids: frozenset[str]

    def matches(self, state: State) -> bool:
        return all(p == "*" or s in p.split("|") for p, s in zip(self.states, state, strict=True))


class Oracle:
    """The table, read. Raises `AssertionError` for one that cannot be read in one way only."""

    def __init__(self, text: str) -> None:
        rows = csv.reader((t for t in text.splitlines() if t and not t.startswith("#")), strict=True)
        head, *lines = [[cell.strip() for cell in row] for row in rows]
        assert head[:5] == ["action", "environment", "author", "purpose", "also"] and head[-1] == "forbidden by"
        self.roles = tuple(head[5:-1])
        self._lines: dict[str, list[Line]] = {}
        for row in lines:
            verdicts = dict(zip(self.roles, row[5:-1], strict=True))
            assert set(verdicts.values()) <= set(_VERDICTS), row
            assert bool(row[-1]) == ("NO" in verdicts.values()), f"whoever forbids must be named, and only then: {row}"
            states = State(*row[1:5])
            for pattern, known in zip(states, (ENVIRONMENTS, AUTHORS, tuple(PURPOSES), _ALSO), strict=True):
                assert pattern == "*" or set(pattern.split("|")) <= set(known), row
            self._lines.setdefault(row[0], []).append(Line(states, verdicts, frozenset(row[-1].split())))

    @property
    def actions(self) -> set[str]:
        return set(self._lines)

    def tells_apart(self, action: Action) -> frozenset[str]:
        """What some line of an action looks at, by the table's columns."""
        lines = self._lines.get(action.name, ())
        return frozenset(name for name in State._fields if any(getattr(line.states, name) != "*" for line in lines))

    def expected(
        self,
        action: Action,
        state: State,
        roles: Iterable[str],
        scope: Iterable[str] | None = None,
        glass: Iterable[str] = (),
    ) -> Answer:
        """The answer to whoever has these roles, a token of this scope, and these actions by break-glass."""
        found = [line for line in self._lines.get(action.name, ()) if line.matches(state)]
        assert len(found) == 1, f"{len(found)} lines speak of {action.name} in {state}"
        (line,) = found
        verdicts = {line.verdicts[role] for role in tuple(roles) or (NOBODY,)}
        forbids = line.forbids if "NO" in verdicts else frozenset()
        if tuple(roles) == (PLATFORM,):
            forbids -= {OTHERS}
        if scope is not None and not {action.name, action.group} & set(scope):
            forbids |= {SCOPE}
        more = tuple(roles) != (PLATFORM,) and action.name in BREAK_GLASS and action.name in glass
        return Answer(("yes" in verdicts or more) and not forbids, forbids)


class Answer(NamedTuple):
    """Whether it is allowed; if not, by whom it is forbidden (by none: no rule permits it)."""

    allowed: bool
    forbids: frozenset[str]

    def agrees(self, decision: Decision) -> bool:
        """Whether a decision is this one: the same verdict, the same rules, and nothing that went wrong."""
        rules = decision.rules != () if self.allowed else frozenset(decision.rules) == self.forbids
        return decision.allowed == self.allowed and not decision.errors and rules


class Cell(NamedTuple):
    """One question of the table, and its answer."""

    action: Action
    state: State
    role: str
    answer: Answer
    scope: tuple[str, ...] | None = None
    glass: tuple[str, ...] = ()
    projects: tuple[str, str | None] = ("", None)  # of the token, and of the resource

    def question(self) -> Question:
        roles = () if self.role == NOBODY else (self.role,)
        who = SYSTEM if self.role == PLATFORM else Principal("asker", roles=roles, scope=self.scope, glass=self.glass)
        of, belongs = self.projects
        asked = question(msgspec.structs.replace(who, project=of), self.action, self.state)
        if belongs is None:
            return asked
        attributes = {**asked.resource.attributes, "project": belongs}
        return msgspec.structs.replace(asked, resource=msgspec.structs.replace(asked.resource, attributes=attributes))


def question(who: Principal, action: Action, state: State, name: str = "it", other: str = "somebody-else") -> Question:
    """The question that a state stands for."""
    facts: dict[str, Any] = dict(PURPOSES[state.purpose])
    if state.author != "unknown":
        facts["author"] = principal_fact(who.name if state.author == "self" else other)
    facts |= ALSO.get(action.resource, {}).get(state.also, {})
    if state.also.startswith("proposed-by-"):
        facts["proposed_by"] = principal_fact(who.name if state.also.endswith("self") else other)
    if state.environment != "none":
        facts["environment"] = state.environment
    return Question(who, action.name, Resource(action.resource, name, facts))


def states(action: Action, told_apart: frozenset[str] = frozenset(State._fields)) -> Iterator[State]:
    """Every state that the resource of an action can be in.

    Where the table does not tell apart what else is known, that goes round instead of being combined with everything;
    where it does, what it does not tell apart goes round.
    """
    facts = FACTS.get(action.resource, {})
    also = tuple(ALSO.get(action.resource, ("nothing",)))
    known: dict[str, tuple[str, ...]] = {
        "environment": ENVIRONMENTS if "environment" in facts else ENVIRONMENTS[:1],
        "author": AUTHORS if "author" in facts else AUTHORS[:1],
        "purpose": tuple(PURPOSES) if "purpose" in facts else ("unknown",),
        "also": also,
    }
    apart = told_apart if "also" in told_apart else frozenset(known) - {"also"}
    combined = itertools.product(*(values if name in apart else ("",) for name, values in known.items()))
    for n, values in enumerate(combined):
        every = zip(known.items(), values, strict=True)
        yield State(*(value or round_[n % len(round_)] for (_, round_), value in every))


def cells(oracle: Oracle, actions: Iterable[Action]) -> Iterator[Cell]:
    """All that the table says about some actions; of each also with tokens that are good for it, by name or by group,
    and for something else."""
    for action in actions:
        for n, state in enumerate(states(action, oracle.tells_apart(action))):
            others = ("audit",) if action.group == "read" else ("read",)
            scopes = (None, (action.name,), (action.group,), others, ()) if n == 0 else (None,)
            for role, scope in itertools.product(oracle.roles, scopes):
                if role != PLATFORM or scope is None:
                    asked = () if role == NOBODY else (role,)
                    yield Cell(action, state, role, oracle.expected(action, state, asked, scope), scope)
            for role in ("viewer", "platform-admin") if n == 0 else ():
                for belongs in ("shop", "Shop", "", None):
                    answer = oracle.expected(action, state, (role,))
                    if belongs != "shop":
                        answer = Answer(False, answer.forbids | {WITHIN})
                    yield Cell(action, state, role, answer, projects=("shop", belongs))
            for role in ("viewer", NOBODY) if n == 0 or action.name in BREAK_GLASS else ():
                roles, other = () if role == NOBODY else (role,), "audit.read" if n % 2 else "identity.grant"
                for scope, glass in ((None, (action.name, other)), (None, (other,)), (("read",), (action.name,))):
                    answer = oracle.expected(action, state, roles, scope, glass)
                    yield Cell(action, state, role, answer, scope, glass)


def differing(oracle_cells: Iterable[Cell], decider: Decider) -> Iterator[Cell]:
    """The cells that a policy answers otherwise."""
    return (c for c in oracle_cells if not c.answer.agrees(decider.decide(c.question())))


class Texts:
    """The policy's files, one of which may be changed, as a decider."""

    def __init__(self, changed: Mapping[str, str] | None = None) -> None:
        self.files = {name: (FOLDER / name).read_text("utf-8") for name in FILES} | dict(changed or {})

    def layers(self, environment: str = "") -> Layers:
        own = self.files[f"environments/{environment}.cedar"] if environment else ""
        return Layers(f"{self.files['platform.cedar']}\n{own}", self.files["default.cedar"])

    def refused(self, actions: tuple[Action, ...]) -> bool:
        """Whether a platform with these files would not start."""
        try:
            texts = [self.layers(name).whole for name in ("", *HOSTED)]
            return any([*unnamed(statements(t)), *invalid(t, actions)] for t in texts)
        except Invalid:
            return True

    def decider(self, actions: tuple[Action, ...]) -> Decider:
        own = {name: layered(self.layers(name), actions) for name in ("", *HOSTED)}
        return _Places(own)


class _Places:
    def __init__(self, own: Mapping[str, Decider]) -> None:
        self._own = own

    def decide(self, question: Question) -> Decision:
        return self._own[home_of(question.resource.attributes.get("environment", ""))].decide(question)


def noticed(changed: Mapping[str, str], rule: str, table: list[Cell], actions: tuple[Action, ...]) -> bool:
    """Whether a changed file is refused, or some cell comes out otherwise; those that `rule` decided are asked first."""
    texts = Texts(changed)
    if texts.refused(actions):
        return True
    decider = texts.decider(actions)
    first = sorted(table, key=lambda c: rule not in c.answer.forbids)
    return next(differing(first, decider), None) is not None


def parts(text: str) -> list[tuple[str, str]]:
    """(id, text) of each statement as it stands in a file."""
    return [(found[1], found[0]) for found in re.finditer(r'^@id\("([^"]+)"\)\n(?:.+\n?)*?.*;\n?', text, re.MULTILINE)]
