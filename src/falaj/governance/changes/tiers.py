"""Risk tiers: how many people a model's versions need, and what the platform may do by itself. A table and pure rules.

A tier says how much depends on the model's answers. A higher one asks for more approvers, whose approvals count for a
shorter time, and leaves less to the platform. `one-person` is for whoever works alone: the author's own approval counts,
after a delay, and the version is marked for good. Neither it nor `minimal` is for regulated use.
"""

from __future__ import annotations

import msgspec

from falaj.kernel.errors import Invalid


class Tier(msgspec.Struct, frozen=True):
    """A risk tier. `rank` orders them: a higher one is stricter.

    `approvals` people other than the author must approve a version for production, with each of `roles` among them; an
    approval counts for at most `approval_days` before it is used. `retrains`: drift may start a training. `promotes`: a
    version may take all the traffic without a person's order at that moment. `validated`: production needs an
    independent validation, which lasts at most `revalidate_days` (0: as long as its validator says).
    `own_after_hours`: the author's own approval counts so long after the version began to wait (0: never).
    """

    name: str
    rank: int
    approvals: int
    roles: tuple[str, ...]
    approval_days: int
    retrains: bool
    promotes: bool
    validated: bool
    revalidate_days: int
    regulated: bool
    own_after_hours: int = 0


ONE_PERSON, MINIMAL, LIMITED, HIGH, CRITICAL = TIERS = (
    Tier("one-person", 0, 1, (), 30, True, True, False, 0, regulated=False, own_after_hours=24),
    Tier("minimal", 1, 1, (), 90, True, True, False, 0, regulated=False),
    Tier("limited", 2, 1, (), 30, True, True, False, 0, regulated=True),
    Tier("high", 3, 2, ("risk-officer",), 14, True, False, True, 365, regulated=True),
    Tier("critical", 4, 3, ("risk-officer", "platform-admin"), 7, False, False, True, 180, regulated=True),
)
NAMES = tuple(t.name for t in TIERS)


def tier_of(name: str) -> Tier:
    """Raises `Invalid` for a tier that does not exist."""
    for tier in TIERS:
        if tier.name == name:
            return tier
    raise Invalid(f"there is no risk tier {name[:40]!r}", hint=f"the tiers are {', '.join(NAMES)}", code="no_such_tier")


def in_force(declared: list[str], confirmed: str, default: str, *, regulated: bool) -> Tier:
    """The tier that holds: the strictest of what was declared and what a person confirmed, else the home's default.

    `declared` are the tiers that the project's code has named since a person last confirmed one. Code can only make a
    tier stricter; below what held before, and below the default, only a person takes it. A regulated model is never
    in a tier that is not for regulated use.
    """
    found = [tier_of(name) for name in (*declared, confirmed or default) if name]
    strictest = max(found, key=lambda t: t.rank)
    if regulated and not strictest.regulated:
        return min((t for t in TIERS if t.regulated), key=lambda t: t.rank)
    return strictest


def quorum(tier: Tier, approvals: int, roles: tuple[str, ...]) -> tuple[int, tuple[str, ...]]:
    """How many people must approve, and which roles must be among them: what the version asks for, and no less than its tier."""
    together = tuple(dict.fromkeys((*roles, *tier.roles)))
    return max(approvals, tier.approvals, len(together)), together
