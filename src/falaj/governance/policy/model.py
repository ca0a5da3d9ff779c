"""Versions of the home's policy, and what another one would change."""

from __future__ import annotations

import msgspec

from falaj.governance.policy.statements import Statement
from falaj.kernel.access import Action, Resource

POLICY_READ = Action("policy.read", "read", "Policy", "see the policy, try another one, ask why it decides as it does")
POLICY_APPLY = Action("policy.apply", "administration", "Policy", "replace the policy that says who may do what")
ACTIONS = (POLICY_READ, POLICY_APPLY)

HOME_POLICY = Resource("Policy", "home")


class PolicyVersion(msgspec.Struct, frozen=True):
    """The home's own policy at one time. Number 0 is the release's default, which holds until one was applied.

    `digest` is that of the text; `at` is RFC 3339, empty for number 0.
    """

    number: int
    digest: str
    text: str
    reason: str
    author: str
    at: str


class Shift(msgspec.Struct, frozen=True):
    """A decision that differs under another policy: for one role, in one environment (`none`: outside of any;
    empty: everywhere)."""

    role: str
    action: str
    environment: str
    before: bool
    after: bool


class Plan(msgspec.Struct, frozen=True):
    """What applying a text would change: statements by id, and decisions for one role at a time."""

    digest: str
    after: int  # the version that it would replace
    added: tuple[str, ...]
    removed: tuple[str, ...]
    changed: tuple[str, ...]
    shifts: tuple[Shift, ...]


def compare(old: list[Statement], new: list[Statement]) -> tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]:
    """The ids of statements that were added, removed, changed."""
    before, after = {s.id: s for s in old}, {s.id: s for s in new}
    changed = (i for i in before.keys() & after.keys() if before[i] != after[i])
    return (
        tuple(sorted(after.keys() - before.keys())),
        tuple(sorted(before.keys() - after.keys())),
        tuple(sorted(changed)),
    )
