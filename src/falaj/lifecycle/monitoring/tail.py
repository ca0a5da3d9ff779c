"""Reads the prediction journal as it grows and hands each record on.

The cursor is kept with what was made of the records, in one transaction, so a restart goes on where
the last one stopped: no record is missed, and one that comes again is known by its id.

Each look that comes to its end leaves a heartbeat. Who watches it is told when looks fail or stop (`service.DeadMan`).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

from falaj.kernel.errors import Integrity
from falaj.kernel.log import logger
from falaj.lifecycle.serving.plane.journal import SUFFIX, Prediction, records_from

BATCH = 500
_log = logger(__name__)

Sink = Callable[[list[Prediction], str, int], None]
"""Takes records in order, with the segment and the offset behind the last of them."""


class Tail:
    """Follows a journal folder from a thread; after each look it does `then`. `news` is notified after each batch."""

    def __init__(
        self, folder: Path, cursors: dict[str, int], sink: Sink, then: Callable[[], None], seconds: float = 0.2
    ) -> None:
        self._folder = folder
        self._cursors = dict(cursors)
        self._sink = sink
        self._then = then
        self._seconds = seconds
        self._stopping = threading.Event()
        self._wake = threading.Event()
        self._begun = self._ended = 0  # the number of the last look that began, and of the last that came to its end
        self._done = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="journal-tail", daemon=True)
        self._looked = time.monotonic()
        self.news = threading.Condition()
        self.looks = 0
        self.trouble = ""

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def stop(self) -> None:
        """End, wait for the look that is under way, and let nobody wait for another."""
        self._stopping.set()
        self._wake.set()
        with self._done:
            self._done.notify_all()
        if self._thread.is_alive():
            self._thread.join()

    def silence(self) -> float:
        """Seconds since a look last came to its end."""
        return time.monotonic() - self._looked

    def catch_up(self, seconds: float) -> bool:
        """Look at once, and wait until a look that began after this call has ended; False when none did in time.

        After `stop` nobody is kept waiting: False at once.
        """
        with self._done:
            wanted = self._begun + 1
            self._wake.set()
            self._done.wait_for(lambda: self._ended >= wanted or self._stopping.is_set(), seconds)
            return self._ended >= wanted

    def look(self) -> None:
        """Read what has come, then do what follows."""
        self._begun += 1
        self.read()
        self._then()
        self._looked = time.monotonic()
        self.looks += 1
        self.trouble = ""
        with self._done:
            self._ended = self._begun
            self._done.notify_all()

    def read(self) -> int:
        """Read what has come since; returns the number of records.

        Raises `Integrity` for a damaged segment, after the others were read: it hides nothing but itself.
        """
        count, damaged = 0, None
        for path in sorted(self._folder.glob(f"*{SUFFIX}")):
            if path.stat().st_size > self._cursors.get(path.name, 0):
                try:
                    count += self._segment(path)
                except Integrity as e:
                    damaged = damaged or e
        if damaged is not None:
            raise damaged
        return count

    def _segment(self, path: Path) -> int:
        batch: list[Prediction] = []
        count, end = 0, self._cursors.get(path.name, 0)
        for record, behind in records_from(path, end):
            batch.append(record)
            end = behind
            if len(batch) == BATCH:
                count += self._hand_on(batch, path.name, end)
                batch = []
        return count + (self._hand_on(batch, path.name, end) if batch else 0)

    def _hand_on(self, batch: list[Prediction], segment: str, end: int) -> int:
        self._sink(batch, segment, end)
        self._cursors[segment] = end
        with self.news:
            self.news.notify_all()
        return len(batch)

    def _run(self) -> None:
        while not self._stopping.is_set():
            self._wake.wait(self._seconds)
            self._wake.clear()
            if self._stopping.is_set():
                return
            try:
                self.look()
            except Exception as e:  # one fault must not end all looking; the dead man tells when it stays
                trouble, self.trouble = self.trouble, f"{type(e).__name__}: {e}"
                if trouble != self.trouble:  # several times a second it would say nothing new
                    _log.error("journal_tail_failed", error=self.trouble)
