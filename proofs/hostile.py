"""A data plane is sent what nobody should send: it refuses clearly, forgets nothing, and keeps answering the others.

    python proofs/hostile.py [--requests 20000] [--senders 5] [--seed 7] [--seconds 600]

Seeded mutations of valid requests: NaN, Infinity and 1e999, integers of 4,300 digits, wrong shapes, types and names, members twice,
deep nesting, bytes that are no text, bodies of every size up to the limit and beyond, compression bombs, wrong lengths and
encodings, wrong paths, methods and tokens, headers without end, pipelined garbage, what is no HTTP at all; beside them clients
that send a byte now and then, that never read, that hang up. Every twentieth request is valid, and a probe asks for health.

Holds when no answer is a 5xx, nothing hangs, nothing that must be refused is answered, every refusal says what is wrong, by
which code, and what to do next, every valid request is answered bit for bit as before it all, every answer is in the journal
once, the worker's memory has not grown by more than a tenth (the median after the first tenth to third of the requests
against that of the last fifth; the largest of all were sent before, by all at once), and the 99th percentile of the health probe is at most
100 ms. Exits 1 otherwise.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from importlib import metadata
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "src")]

from falaj.lifecycle.serving.plane.journal import iter_records  # noqa: E402  # the paths come first
from proofs._hostile import INFER, Case, case, dumped, good, http, largest  # noqa: E402
from tests.lifecycle.serving.plane.fleet import Home, Plane, flight_contract, flight_graph  # noqa: E402

PATIENCE = 10.0  # seconds for an answer
GROWTH, HEALTH = 0.10, 0.100
PARTS = 20  # of the requests; memory is measured after each
UNFINISHED = ("garbage", "bad chunk")
VALUES = (0.0, -250.5, 500.0, 1e-300, 3e38)  # of the valid requests


@dataclass
class Report:
    """What came back. Entries are appended by many threads, each by one."""

    complaints: list[str] = field(default_factory=list)
    statuses: Counter[int] = field(default_factory=Counter)
    codes: Counter[str] = field(default_factory=Counter)
    kinds: Counter[str] = field(default_factory=Counter)
    answered: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)
    sent: int = 0

    def complain(self, what: str, kind: str, data: bytes, status: int = 0, body: bytes = b"") -> None:
        start = data.find(b"\r\n\r\n") + 4
        shown = data[:160] if start < 4 or start > 2000 else data[start : start + 600]
        self.complaints.append(f"{what} [{kind}] {status} {body[:300]!r} to {shown!r}")


class Line:
    """One connection, and the answers on it."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), PATIENCE)
        self._socket.settimeout(PATIENCE)
        self._waiting = b""

    def send(self, data: bytes) -> None:
        """Send, and do not mind when the server stops reading."""
        try:
            self._socket.sendall(data)
        except (BrokenPipeError, ConnectionResetError):
            return

    def end(self) -> None:
        """Nothing more will come from here."""
        try:
            self._socket.shutdown(socket.SHUT_WR)
        except OSError:
            return

    def answer(self, *, head: bool = False) -> tuple[int, dict[str, str], bytes] | None:
        """(status, headers, body) of the next answer; None when the server has hung up. Raises TimeoutError."""
        while True:
            start = self._until(b"\r\n\r\n")
            if start is None:
                return None
            lines = start.decode("latin-1").split("\r\n")
            status = int(lines[0].split(" ")[1])
            headers = {n.strip().lower(): v.strip() for n, _, v in (line.partition(":") for line in lines[1:])}
            if status != 100:
                break
        length = 0 if head else int(headers.get("content-length", "0"))
        while len(self._waiting) < length:
            if not self._more():
                return None
        body, self._waiting = self._waiting[:length], self._waiting[length:]
        return status, headers, body

    def close(self) -> None:
        self._socket.close()

    def _until(self, mark: bytes) -> bytes | None:
        while mark not in self._waiting:
            if not self._more():
                return None
        found, _, self._waiting = self._waiting.partition(mark)
        return found

    def _more(self) -> bool:
        try:
            part = self._socket.recv(1 << 16)
        except ConnectionResetError:
            return False
        self._waiting += part
        return bool(part)


