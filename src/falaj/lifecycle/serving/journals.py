"""Sealed segments of the prediction journal: shipped to the lake, each one audited leaf.

The segment's file and its salts stay where they are, so that `falaj why` finds a record with one seek.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import msgspec

from falaj.governance.door import Done, Door, Intent
from falaj.kernel.access import SYSTEM, Principal, Resource
from falaj.kernel.clock import iso
from falaj.kernel.errors import FalajError, NotFound
from falaj.kernel.log import logger
from falaj.kernel.lookout import Lookout
from falaj.lifecycle.serving.model import (
    JOURNAL_ROTATE,
    JOURNAL_SEAL,
    SHIP,
    JournalSegment,
    ShipOutcome,
    ShipTask,
)
from falaj.lifecycle.serving.plane.journal import ROTATE, SUFFIX, has_records, is_sealed
from falaj.lifecycle.serving.ports import Alarms, SegmentStore
from falaj.storage.sql.database import Database, Tx
from falaj.workflow.flow import FlowState, Workflows

TROUBLE = "journal"
"""The kind of incident when a segment cannot be shipped."""
_LEAST_PAUSE, _LONGEST_PAUSE = 60.0, 3600.0  # seconds between two tries
_log = logger(__name__)


class Ports(msgspec.Struct, frozen=True):
    """What the journal works with: the folder that the data plane writes to, and the folder of its tables."""

    database: Database
    store: SegmentStore
    folder: Path
    tables: Path


class JournalService:
    """Segments of the prediction journal: which are pending, and the sealing of one."""

    def __init__(self, door: Door, ports: Ports) -> None:
        self._door = door
        self._p = ports
        self._shipped: set[str] | None = None

    def segments(self) -> list[JournalSegment]:
        """What was sealed, newest first."""
        return self._p.database.read(self._p.store.all)

    def pending(self) -> list[str]:
        """Names of sealed segments that hold something and were not shipped yet, oldest first."""
        if self._shipped is None:
            self._shipped = set(self._p.database.read(self._p.store.names))
        paths = sorted(self._p.folder.glob(f"*{SUFFIX}"))
        new = (p for p in paths if p.stem not in self._shipped)
        return [p.stem for p in new if has_records(p) and is_sealed(p)]

    def rotate(self, actor: Principal) -> dict[str, Any]:
        """Ask every worker of the data plane to end its segments; they do within a second."""
        asked = iso(self._door.clock.now())

        def do(_tx: Tx) -> Done[dict[str, Any]]:
            return Done({"asked": asked})

        answer = self._door.change(Intent(actor, JOURNAL_ROTATE, Resource("Journal", "*")), do)
        self._p.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        (self._p.folder / ROTATE).touch(mode=0o600)
        return answer

    def task(self, segment: str) -> ShipTask:
        """What a step process shall ship. Raises `NotFound`."""
        path = self._p.folder / f"{segment}{SUFFIX}"
        if not path.is_file():
            raise NotFound(
                f"the journal has no segment {segment[:40]}", hint="restore it from a backup", code="no_such_segment"
            )
        return ShipTask(str(path), str(self._p.tables))

    def seal(self, outcome: ShipOutcome) -> dict[str, Any]:
        """Write down what a shipped segment held: one row, one leaf, however often it is done."""
        now = iso(self._door.clock.now())
        segment = JournalSegment(**msgspec.structs.asdict(outcome), sealed_at=now)

        def do(tx: Tx) -> Done[dict[str, Any]]:
            self._p.store.add(tx, segment)
            return Done(msgspec.to_builtins(segment))

        facts = ("records", "rows", "bytes", "digest", "root")
        tables = {t.model: t.version for t in outcome.tables}
        detail = {"tables": tables, **{k: getattr(outcome, k) for k in facts}}
        done = self._door.change(_intent(outcome.segment, f"seal_{outcome.segment}", detail), do)
        if self._shipped is not None:
            self._shipped.add(outcome.segment)
        return done

    def refuse(self, segment: str, error: FalajError, operation_id: str) -> None:
        """Audit that a segment could not be shipped."""
        self._door.refuse(_intent(segment, operation_id, {}), error)


class Shipper(Lookout):
    """Starts the shipment of sealed segments from a thread, one after another: two would write to one table."""

    def __init__(self, journals: JournalService, flows: Workflows, alarms: Alarms, seconds: float = 5.0) -> None:
        super().__init__("journal-shipper", seconds, "shipping_failed", self.look)
        self._journals = journals
        self._flows = flows
        self._alarms = alarms
        self._under_way: tuple[str, str] | None = None  # segment, flow
        self._failed: dict[str, tuple[int, float]] = {}  # segment → tries, when to try again (monotonic)
        self._settled = False

    def look(self) -> str:
        """Follow the shipment under way, or start the next; returns its flow, empty when there is nothing to do."""
        if self._under_way is not None:
            segment, flow = self._under_way
            state = self._flows.state(flow)
            if state.state == "running":
                return flow
            self._under_way = None
            self._ended(segment, state)
        waiting = (s for s in self._journals.pending() if time.monotonic() >= self._failed.get(s, (0, 0.0))[1])
        segment = next(waiting, "")
        if segment:
            self._under_way = segment, self._begun(segment)
            return self._under_way[1]
        if not self._failed and not self._settled:
            self._alarms.settle("*", TROUBLE)
            self._settled = True
        return ""

    def _begun(self, segment: str) -> str:
        """The flow that ships a segment: one that runs already, or a new one. What each does is done once."""
        tries = 0
        while True:
            tries += 1
            flow = f"shp_{segment}" if tries == 1 else f"shp_{segment}_{tries}"
            try:
                if self._flows.state(flow).state == "running":
                    return flow
            except NotFound:
                self._flows.start(SHIP, flow, {"segment": segment})
                return flow

    def _ended(self, segment: str, state: FlowState) -> None:
        if state.state == "done":
            self._failed.pop(segment, None)
            return
        tries = self._failed.get(segment, (0, 0.0))[0] + 1
        pause = min(_LEAST_PAUSE * 2 ** (tries - 1), _LONGEST_PAUSE)
        self._failed[segment] = tries, time.monotonic() + pause
        self._settled = False
        why = str((state.error or {}).get("error", "it failed"))
        _log.error("segment_not_shipped", segment=segment, tries=tries, error=why)
        self._alarms.open("*", TROUBLE, "", f"the segment {segment} cannot be sealed: {why}")


def _intent(segment: str, operation_id: str, detail: dict[str, Any]) -> Intent:
    return Intent(SYSTEM, JOURNAL_SEAL, Resource("JournalSegment", segment), operation_id, detail=detail)
