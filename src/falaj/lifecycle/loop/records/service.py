"""Change records listed, shown and reviewed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice

import msgspec

from falaj.governance.audit.model import Conditions
from falaj.governance.audit.service import AuditService
from falaj.governance.changes.killing import KillService
from falaj.governance.changes.oversight import InventoryService
from falaj.governance.changes.ports import ReviewStore
from falaj.governance.changes.records import (
    CHANGE_REVIEW,
    ChangeRecord,
    Review,
    Summary,
    change_id,
    check_review,
    check_type,
    entry_of,
    summary,
)
from falaj.governance.changes.service import ChangeService
from falaj.governance.door import Done, Door, Intent
from falaj.kernel.access import Principal, Resource
from falaj.kernel.clock import iso
from falaj.kernel.errors import Conflict, FalajError, NotFound
from falaj.lifecycle.loop.records import home, releases, words
from falaj.lifecycle.loop.records.home import HomeRecords
from falaj.lifecycle.loop.records.trail import Noted, Trail, trail_of
from falaj.lifecycle.registry.service import RegistryService
from falaj.lifecycle.registry.waivers import WaiverService
from falaj.lifecycle.rollout.service import RolloutService
from falaj.storage.sql.database import Database, Tx


class Ports(msgspec.Struct, frozen=True):
    """What records are derived from, and where their reviews are kept."""

    database: Database
    reviews: ReviewStore
    audit: AuditService
    registry: RegistryService
    rollout: RolloutService
    changes: ChangeService
    waivers: WaiverService
    inventory: InventoryService
    kills: KillService
    home: HomeRecords


class RecordService:
    """Every change that was made to what answers callers, and to who may make such changes."""

    def __init__(self, door: Door, ports: Ports) -> None:
        self._door = door
        self._p = ports
        self._releases = releases.Facts(
            ports.registry.by_digest, ports.rollout.rollout, ports.registry.admissions, ports.changes.of, self._tier
        )
        self._words = words.Facts(
            ports.registry.by_digest, ports.kills.of, ports.inventory.history, ports.waivers.of, ports.changes.of, self._tier
        )  # fmt: skip

    def all(
        self, model: str = "", limit: int = 100, only: str = "", wanted: Callable[[str], bool] = lambda _change: True
    ) -> list[Summary]:
        """The newest changes first, of one model or of all, and of one type if `only` names it; what is not `wanted`, by
        its name, is not counted. Raises `Invalid`."""
        check_type(only)
        models = [model] if model else sorted({*self._p.registry.models(), *self._p.inventory.models()})
        trails = [*map(self._trail, models), self._p.home.trail()]
        found = [(trail, note) for trail in trails for note in _anchors(trail)]
        found = [(trail, note) for trail, note in found if wanted(change_id(note.index))]
        found.sort(key=lambda pair: -pair[1].index)
        records = (self._record(note, trail, brief=True) for trail, note in found)
        meant = (r for r in records if model in ("", r.model) and only in ("", r.type))
        return [summary(r) for r in islice(meant, limit)]

    def get(self, change: str) -> ChangeRecord:
        """Raises `NotFound`, `Invalid`."""
        index = entry_of(change)
        for trail in self._trails(index):
            for note in _anchors(trail):
                if note.index == index:
                    return self._record(note, trail)
        raise NotFound("there is no such change", hint="`falaj changes list` shows them", code="no_such_change")

    def review(self, actor: Principal, change: str, outcome: str, text: str) -> ChangeRecord:
        """Write the review of a change down. Raises `Conflict` while it is under way."""
        record = self.get(change)
        now = iso(self._door.clock.now())
        intent = Intent(actor, CHANGE_REVIEW, Resource("Change", change), detail={"outcome": outcome[:40]})
        self._door.check(intent)
        try:
            if record.state == "under way":
                raise Conflict(f"{change} is under way", hint="review it when it has ended", code="change_under_way")
            kept = check_review(outcome, text)
        except FalajError as e:
            self._door.refuse(intent, e)
            raise

        def do(tx: Tx) -> Done[None]:
            self._p.reviews.add(tx, change, Review("written", outcome, kept, actor.name, now))
            return Done(None)

        self._door.change(intent, do)
        return self.get(change)

    def _trails(self, index: int) -> Iterator[Trail]:
        """Where the record may be that an entry began."""
        began = self._p.audit.search(Conditions(before_index=index + 1, limit=1))
        if began and began[0].index == index and began[0].entry.action in home.ACTIONS:
            yield self._p.home.trail()
        else:
            yield from map(self._trail, sorted({*self._p.registry.models(), *self._p.inventory.models()}))

    def _record(self, note: Noted, trail: Trail, brief: bool = False) -> ChangeRecord:
        if note.entry.action == releases.ADMITTED:
            record = releases.release(note, trail, self._releases)
        elif note.entry.action in home.ACTIONS:
            record = self._p.home.record(note, trail, brief)
        else:
            record = words.word(note, trail, self._words)
        written = self._p.database.read(lambda tx: self._p.reviews.of(tx, change_id(note.index)))
        return msgspec.structs.replace(record, review=written) if written else record

    def _trail(self, model: str) -> Trail:
        return trail_of(self._p.audit, model, self._p.registry.versions(model))

    def _tier(self, model: str) -> str:
        return self._p.inventory.governed(model).tier.name


def _anchors(trail: Trail) -> Iterator[Noted]:
    if not trail.model:
        yield from home.anchors(trail)
        return
    yield from releases.anchors(trail)
    yield from words.anchors(trail)
