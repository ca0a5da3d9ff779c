"""Data plane workers are killed under load: only what they held in flight fails, and every answer is in the journal.

    python proofs/crash_serving.py [--kills 20] [--workers 2] [--callers 8] [--seed 7] [--no-control]

A real data plane answers callers that never stop asking, single rows and batches, each caller on a connection of which it
knows the worker. SIGKILL takes one worker after the other at random moments, now and then one that has only just
started, now and then all at once; at last the supervisor itself, and the data plane is started again. To one in three
segments of killed workers the first half of a record is added, as if the kill had torn its last one.

Held against what the callers saw: a request may fail only on a connection to a killed worker, at most one on each;
within 2 s all workers answer again; each prediction that was answered is in the journal once, as it was answered, found by
its id, by a reader of the segments and by a tail that followed all the time; no request is there twice.

The control: two data planes that differ in the journal only, one that writes 50 ms after the answer and one that never
writes. The proof must find both. Exits 1 when anything above does not hold, or a control goes unnoticed.
"""

from __future__ import annotations

import argparse
import http.client
import json
import math
import os
import random
import select
import signal
import statistics
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from importlib import metadata
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "src")]

from falaj.lifecycle.monitoring.tail import Tail  # noqa: E402  # the paths come first
from falaj.lifecycle.serving import seals  # noqa: E402
from falaj.lifecycle.serving.plane.journal import (  # noqa: E402
    Prediction,
    is_sealed,
    iter_records,
    payloads_from,
    read_record,
)
from tests.lifecycle.serving.plane.fleet import Home, Plane, flight, flight_contract, flight_graph  # noqa: E402

INFER = "/v2/models/flight-delay/infer"
BACK_SECONDS = 2.0
SETTLE_SECONDS = 1.0  # a failure later than this after a kill is not of that kill
BATCH_ROWS = 1500

BROKEN_JOURNALS = {
    "late": """
import queue, threading, time
late, started = queue.SimpleQueue(), []
def run():
    while True:
        due, descriptor, data = late.get()
        time.sleep(max(0.0, due - time.monotonic()))
        os.write(descriptor, data)
def write(descriptor, data):
    if not started:
        started.append(threading.Thread(target=run, daemon=True))
        started[0].start()
    late.put((time.monotonic() + 0.05, descriptor, bytes(data)))
    return len(data)
""",
    "off": """
def write(descriptor, data):
    return os.write(descriptor, data) if bytes(data).startswith(journal.SEALED) else len(data)
""",
}
"""What takes the place of `os.write` in the journal of a control, by its name."""

BROKEN_PLANE = """
import os, types
from falaj.lifecycle.serving.plane import journal
{write}
journal.os = types.SimpleNamespace(**{{**vars(os), "write": write}})
from falaj.entrypoints.data_plane import main
main()
"""


@dataclass(frozen=True)
class Failure:
    """A request without an answer. `worker` is the process of its connection, 0 if that had not been said yet."""

    caller: int
    worker: int
    at: float
    why: str


@dataclass
class Book:
    """What the callers saw. Each list is appended to by many threads, each entry by one."""

    asked: list[str] = field(default_factory=list)
    answers: list[tuple[str, str, Any]] = field(default_factory=list)  # request, prediction, first output
    failures: list[Failure] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)  # answers that are none
    kills: dict[int, float] = field(default_factory=dict)  # process → moment
    held: int = 0  # requests in flight on workers at the moment they were killed
    back: list[float] = field(default_factory=list)


