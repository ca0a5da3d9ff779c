"""Records of the home's own changes: its definitions, its policy, who may act, keys, break-glass, quarantine."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import takewhile
from typing import Protocol, TypeVar

import msgspec

from falaj.governance.audit.model import Conditions
from falaj.governance.audit.service import AuditService
from falaj.governance.changes.breaking import GlassService
from falaj.governance.changes.glass import Glass
from falaj.governance.changes.holding import QuarantineService
from falaj.governance.changes.holds import Hold
from falaj.governance.changes.records import ChangeRecord
from falaj.governance.identity.service import IdentityService
from falaj.governance.policy.service import PolicyService
from falaj.kernel.errors import Integrity
from falaj.lifecycle.loop.records import access, definitions, policies, safeguards
from falaj.lifecycle.loop.records.facts import HomeFacts
from falaj.lifecycle.loop.records.making import Word, made
from falaj.lifecycle.loop.records.trail import Noted, Trail, pages, trail_of_home
from falaj.lifecycle.loop.service import DefinitionService
from falaj.lifecycle.registry.service import RegistryService

_MAKERS: dict[str, Callable[[Noted, Trail, HomeFacts], Word]] = {
    definitions.APPLIED: definitions.applied,
    policies.APPLIED: policies.applied,
    access.GRANTED: access.granted,
    access.REVOKED: access.revoked,
    access.SIGNED_IN: access.signed_in,
    access.WITHDRAWN: access.withdrawn,
    safeguards.ROTATED: safeguards.key_ended,
    safeguards.REVOKED: safeguards.key_ended,
    safeguards.OPENED: safeguards.opened,
    safeguards.HELD: safeguards.held,
    safeguards.LIFTED: safeguards.lifted,
}
ACTIONS = (*_MAKERS, safeguards.ASKED, safeguards.CLOSED, safeguards.ENDED)
"""What a trail of the home holds: the entries that begin such a change, and those that tell how it went on."""


def anchors(trail: Trail) -> list[Noted]:
    """The entries that began such a change."""
    return [n for n in trail.entries if n.entry.action in _MAKERS and access.weighs(n, trail)]


class Ports(msgspec.Struct, frozen=True):
    """What such records are derived from."""

    audit: AuditService
    policy: PolicyService
    identity: IdentityService
    glass: GlassService
    quarantine: QuarantineService
    registry: RegistryService
    definitions: DefinitionService
    tier: Callable[[str], str]


class HomeRecords:
    """Records of changes of the home."""

    def __init__(self, ports: Ports) -> None:
        self._p = ports
        self._facts = HomeFacts(
            ports.policy.version, ports.policy.shifts, ports.policy.gained, ports.identity.principal, self._glass,
            self._hold, self._digest, self._during, ports.definitions.stored, ports.tier,
        )  # fmt: skip
        self._brief = msgspec.structs.replace(
            self._facts,
            shifts=lambda *_: (),
            gained=lambda *_: (),
            during=lambda *_: [],
            definition=lambda *_: None,
        )

    def trail(self) -> Trail:
        """What was done to the home."""
        return trail_of_home(self._p.audit, ACTIONS)

    def record(self, note: Noted, trail: Trail, brief: bool) -> ChangeRecord:
        """The record of one change; a brief one leaves out what takes long to find out, and no list shows."""
        found = _MAKERS[note.entry.action](note, trail, self._brief if brief else self._facts)
        return made(note, found, access.roles_before(trail, note.entry.principal, note.index))

    def _glass(self, name: str) -> Glass:
        return _named(self._p.glass.all(), name)

    def _hold(self, name: str) -> Hold:
        return _named(self._p.quarantine.all(), name)

    def _digest(self, alias: str) -> str:
        model, _, number = alias.rpartition("@")
        return self._p.registry.version(model, int(number)).digest

    def _during(self, opened: Noted, name: str, glass: str) -> list[Noted]:
        """What somebody did that only a break-glass allowed."""
        mine = takewhile(lambda f: f.index > opened.index, pages(self._p.audit, Conditions(principal=name)))
        return [Noted(f.index, f.entry) for f in mine if f.entry.detail.get("break_glass") == glass]


class _Row(Protocol):
    @property
    def id(self) -> str: ...


_R = TypeVar("_R", bound=_Row)


def _named(rows: Iterable[_R], name: str) -> _R:
    """The row that an entry is about. Raises `Integrity` when it is gone: rows like these are never removed."""
    found = next((r for r in rows if r.id == name), None)
    if found is None:
        raise Integrity(
            f"the log tells of {name[:60]}, and the database has it no more",
            hint="somebody changed the database: `falaj audit log` shows what was done; restore a backup",
            code="record_row_gone",
        )
    return found