class Sender(threading.Thread):
    """Sends its share of the requests, one after the other."""

    def __init__(self, scene: Scene, number: int, count: int, seed: str, until: float) -> None:
        super().__init__(daemon=True)
        self._scene, self._count, self._until = scene, count, until
        self._chance = random.Random(f"{seed}/{number}")
        self._line: Line | None = None

    def run(self) -> None:
        report = self._scene.report
        for number in range(self._count):
            if time.monotonic() > self._until:
                return
            valid = number % 20 == 0
            asked = self._valid() if valid else case(self._chance, self._scene.token)
            with report.lock:
                report.sent += 1
                report.kinds[asked.kind] += 1
            try:
                self._ask(asked)
            except TimeoutError:
                report.complain("no answer", asked.kind, asked.data)
                self._hang_up()
        self._hang_up()

    def _valid(self) -> Case:
        return Case("valid", http(dumped(good(self._chance.choice(VALUES))).encode(), self._scene.token))

    def _ask(self, asked: Case) -> None:
        if self._line is None:
            self._line = Line(self._scene.port)
        line = self._line
        line.send(asked.data)
        for number in range(asked.replies):
            if asked.last and (number or asked.kind in UNFINISHED):  # else the server would wait for what never comes
                line.end()
            answer = line.answer(head=asked.head)
            if answer is None:
                if not asked.last:
                    self._scene.report.complain("hung up", asked.kind, asked.data)
                self._hang_up()
                return
            status, headers, body = answer
            self._scene.judge(asked, status, headers, body)
            if headers.get("connection") == "close":
                self._hang_up()
                return
        if asked.last:
            self._hang_up()

    def _hang_up(self) -> None:
        if self._line is not None:
            self._line.close()
        self._line = None


class Scene:
    """A data plane, what it answered before it all, and the report."""

    def __init__(self, root: Path) -> None:
        self.home = Home(root / "home")
        self.token = self.home.token("shop", ("service",))
        self.home.materialise({"JFK": (datetime.now(UTC) - timedelta(seconds=5), (10.0, 1.0))})
        package = self.home.package(flight_contract(), flight_graph())
        self.home.publish(self.home.bundle(1, [self.home.release(package, "flight-delay@1")]))
        self.plane = Plane(self.home)
        self.port = self.plane.port
        self.report = Report()
        self.before = {value: self._outputs(value) for value in VALUES}

    def judge(self, asked: Case, status: int, headers: dict[str, str], body: bytes) -> None:
        report = self.report
        with report.lock:
            report.statuses[status] += 1
        if status >= 500:
            report.complain("a fault", asked.kind, asked.data, status, body)
        elif status >= 400:
            self._refused(asked, status, headers, body)
        elif status == 200 and asked.must_refuse and not asked.bare:
            report.complain("answered", asked.kind, asked.data, status, body)
        elif status == 200 and b'"outputs"' in body and not (asked.bare and b"prediction_id" not in body):
            self._answered(asked, body)

    def _refused(self, asked: Case, status: int, headers: dict[str, str], body: bytes) -> None:
        try:
            said = json.loads(body) if body or not (asked.bare or asked.head) else None
        except ValueError:
            said = {}
        if said is None:
            with self.report.lock:
                self.report.codes["(no body: not HTTP)" if asked.bare else "(HEAD)"] += 1
            return
        clear = (
            headers.get("content-type") == "application/json"
            and all(isinstance(said.get(k), str) and said[k] for k in ("error", "code", "hint"))
            and re.fullmatch("[a-z_]+", said["code"])
        )
        if not clear or asked.kind == "valid":
            self.report.complain("not a clear refusal", asked.kind, asked.data, status, body)
        with self.report.lock:
            self.report.codes[said.get("code", "?")] += 1

    def _answered(self, asked: Case, body: bytes) -> None:
        said = json.loads(body, parse_constant=lambda _: math.nan)
        if not all(math.isfinite(v) for o in said["outputs"] for v in o["data"]):
            self.report.complain("not finite", asked.kind, asked.data, 200, body)
        self.report.answered.append(said["parameters"]["prediction_id"])
        if asked.kind == "valid":
            number = json.loads(asked.data.partition(b"\r\n\r\n")[2])["inputs"][0]["data"][0]
            if said["outputs"] != self.before[number]:
                self.report.complain("another answer than before", asked.kind, asked.data, 200, body)

    def send(self, data: bytes) -> None:
        line = Line(self.port)
        line.send(data)
        line.answer()
        line.close()

    def worker(self) -> int:
        return int(self.plane.status()["pid"])

    def _outputs(self, value: float) -> Any:
        response = self.plane.http.post(
            INFER, content=dumped(good(value)), headers={"authorization": f"Bearer {self.token}"}
        )
        found = response.json()
        self.report.answered.append(found["parameters"]["prediction_id"])
        return found["outputs"]


