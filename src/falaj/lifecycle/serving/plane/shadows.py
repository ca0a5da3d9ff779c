"""Mirrored requests: run on a shadow version beside the traffic, recorded, never answered.

One thread with a queue of its own and a journal of its own, so the thread that answers callers waits
for nothing here: it appends to the queue or, when that is full, counts the request as dropped. What
both still share is the processor: a worker has one core, and a shadow uses what callers leave of it.
"""

from __future__ import annotations

import threading
from collections import deque
from pathlib import Path
from time import perf_counter

import msgspec

from falaj.kernel.clock import Clock
from falaj.kernel.log import logger
from falaj.lifecycle.serving.plane.attempt import Attempt, Read, failed, judged, matrix_of
from falaj.lifecycle.serving.plane.journal import Journal, Prediction
from falaj.lifecycle.serving.plane.loading import Version
from falaj.lifecycle.serving.plane.watching import SLOW, Watch, score_of

MAX_WAITING = 256  # requests
MAX_ROWS_WAITING = 20_000  # over all of them: what waits holds the callers' values in memory


class Mirrored(msgspec.Struct, frozen=True):
    """A request for a shadow. `failure` says why it cannot even be read; `stable` is the stable version's score."""

    version: Version
    watch: Watch
    read: Read
    failure: Attempt | None
    stable: float | None
    moment: int
    generation: int
    principal: str
    request: str
    primary: str  # the id of the prediction that the caller got


class Shadows:
    """Runs mirrored requests. `offer` belongs to the thread that answers callers."""

    def __init__(self, journal: Path, clock: Clock, worker: str) -> None:
        self._folder = journal
        self._clock = clock
        self._worker = worker
        self._waiting: deque[Mirrored] = deque()
        self._rows = 0
        self._turn = threading.Condition()
        self._stopping = False
        self._rotating = False
        self._thread: threading.Thread | None = None
        self._journal: Journal | None = None
        self._log = logger(__name__)

    def offer(self, job: Mirrored) -> None:
        """Queue a request, or count it as dropped. Does not wait."""
        with self._turn:
            rows = self._rows + job.read.rows
            if len(self._waiting) >= MAX_WAITING or rows > MAX_ROWS_WAITING or self._stopping:
                job.version.counts.dropped += 1
                return
            self._waiting.append(job)
            self._rows = rows
            self._turn.notify()
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="shadows", daemon=True)
            self._thread.start()

    def turn(self, moment: int, *, asked: bool) -> None:
        """Begin a new segment when that is asked for or due at `moment` (µs); done by the thread that writes."""
        journal = self._journal
        if journal is not None and (asked or journal.due(moment)):
            with self._turn:
                self._rotating = True
                self._turn.notify()

    def close(self) -> None:
        """End after the request that is under way; what waits is dropped."""
        with self._turn:
            self._stopping = True
            self._turn.notify()
        if self._thread is not None:
            self._thread.join()
        if self._journal is not None:
            self._journal.close()

    def _work(self) -> None:
        while True:
            with self._turn:
                self._turn.wait_for(lambda: self._waiting or self._stopping or self._rotating)
                if self._stopping:
                    return
                rotating, self._rotating = self._rotating, False
                job = self._waiting.popleft() if self._waiting else None
                self._rows -= job.read.rows if job else 0
            if rotating:
                self._rotate()
            if job is None or job.watch.trip is not None:
                continue
            try:
                self._run(job)
            except Exception as e:  # a shadow may fail in any way, a full disk included: callers must not notice
                job.version.counts.dropped += 1
                self._log.error("mirrored request lost", version=job.version.alias, error=f"{type(e).__name__}: {e}")

    def _rotate(self) -> None:
        try:
            if self._journal is not None:
                self._journal.rotate()
        except OSError as e:
            self._log.error("journal segment goes on", error=str(e))

    def _run(self, job: Mirrored) -> None:
        began = perf_counter()
        attempt = job.failure or self._attempt(job)
        seconds = perf_counter() - began
        self._record(job, attempt, seconds)
        job.version.counts.add(seconds, job.read.rows, bool(attempt.failure))
        patience = job.watch.patience
        code = attempt.code | (SLOW if patience is not None and seconds > patience else 0)
        job.watch.pair(score_of(job.version.contract, attempt.outputs), job.stable)
        job.watch.add(code, job.moment)

    def _attempt(self, job: Mirrored) -> Attempt:
        try:
            return judged(job.version, job.read, job.version.run(matrix_of(job.version, job.read)))
        except (
            Exception
        ) as e:  # the runtime raises its own untyped errors; each is the model's failure, and is recorded
            return failed(job.version, job.read, e)

    def _record(self, job: Mirrored, attempt: Attempt, seconds: float) -> None:
        if self._journal is None:
            self._journal = Journal(self._folder, self._clock)
        self._journal.append(
            Prediction(
                id=self._journal.next_id,
                at=job.moment,
                model=job.version.contract.model,
                version=job.version.alias,
                digest=job.version.digest,
                principal=job.principal,
                generation=job.generation,
                worker=self._worker,
                rows=job.read.rows,
                inputs=job.read.columns,
                outputs=attempt.outputs,
                features=job.read.features.values,
                statuses=job.read.features.statuses,
                event_times=job.read.features.event_times,
                duration=int(seconds * 1_000_000),
                request=job.request,
                error=attempt.failure,
                role="shadow",
                primary=job.primary,
            )
        )
