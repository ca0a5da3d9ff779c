"""Which challengers were stopped: `guard.json`, shared by the workers of a data plane, kept over restarts.

Written by whichever worker has something to add, under a lock, and read by all of them several times a
second. It can only take traffic away: a challenger that stands in it gets nothing, what does not stand
in it gets at most what the signed plan says. While it is there but cannot be read, no challenger gets
any traffic.
"""

from __future__ import annotations

import fcntl
import threading
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from falaj.kernel.clock import Clock, iso
from falaj.kernel.log import logger
from falaj.lifecycle.rollout.model import Guard, trip_holds
from falaj.lifecycle.serving.model import GuardReport
from falaj.lifecycle.serving.plane.files import replace_file
from falaj.lifecycle.serving.plane.watching import Challenger, Watch

MEMORY = "guard.json"
_KEPT = 1000
_SHOWN = 20

Name = tuple[str, str, int]  # model, digest, generation


class Memory(msgspec.Struct, frozen=True):
    """`guard.json`: oldest first, one entry for a version of a model in a generation."""

    trips: tuple[GuardReport, ...]


class Trips:
    """The memory, as one worker sees it. `tell` may be called from any thread; the rest belongs to one."""

    def __init__(self, folder: Path, clock: Clock) -> None:
        self._folder = folder
        self._clock = clock
        self._seen: tuple[int, int, int] | None = None
        self._lock = threading.Lock()
        self._known: dict[Name, GuardReport] = {}
        self._unsaved: list[GuardReport] = []
        self._closed: list[Watch] = []
        self._unreadable = ""
        self._complained = False
        self._log = logger(__name__)
        self.wake = threading.Event()
        self._read()

    def watch(self, challenger: Challenger, guard: Guard | None, before: Watch | None) -> Watch:
        """Watch a challenger of a new plan; stopped from the beginning if a trip holds for it."""
        watch = Watch(challenger, guard, self._clock, self.tell, before)
        report = self._holding(watch)
        if report is not None:
            watch.close(report)
        return watch

    def tell(self, watch: Watch) -> None:
        """A watch has stopped its challenger."""
        if watch.trip is not None:
            with self._lock:
                self._known.setdefault(_name(watch.trip), watch.trip)
                self._unsaved.append(watch.trip)
                self._closed.append(watch)
            self.wake.set()
            self._log.error(
                "challenger stopped", version=watch.trip.alias, reason=watch.trip.reason, observed=watch.trip.observed
            )

    def poll(self, watches: Iterable[Watch]) -> bool:
        """Save what is new, take over what other workers saw; True when something was. Never raises for the file."""
        changed = self._read()
        for watch in watches:
            changed |= self._close(watch)
        with self._lock:
            unsaved = list(self._unsaved)
            settled = [w for w in self._closed if w.in_flight <= 0]
        if not unsaved and not settled:
            return changed
        try:
            self._save(unsaved, settled)
        except OSError as e:
            if not self._complained:
                self._log.error("guard.json cannot be written, trying again", reason=str(e))
            self._complained = True
            return changed
        self._complained = False
        with self._lock:
            self._unsaved = [r for r in self._unsaved if r not in unsaved]
            self._closed = [w for w in self._closed if w not in settled]
        return True

    def reports(self, models: Iterable[str]) -> tuple[GuardReport, ...]:
        """The last trips of some models, oldest first."""
        wanted = set(models)
        with self._lock:
            known = list(self._known.values())
        return tuple(r for r in known if r.model in wanted)[-_SHOWN:]

    def _close(self, watch: Watch) -> bool:
        """Close a watch in service if a trip holds for it."""
        report = self._holding(watch) if watch.trip is None else None
        if report is None:
            return False
        watch.close(report)
        if report.generation == watch.challenger.generation:  # this worker has a part in it
            with self._lock:
                self._closed.append(watch)
        return True

    def _holding(self, watch: Watch) -> GuardReport | None:
        who = watch.challenger
        if self._unreadable:
            return self._blind(who)
        with self._lock:
            known = list(self._known.values())
        for report in reversed(known):
            same = (report.model, report.digest) == (who.model, who.digest)
            if same and trip_holds(report.generation, who.generation, watch.guard):
                return report
        return None

    def _blind(self, who: Challenger) -> GuardReport:
        now = iso(self._clock.now())
        return GuardReport(
            who.digest, who.alias, now, "memory_unreadable", 0.0, 0.0, 0, 0, "", now, now,
            model=who.model, generation=who.generation, role=who.role,
        )  # fmt: skip

    def _read(self) -> bool:
        """Read the file if it has changed."""
        try:
            stat = (self._folder / MEMORY).stat()
            seen = (stat.st_mtime_ns, stat.st_ino, stat.st_size)
            if seen == self._seen:
                return False
            memory = msgspec.json.decode((self._folder / MEMORY).read_bytes(), type=Memory)
        except FileNotFoundError:
            return False
        except (OSError, msgspec.DecodeError, UnicodeDecodeError) as e:
            if self._unreadable:
                return False
            self._log.error("guard.json cannot be read: challengers get no traffic", reason=str(e))
            self._unreadable = str(e) or type(e).__name__
            return True
        self._seen, self._unreadable = seen, ""
        self._take(memory)
        return True

    def _take(self, memory: Memory) -> None:
        with self._lock:
            known = {_name(r): r for r in memory.trips}
            known.update({_name(r): r for r in self._unsaved if _name(r) not in known})
            self._known = known

    def _save(self, unsaved: list[GuardReport], settled: list[Watch]) -> None:
        """Add to the file what other workers do not know yet; survives a power cut. Raises `OSError`."""
        with (self._folder / "guard.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            self._seen = None
            self._read()
            if self._unreadable:
                raise OSError(f"{MEMORY} is there but cannot be read: {self._unreadable}")
            with self._lock:
                known = dict(self._known)
            for report in unsaved:
                known.setdefault(_name(report), report)
            for watch in settled:
                if watch.trip is not None and (name := _name(watch.trip)) in known:
                    known[name] = _settled(known[name], watch)
            memory = Memory(tuple(known.values())[-_KEPT:])
            replace_file(self._folder / MEMORY, msgspec.json.encode(memory), sync=True)
            self._take(memory)


def _name(report: GuardReport) -> Name:
    return report.model, report.digest, report.generation


def _settled(report: GuardReport, watch: Watch) -> GuardReport:
    """The report with this worker's part added: its bad answers, and when its last request was answered."""
    bad, first = watch.bad()
    ended = iso(datetime.fromtimestamp(watch.last_at, UTC))
    return msgspec.structs.replace(
        report,
        bad_answers=report.bad_answers + bad,
        first_bad_at=min(filter(None, (report.first_bad_at, first)), default=""),
        zero_traffic_at=max(report.zero_traffic_at, ended, report.verdict_at),
    )
