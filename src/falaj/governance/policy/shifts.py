"""Decisions that differ: between two policies for each role, and between two sets of roles under one policy."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator
from itertools import product
from typing import Any

import msgspec

from falaj.governance.identity.model import ROLES
from falaj.governance.policy.decide import Decider, EnvironmentAuthoriser
from falaj.governance.policy.model import Shift
from falaj.governance.policy.schema import FACTS, principal_fact
from falaj.kernel.access import Action, Principal, Question, Resource
from falaj.kernel.environments import ENVIRONMENTS

_FAVOURABLE = {
    "author": principal_fact("somebody-else"), "purpose": "asked", "purposes": ["asked"], "quarantined": False,
    "region": "here", "regions": ["here"],
}  # fmt: skip
"""Facts under which no rule of the platform forbids: another author, a purpose that the data allows, data that is where it
may be and not in quarantine."""


def shifts(old: Decider, new: Decider, actions: Iterable[Action]) -> Iterator[Shift]:
    """The decisions that differ, for each role alone, with facts that no rule of the platform minds."""
    for action, role in product(actions, ROLES):
        asked = list(_questions((role,), action))
        found = []
        for where, question in asked:
            before, after = old.decide(question).allowed, new.decide(question).allowed
            if before != after:
                found.append(Shift(role, action.name, where or "none", before, after))
        everywhere = len(found) == len(asked) and len({s.after for s in found}) == 1
        yield from [msgspec.structs.replace(found[0], environment="")] if everywhere else found


@functools.lru_cache(maxsize=32)
def shifts_of(old: str, new: str, actions: tuple[Action, ...]) -> tuple[Shift, ...]:
    """The same between two texts of a home's policy. Raises `Invalid` for one that cannot be parsed."""
    return tuple(shifts(EnvironmentAuthoriser(actions, old), EnvironmentAuthoriser(actions, new), actions))


@functools.lru_cache(maxsize=64)
def allowed(home: str, roles: tuple[str, ...], actions: tuple[Action, ...]) -> frozenset[str]:
    """What somebody with these roles may do somewhere, under a home's policy."""
    decider = EnvironmentAuthoriser(actions, home)
    return frozenset(a.name for a in actions if any(decider.decide(q).allowed for _, q in _questions(roles, a)))


def _questions(roles: tuple[str, ...], action: Action) -> Iterator[tuple[str, Question]]:
    """The question in each environment that it can be asked in, with the environment's name (empty: outside of any)."""
    facts: dict[str, Any] = {k: v for k, v in _FAVOURABLE.items() if k in FACTS.get(action.resource, {})}
    for where in ("", *ENVIRONMENTS) if "environment" in FACTS.get(action.resource, {}) else ("",):
        there = {**facts, "environment": where} if where else facts
        yield where, Question(Principal("asker", roles=roles), action.name, Resource(action.resource, "it", there))
