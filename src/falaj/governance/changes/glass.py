"""Break-glass: for some hours somebody may do a named thing that no role of theirs allows. Frozen types and pure rules.

It gives a permission and takes away no prohibition: four eyes, purposes, quarantine, regions and what only the platform does
stay as they are, and evidence, admissions and what a data plane verifies when it loads are no questions of policy at all.
"""

from __future__ import annotations

from datetime import datetime

import msgspec

from falaj.kernel.access import Action
from falaj.kernel.clock import parse_iso
from falaj.kernel.errors import Invalid

GLASS_READ = Action("changes.read_glass", "read", "Glass", "see when somebody was allowed more in an emergency")
GLASS_PROPOSE = Action("changes.propose_glass", "risk", "Glass", "ask for actions that one's roles do not allow")
GLASS_OPEN = Action("changes.open_glass", "risk", "Glass", "allow somebody else, for hours, what they asked for")
GLASS_CLOSE = Action("changes.close_glass", "risk", "Glass", "end an emergency before its time")
GLASS_END = Action("changes.end_glass", "system", "Glass", "write down that an emergency has ended by itself")

BREAKABLE = (
    "changes.approve", "changes.reject", "changes.revoke_approval", "changes.kill", "rollout.start", "rollout.steer",
    "loop.cancel_flow", "monitoring.resolve_incident",
)  # fmt: skip
"""What may be asked for: what an emergency needs, and what leaves an entry of its own each time. Never roles, tokens, the
policy, keys, backups, or the breaking of more glass."""
MOST_HOURS = 4.0
PROPOSED_MINUTES = 60.0
"""How long a proposal waits for somebody else."""


class Glass(msgspec.Struct, frozen=True):
    """`proposed_by` may do `actions` from `opened_at` until `until`, once the alert is out (`incident`), unless somebody
    closes it before. Moments are RFC 3339 by the machine's clock, empty before they come."""

    id: str
    actions: tuple[str, ...]
    minutes: float
    reason: str
    proposed_by: str
    proposed_at: str
    opened_by: str = ""
    opened_at: str = ""
    opened_reason: str = ""
    until: str = ""
    incident: str = ""
    closed_by: str = ""
    closed_at: str = ""

    def holds(self, now: datetime) -> bool:
        """Whether it allows anything at a moment."""
        return bool(self.incident) and not self.closed_at and now < parse_iso(self.until)

    @property
    def words(self) -> str:
        """For people: who may do what until when, and who let them."""
        return f"{self.proposed_by} may {', '.join(self.actions)} until {self.until[:16]}, let by {self.opened_by}"


def check_asked(actions: tuple[str, ...], hours: float) -> None:
    """Raise `Invalid` for what cannot be asked for."""
    never = sorted(set(actions) - set(BREAKABLE))
    if never or not actions:
        raise Invalid(
            f"break-glass never gives {', '.join(never)[:200] or 'nothing'}",
            hint=f"name what has to be done, of {', '.join(BREAKABLE)}",
            code="not_breakable",
        )
    if not 0 < hours <= MOST_HOURS:
        raise Invalid(
            f"break-glass cannot last {hours:g} hours",
            hint=f"choose up to {MOST_HOURS:g}; what has to last longer is a role",
            code="bad_glass_hours",
        )
