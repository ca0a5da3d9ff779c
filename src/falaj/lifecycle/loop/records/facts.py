"""What the records of the home's own changes ask of the tables."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from falaj.governance.changes.glass import Glass
from falaj.governance.changes.holds import Hold
from falaj.governance.policy.model import PolicyVersion, Shift
from falaj.kernel.access import Principal
from falaj.lifecycle.loop.model import ProjectDefinition
from falaj.lifecycle.loop.records.trail import Noted


class HomeFacts(msgspec.Struct, frozen=True):
    """`policy`, `principal` and `digest` raise `NotFound`. `shifts` compares two texts, `gained` two sets of roles: the
    actions that the second one allows and the first does not. `during` are the entries that a break-glass allowed. `definition` is the one
    of this number, None unless it has this digest; `tier` is a model's."""

    policy: Callable[[int], PolicyVersion]
    shifts: Callable[[str, str], tuple[Shift, ...]]
    gained: Callable[[tuple[str, ...], tuple[str, ...]], tuple[str, ...]]
    principal: Callable[[str], Principal]
    glass: Callable[[str], Glass]
    hold: Callable[[str], Hold]
    digest: Callable[[str], str]
    during: Callable[[Noted, str, str], list[Noted]]
    definition: Callable[[int, str], ProjectDefinition | None]
    tier: Callable[[str], str]