def pss(pid: int) -> float:
    """A process's share of the memory, MB."""
    found = []
    for _ in range(3):  # whatever a request has taken for the moment is in one of them only
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        found.append(next(int(line.split()[1]) / 1024 for line in lines if line.startswith("Pss:")))
        time.sleep(0.05)
    return min(found)


def drip(scene: Scene, stop: threading.Event) -> list[threading.Thread]:
    """Clients that are slow, or gone: each shape of them again and again until the end."""
    head = f"POST {INFER} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {scene.token}\r\n".encode()
    rows = 2000
    batch = good()
    for tensor in batch["inputs"]:
        tensor["data"], tensor["shape"] = tensor["data"] * rows, [rows]
    deaf = http(dumped(batch).encode(), scene.token)
    shapes = (
        (head, b"x"), (b"GET /v2 HTTP/1.1\r\n", b"a: b\r\n"), (head + b"content-length: 5000\r\n\r\n", b" "),
        (head + b"transfer-encoding: chunked\r\n\r\n", b"1\r\n \r\n"), (deaf * 3, b""), (b"", b""),
    )  # fmt: skip

    def one(start: bytes, then: bytes) -> None:
        while not stop.is_set():
            with socket.create_connection(("127.0.0.1", scene.port)) as connection:
                try:
                    connection.settimeout(1)
                    connection.sendall(start)
                    for _ in range(8):
                        if then:
                            connection.sendall(then)
                        if stop.wait(1):
                            break
                except OSError:
                    stop.wait(0.2)

    threads = [threading.Thread(target=one, args=shape, daemon=True) for shape in shapes * 5]
    for thread in threads:
        thread.start()
    return threads


def probe(port: int) -> Iterator[tuple[float, float]]:
    """Without end: the seconds that a health probe takes, and those that the machine let the probe itself wait."""
    request = b"GET /v2/health/live HTTP/1.1\r\nhost: x\r\n\r\n"
    line = Line(port)
    while True:
        began = time.perf_counter()
        line.send(request)
        answer = line.answer()
        ended = time.perf_counter()
        time.sleep(0.02)
        yield (ended - began if answer and answer[0] == 200 else math.inf), time.perf_counter() - ended - 0.02


def probe_until_told(port: int) -> None:
    """The probe's own process: it measures until its standard input ends, then writes what it saw."""
    done = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), done.set()), daemon=True).start()
    seen = []
    for both in probe(port):
        seen.append(both)
        if done.is_set():
            break
    print(json.dumps(seen))


def lost(scene: Scene) -> list[str]:
    """Answers that are not in the journal once."""
    found = Counter(r.id for s in (scene.home.plane / "journal").glob("*.seg") for r in iter_records(s))
    return [f"{p} is {found[p]} times in the journal" for p in scene.report.answered if found[p] != 1]