class Caller(threading.Thread):
    """Asks without end on one connection after another, and writes down what became of each request."""

    def __init__(self, number: int, port: int, tokens: tuple[str, str], book: Book, stop: threading.Event) -> None:
        super().__init__(daemon=True)
        self.worker = 0
        self.in_flight = False
        self._number, self._port, self._book, self._stop_event = number, port, book, stop
        self._ask = {"authorization": f"Bearer {tokens[0]}"}
        self._look = {"authorization": f"Bearer {tokens[1]}"}
        self._chance = random.Random(number)
        self._serial = 0

    def run(self) -> None:
        while not self._stop_event.is_set():
            self.worker = 0
            connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=20)
            try:
                connection.connect()
            except OSError:  # nobody listens now: nothing was sent
                time.sleep(0.005)
                continue
            try:
                self._talk(connection)
            except (OSError, http.client.HTTPException) as e:
                why = f"{type(e).__name__}: {e}"
                self._book.failures.append(Failure(self._number, self.worker, time.monotonic(), why))
            finally:
                self.in_flight = False
                connection.close()

    def _talk(self, connection: http.client.HTTPConnection) -> None:
        """One connection: up to 150 requests, so that callers spread over the workers again after a kill."""
        self.worker = worker_of(connection, self._look)
        for _ in range(self._chance.randrange(20, 150)):
            if self._stop_event.is_set() or ended(connection, self._chance.uniform(0, 0.006)):
                return
            self._serial += 1
            name = f"{self._number}-{self._serial}"
            rows = BATCH_ROWS if self._chance.random() < 0.03 else 1
            body = json.dumps(flight(rows, distance=float(self._serial)) | {"id": name})
            self._book.asked.append(name)
            self.in_flight = True
            connection.request("POST", INFER, body, self._ask)
            answer = connection.getresponse()
            content = answer.read()
            self.in_flight = False
            if answer.status != 200:
                self._book.wrong.append(f"{answer.status} {content[:200]!r}")
                continue
            found = json.loads(content)
            self._book.answers.append((name, found["parameters"]["prediction_id"], found["outputs"][0]["data"]))


def ended(connection: http.client.HTTPConnection, seconds: float) -> bool:
    """Wait between two requests; whether the server has ended the connection by then."""
    return connection.sock is None or bool(select.select([connection.sock], [], [], seconds)[0])


def worker_of(connection: http.client.HTTPConnection, headers: dict[str, str]) -> int:
    """The process at the other end."""
    connection.request("GET", "/falaj/v1/status", headers=headers)
    return int(json.loads(connection.getresponse().read())["pid"])


class Field:
    """A data plane, its callers, a tail over its journal."""

    def __init__(self, root: Path, workers: int, callers: int, program: tuple[str, ...] = ()) -> None:
        self.home = Home(root / "home")
        self.tokens = (self.home.token("shop", ("service",)), self.home.token("vera", ("viewer",)))
        self.home.materialise({"JFK": (datetime.now(UTC) + timedelta(seconds=-5), (10.0, 1.0))})
        package = self.home.package(flight_contract(), flight_graph())
        self.home.publish(self.home.bundle(1, [self.home.release(package, "flight-delay@1")]))
        self.journal = self.home.plane / "journal"
        self.workers = workers
        self.program = program or ("-m", "falaj.entrypoints.data_plane")
        self.plane = Plane(self.home, workers, program=self.program)
        self.book, self.tailed = Book(), Counter[str]()
        self.torn: set[Path] = set()
        self.tail = Tail(self.journal, {}, self._sink, lambda: None, 0.05)
        self._stop = threading.Event()
        self.callers = [Caller(n, self.plane.port, self.tokens, self.book, self._stop) for n in range(callers)]

    def pids(self) -> set[int]:
        """The workers that say that they serve, and live."""
        found = {json.loads(p.read_bytes())["pid"] for p in (self.home.plane / "status").glob("*.json")}
        return {pid for pid in found if Path(f"/proc/{pid}").exists() and not _zombie(pid)}

    def await_all(self, gone: set[int], since: float, seconds: float = 20.0) -> float:
        """Seconds since `since` until each of all workers, none of `gone` among them, answered on a new connection."""
        wanted: set[int] = set()
        while time.monotonic() < since + seconds:
            if not wanted:
                pids = self.pids()
                wanted = pids if len(pids) == self.workers and not pids & gone else set()
            elif not (wanted := wanted - {self._knock()}):
                return time.monotonic() - since
            time.sleep(0.002)
        raise SystemExit(f"no full capacity within {seconds:g} s; log: {self.plane.log}")

    def kill(self, victims: set[int]) -> None:
        book, now = self.book, time.monotonic()
        book.held += sum(c.in_flight for c in self.callers if c.worker in victims)
        for pid in victims:
            book.kills[pid] = now
            os.kill(pid, signal.SIGKILL)

    def stop(self) -> None:
        """The callers first, then the data plane; the tail reads to the end."""
        self._stop.set()
        for caller in self.callers:
            caller.join()
        self.plane.stop()
        if not self.tail.catch_up(30):
            self.book.wrong.append(f"the tail does not come to the end: {self.tail.trouble}")
        self.tail.stop()

    def _knock(self) -> int:
        """Who answers a new connection, 0 for nobody."""
        connection = http.client.HTTPConnection("127.0.0.1", self.plane.port, timeout=5)
        try:
            return worker_of(connection, {"authorization": f"Bearer {self.tokens[1]}"})
        except (OSError, http.client.HTTPException):
            return 0
        finally:
            connection.close()

    def _sink(self, records: list[Prediction], _segment: str, _offset: int) -> None:
        self.tailed.update(r.id for r in records)