def attack(scene: Scene, requests: int, senders: int, seed: str, until: float) -> None:
    threads = [Sender(scene, n, requests // senders, seed, until) for n in range(senders)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def flood(scene: Scene, senders: int, rounds: int) -> None:
    """The largest requests of all, from everybody at once: what they need, they have needed before memory is compared."""

    def one(first: int) -> None:
        bodies = [body for _, body in largest()]
        for body in (bodies[first:] + bodies[:first]) * rounds:
            scene.send(http(body, scene.token))

    threads = [threading.Thread(target=one, args=(n,)) for n in range(senders)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def prove(
    requests: int, senders: int, seed: int, seconds: float, root: Path
) -> tuple[str, list[str], dict[str, float]]:
    """(the figures, the complaints, measures: memory growth and the probe's 99th percentile in seconds)."""
    began = time.monotonic()
    scene, stop = Scene(root), threading.Event()
    pid, idle = scene.worker(), 0.0
    measuring = subprocess.Popen(
        [sys.executable, __file__, "--probe", str(scene.port)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        idle = pss(pid)
        slow = drip(scene, stop)
        flood(scene, senders, 1 + requests // 5000)
        memory = []
        for part in range(PARTS):
            attack(scene, requests // PARTS, senders, f"{seed}/{part}", began + seconds)
            memory.append(pss(pid))
        stop.set()
        for thread in slow:
            thread.join()
        seen, own = zip(*json.loads(measuring.communicate(b"")[0]), strict=True)
    finally:
        stop.set()
        measuring.kill()
        stopping = time.monotonic()
        if scene.worker() != pid:
            scene.report.complaints.append("the worker died")
        scene.plane.stop()
    report = scene.report
    print("memory, MB:", [round(m) for m in memory], file=sys.stderr)
    early, late = statistics.median(memory[PARTS // 10 : PARTS // 3]), statistics.median(memory[-PARTS // 5 :])
    growth = late / early - 1
    p99 = statistics.quantiles(seen, n=100)[98]
    text = (
        f"{report.sent} requests of {len(report.kinds)} kinds in {stopping - began:.0f} s: {sum(v for k, v in report.statuses.items() if k >= 500)} × 5xx,"
        f" {sum(v for k, v in report.statuses.items() if 400 <= k < 500)} refused with {len(report.codes)} codes, {report.kinds['valid']} valid ones"
        f" answered as before, {len(report.answered)} answers in the journal once; worker {idle:.0f} MB idle, {early:.0f} early, {late:.0f} late"
        f" ({growth:+.1%}); health p50 {statistics.median(seen) * 1000:.1f} ms, p99 {p99 * 1000:.1f} ms, worst {max(seen) * 1000:.0f} ms"
        f" of {len(seen)} (the probe itself woke up to {statistics.quantiles(own, n=100)[98] * 1000:.0f} ms late, p99); stopped in {time.monotonic() - stopping:.1f} s"
    )
    found = report.complaints + lost(scene)
    if report.sent < requests // (PARTS * senders) * PARTS * senders:
        found.append(f"the time was enough for {report.sent} requests only")
    print(f"refused: {dict(report.codes.most_common())}", file=sys.stderr)
    return text, found, {"growth": growth, "p99": p99}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=20_000)
    parser.add_argument("--senders", type=int, default=5)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--probe", type=int, default=0, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.probe:
        probe_until_told(options.probe)
        return
    with tempfile.TemporaryDirectory(prefix="falaj-proof-") as folder:
        text, found, measured = prove(options.requests, options.senders, options.seed, options.seconds, Path(folder))
    if measured["growth"] > GROWTH:
        found.append(f"memory grew by {measured['growth']:.1%}")
    if measured["p99"] > HEALTH:
        found.append(f"health took {measured['p99'] * 1000:.0f} ms")
    for line in found[:20]:
        print(line, file=sys.stderr)
    print(
        f"hostile: {text} ({os.cpu_count()} cores, Python {sys.version.split()[0]}, granian {metadata.version('granian')}, msgspec {metadata.version('msgspec')})"
    )
    if found:
        print(f"hostile: {len(found)} complaints")
        raise SystemExit(1)


if __name__ == "__main__":
    main()