def _zombie(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


@contextmanager
def under_load(root: Path, workers: int, callers: int, program: tuple[str, ...] = ()) -> Iterator[Field]:
    field_ = Field(root, workers, callers, program)
    try:
        field_.await_all(set(), time.monotonic())
        field_.tail.start()
        for caller in field_.callers:
            caller.start()
        yield field_
    finally:
        field_.stop()


def kill_workers(scene: Field, kills: int, chance: random.Random) -> None:
    """One at a time; each fifth time the replacement too, before anybody is served by it; each seventh time all."""
    for number in range(1, kills + 1):
        time.sleep(chance.uniform(0.1, 0.5))
        running = scene.pids()
        victims = running if number % 7 == 0 else {chance.choice(sorted(running))}
        before = set(scene.journal.glob("*.seg"))
        began = time.monotonic()
        scene.kill(victims)
        if number % 5 == 0:
            scene.await_all(victims, began)
            fresh = scene.pids() - running
            began = time.monotonic()
            scene.kill(fresh)
            victims = victims | fresh
        scene.book.back.append(scene.await_all(victims, began))
        if number % 3 == 0:
            tear(scene, before, chance)


def tear(scene: Field, segments: set[Path], chance: random.Random) -> None:
    """Add the first half of a record to a segment that a killed worker left."""
    for segment in sorted(segments):
        content = segment.read_bytes()
        if segment not in scene.torn and is_sealed(segment) and len(content) > 200:
            payload, behind = next(payloads_from(segment, 0))
            frame = content[behind - len(payload) - 8 : behind]
            with segment.open("ab") as f:
                f.write(frame[: chance.randrange(1, len(frame))])
            scene.torn.add(segment)
            return


def kill_supervisor(scene: Field) -> tuple[float, float]:
    """(seconds until its workers had gone, until a data plane that was started again at once had full capacity)."""
    running = scene.pids()
    began = time.monotonic()
    scene.plane.process.kill()
    scene.plane.process.wait()
    for pid in running:  # they notice, finish what they hold, and go
        scene.book.kills[pid] = began
    while scene.pids() & running:
        if time.monotonic() > began + 30:
            raise SystemExit("workers outlive their supervisor by 30 s")
        time.sleep(0.005)
    gone = time.monotonic() - began
    scene.plane.http.close()
    scene.plane = Plane(scene.home, scene.workers, port=scene.plane.port, program=scene.program)
    return gone, scene.await_all(running, began)


def complaints(scene: Field, most: float = BACK_SECONDS) -> list[str]:
    """Everything that does not hold."""
    book, found = scene.book, list(scene.book.wrong)
    found += [f"a request failed that no killed worker held: {f}" for f in book.failures if not excused(book, f)]
    each = Counter((f.caller, f.worker) for f in book.failures if f.worker)
    found += [f"{n} requests failed on one connection" for n in each.values() if n > 1]
    found += [f"back after {s:.2f} s" for s in book.back if s > most]
    return found + missing(scene)


def excused(book: Book, failure: Failure) -> bool:
    """Whether the worker of the failed request was killed just before. One whose worker had not been said yet waited in
    the queue of one that was killed."""
    return delay(book, failure) <= SETTLE_SECONDS


def delay(book: Book, failure: Failure) -> float:
    """Seconds from the kill that a failure is of; infinite when it is of none."""
    kills = [book.kills.get(failure.worker, math.inf)] if failure.worker else list(book.kills.values())
    return min((failure.at - at for at in kills if at <= failure.at), default=math.inf)


def missing(scene: Field) -> list[str]:
    """What the journal lacks of the answers, or holds twice."""
    records: dict[str, Prediction] = {}
    found: list[str] = []
    for segment in sorted(scene.journal.glob("*.seg")):
        inside = list(iter_records(segment))
        found += [f"{r.id} is in the journal twice" for r in inside if r.id in records]
        records.update((r.id, r) for r in inside)
        if not is_sealed(segment):
            found.append(f"{segment.name} is not sealed after the end")
            continue
        seals.commit(segment, (payload for payload, _ in payloads_from(segment, 0)))
        if seals.check(segment).records != len(inside):
            found.append(f"{segment.name} is sealed with other records")
    requests = Counter(r.request for r in records.values())
    found += [f"request {name} is in the journal {n} times" for name, n in requests.items() if n > 1]
    found += [f"{name} is in the journal and was never asked" for name in requests.keys() - set(scene.book.asked)]
    for request, prediction, output in scene.book.answers:
        record = records.get(prediction)
        if record is None:
            found.append(f"{prediction} was answered and is not in the journal")
        elif (record.request, record.outputs["probability"]) != (request, output):
            found.append(f"{prediction} was answered otherwise")
        elif read_record(scene.journal, prediction) != record:
            found.append(f"{prediction} is not found by its id")
    if scene.tailed != Counter(records.keys()):
        found.append(f"the tail saw {scene.tailed.total()} records, there are {len(records)}")
    return found


def control(name: str, root: Path) -> int:
    """How many answers the proof misses when the journal is broken in this way."""
    program = ("-c", BROKEN_PLANE.format(write=BROKEN_JOURNALS[name]))
    with under_load(root, 2, 4, program) as scene:
        time.sleep(0.5)
        victims = {sorted(scene.pids())[0]}
        scene.kill(victims)
        scene.await_all(victims, time.monotonic())
    return sum("is not in the journal" in c for c in complaints(scene))


def prove(
    kills: int, workers: int, callers: int, seed: int, root: Path, most: float = BACK_SECONDS
) -> tuple[str, list[str]]:
    """(the figures, the complaints). `most` is how many seconds may pass until all workers answer again."""
    chance = random.Random(seed)
    with under_load(root, workers, callers) as scene:
        began = time.monotonic()
        kill_workers(scene, kills, chance)
        held, killed, failed = scene.book.held, len(scene.book.kills), len(scene.book.failures)
        late = max((delay(scene.book, f) for f in scene.book.failures), default=0.0)
        gone, again = kill_supervisor(scene)
        time.sleep(0.3)
        seconds = time.monotonic() - began
    book = scene.book
    back = book.back
    text = (
        f"{killed} SIGKILLs in {kills} rounds among {workers} workers under {len(book.answers) / seconds:.0f} requests/s on {callers}"
        f" connections: {failed} of {len(book.asked)} requests failed, each on a connection to a killed worker"
        f" and at most {late * 1000:.0f} ms after the kill ({held} were in flight at those moments);"
        f" all workers answered again after {statistics.median(back):.2f} s (worst {max(back):.2f});"
        f" supervisor killed: {len(book.failures) - failed} failed, its workers gone after {gone:.2f} s,"
        f" started again all there after {again:.2f} s;"
        f" {len(book.answers)} answers, each in the journal once, {len(scene.torn)} torn ends,"
        f" {len(list(scene.journal.glob('*.seg')))} segments"
    )
    return text, complaints(scene, most)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--callers", type=int, default=8)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--no-control", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="falaj-proof-") as folder:
        text, found = prove(options.kills, options.workers, options.callers, options.seed, Path(folder) / "real")
        for name in () if options.no_control else sorted(BROKEN_JOURNALS):
            lost = control(name, Path(folder) / name)
            text += f"; control '{name}': {lost} answers missed"
            if not lost:
                found.append(f"a journal that is {name} went unnoticed")
    for line in found[:20]:
        print(line, file=sys.stderr)
    print(
        f"crash_serving: {text} ({os.cpu_count()} cores, Python {sys.version.split()[0]}, granian {metadata.version('granian')})"
    )
    if found:
        print(f"crash_serving: {len(found)} complaints")
        raise SystemExit(1)


if __name__ == "__main__":
    main()
