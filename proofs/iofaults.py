"""The disk fails under the audit log, or its process is killed, at every single call: nothing acknowledged is lost.

    python proofs/iofaults.py [--sample N] [--seed S] [--workers N] [--point STORY/ROLE/CALL/N/FAULT …]

Three stories are played with a real database (WAL, an fsync a commit), the door, the publisher and a witness: the first
publication, a log that outgrows a tile while SQLite sums its write-ahead log up, and a publication that a crash had
interrupted. Once undisturbed under strace, which tells every write, fsync, rename, truncation, removal and new folder of
the thread that opens and closes, of the SQL writer, of the publisher and of the witness. Then once for each call and fault: SIGKILL
instead of the call, EIO, ENOSPC, and ENOSPC for this and every later call of its kind.

Right after that, what lies published must verify for an outsider. After a restart: the log verifies, its indices have no gap; each
change that was acknowledged has exactly one entry and its stored operation, and so has each denial; what was refused has neither;
every checkpoint that was ever shown is the beginning of the last; the witness remembers what it cosigned and cosigns again; and
the next change is published.

Negative controls: a test build that acknowledges within the transaction must lose an entry, and one that writes
published files in their place must leave something that does not verify.

Exits 1 when one fault leaves anything else, or when a control stays green. Needs strace (fetched from Debian when it is missing).
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import random
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "src"), str(ROOT / "proofs"), str(ROOT)]

import _iofaults_home as homes  # noqa: E402  # the paths come first

from falaj.governance.audit import merkle, note, tiles  # noqa: E402
from falaj.governance.audit.model import decode  # noqa: E402
from falaj.governance.audit.verify import CHECKPOINT, verify_folder  # noqa: E402
from falaj.kernel.errors import FalajError  # noqa: E402
from falaj.kernel.log import configure  # noqa: E402
from tools.debian import program  # noqa: E402

CALLS = (
    "write", "pwrite64", "fsync", "fdatasync", "rename", "renameat", "renameat2", "ftruncate", "unlink", "unlinkat",
    "mkdir", "mkdirat",
)  # fmt: skip
FAULTS = {
    "kill": "signal=KILL:when={n}",
    "EIO": "error=EIO:when={n}",
    "ENOSPC": "error=ENOSPC:when={n}",
    "full": "error=ENOSPC:when={n}+",
}
CONTROLS = {
    "early": [
        ("grow", "writer", "fdatasync", "falaj.db-wal", "EIO"),
        ("first", "writer", "fdatasync", "falaj.db-wal", "EIO"),
    ],
    "in-place": [("grow", "publisher", "write", "checkpoint.new", "kill")],
}
"""Where each test build must show what it is."""
SECONDS = 60.0
_LEFT = "left by an interrupted publication"
_LINE = re.compile(r"(\w+)\((.*)")


@dataclass(frozen=True)
class Point:
    """The `n`th call of a kind in a role's thread; `file` is what it is for."""

    story: str
    role: str
    call: str
    n: int
    file: str = ""

    def __str__(self) -> str:
        return f"{self.story}/{self.role}/{self.call}/{self.n}"


@dataclass
class Told:
    """What a story's process told before it ended."""

    acknowledged: list[str] = field(default_factory=list)
    denied: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    published: list[str] = field(default_factory=list)
    cosigned: int = 0
    failed: list[str] = field(default_factory=list)
    ended: bool = False
    status: int | None = None
    trace: list[str] = field(default_factory=list)

    def hear(self, kind: str, *more: Any) -> None:
        if kind == "cosigned":
            self.cosigned = int(more[0])
        elif kind == "end":
            self.ended = True
        else:
            getattr(self, kind).append(more[0])

    @property
    def reached(self) -> bool:
        return any("(INJECTED)" in line or "killed by SIGKILL" in line for line in self.trace)


class Proof:
    """Plays stories on copies of the prepared homes."""

    def __init__(self, root: Path, strace: list[str]) -> None:
        self._root = root
        self._strace = strace
        os.environ["PYTHONPATH"] = os.pathsep.join(sys.path[:3])  # for the process from which the others are forked
        self._processes = multiprocessing.get_context("forkserver")
        self._processes.set_forkserver_preload(["_iofaults_home"])
        self.prepared = root / "prepared"
        self.prepared.mkdir()
        homes.prepare(self.prepared)

    def points(self, story: str, role: str) -> list[Point]:
        """Every call of a role's thread that touches the home, as it is made undisturbed."""
        with self._home(story) as folder:
            told = self._play(folder, story, role, "", "")
            wrong = judged(folder, told)
            if wrong or not told.ended or told.failed:
                raise SystemExit(
                    f"iofaults: {story} does not end well undisturbed: {wrong} {told.failed} {told.status}"
                )
            counted, found = Counter[str](), []
            for line in told.trace:
                match = _LINE.match(line)
                if match:
                    counted[match[1]] += 1
                    if str(folder) in match[2]:
                        found.append(Point(story, role, match[1], counted[match[1]], _class_of(match[2], folder)))
        return found

    def wrong(self, point: Point, fault: str, control: str = "") -> tuple[bool, list[str]]:
        """Whether the fault happened, and what is wrong afterwards."""
        inject = f"{point.call}:{FAULTS[fault].format(n=point.n)}"
        with self._home(point.story) as folder:
            told = self._play(folder, point.story, point.role, inject, control)
            found = _unclean(told, fault) + judged(folder, told)
        return told.reached, found

    @contextmanager
    def _home(self, story: str) -> Iterator[Path]:
        with tempfile.TemporaryDirectory(prefix="home-", dir=self._root) as scratch:
            folder = Path(scratch) / story
            shutil.copytree(self.prepared / story, folder)
            yield folder

    def _play(self, folder: Path, story: str, role: str, inject: str, control: str) -> Told:
        told, trace = Told(), folder.with_name("trace")
        here, there = socket.socketpair()
        process = self._processes.Process(target=homes.play, args=(str(folder), story, role, control, there))
        process.start()
        there.close()
        here.settimeout(SECONDS)
        strace: subprocess.Popen[bytes] | None = None
        with here, here.makefile("rb") as lines, suppress(TimeoutError, ConnectionResetError):
            for line in lines:
                kind, *more = msgspec.json.decode(line)
                if kind == "trace":
                    strace = self._attach(int(more[0]), trace, inject)
                    here.sendall(b"!")
                else:
                    told.hear(kind, *more)
            process.join(SECONDS)
        if process.is_alive():
            process.kill()
            process.join()
            told.failed.append(f"it hung for {SECONDS:.0f} s")
        told.status = process.exitcode
        if strace is not None:
            strace.wait(SECONDS)
        told.trace = trace.read_text().splitlines() if trace.exists() else []
        return told

    def _attach(self, thread: int, trace: Path, inject: str) -> subprocess.Popen[bytes]:
        """Put strace on one thread; returns once it is there."""
        command = [
            *self._strace,
            "-p",
            str(thread),
            "-y",
            "-s",
            "0",
            "-o",
            str(trace),
            "-e",
            f"trace={','.join(CALLS)}",
        ]
        if inject:
            command += ["-e", f"inject={inject}"]
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE)
        assert process.stderr is not None
        said = process.stderr.readline().decode()
        if "attached" not in said:
            raise SystemExit(f"iofaults: strace may not trace here: {said.strip()}")
        return process


def judged(folder: Path, told: Told) -> list[str]:
    """What is wrong with a home after whatever happened to it: as it lies there, and after a restart."""
    found = _as_it_lies(folder, told)
    with ThreadPoolExecutor(1) as thread:
        try:
            home = homes.Home(folder, thread)
        except FalajError as e:
            return [*found, f"it does not open again: {e.message}"]
        try:
            home.publisher.publish()
            found += _entries(home, told) + _shown(home, told)
            home.change("afterwards")
            verification = home.audit.verify()
            found += verification.problems
            if verification.unsigned or verification.folder.quorum is not True:
                found.append(f"{verification.unsigned} entries are not signed, quorum: {verification.folder.quorum}")
        except FalajError as e:
            found.append(f"it does not go on: {e.message}")
        finally:
            home.database.close()
    return found


def _as_it_lies(folder: Path, told: Told) -> list[str]:
    """What an outsider sees who reads the published folder now, and has every checkpoint that was shown."""
    path = folder / "audit" / CHECKPOINT
    if not path.exists():
        return ["no checkpoint lies there any more"] if told.published else []
    told.published.append(path.read_text("utf-8"))
    report = verify_folder(folder / "audit", homes.vkey(), exported=True)
    return [f"as it lies there: {problem}" for problem in report.problems if _LEFT not in problem]


def _entries(home: homes.Home, told: Told) -> list[str]:
    size = home.audit.size()
    rows = home.database.read(lambda tx: homes.SqlAuditStore().entries(tx, 0, size + 1))
    found = [] if [row.index for row in rows] == list(range(size)) else ["the indices have a gap or a duplicate"]
    entries = [decode(row.data) for row in rows]
    counted = Counter((e.resource_id, e.outcome) for e in entries if e.resource_id != homes.SEEDED)
    done = {name for name, outcome in counted if outcome == "done"}
    expected = {(name, "done") for name in told.acknowledged} | {(name, "denied") for name in told.denied}
    found += [f"lost: {name} {outcome}" for name, outcome in expected if not counted[name, outcome]]
    found += [f"twice: {name} {outcome}" for (name, outcome), count in counted.items() if count > 1]
    found += [f"refused and done: {name}" for name in told.refused if name in done]
    stored = home.operations() - {homes.SEEDED}
    if stored != done:
        found.append(f"operations and entries differ: {sorted(stored ^ done)}")
    return found


def _shown(home: homes.Home, told: Told) -> list[str]:
    """Every checkpoint that was shown is the beginning of the last, and the witness remembers what it cosigned."""
    verifier, found = note.parse_vkey(home.publisher.vkey), []
    last = note.open_checkpoint(home.publisher.checkpoint, verifier)
    nodes = tiles.stored_nodes(home.publisher.folder, last.size)
    for raw in told.published:
        one = note.open_checkpoint(raw.encode(), verifier)
        if one.size > last.size:
            found.append(f"a checkpoint of {one.size} was shown, the log has {last.size}")
        elif one.size:
            path = merkle.consistency_proof(nodes, one.size, last.size)
            merkle.verify_consistency(one.size, last.size, one.root, last.root, path)
    if home.remembered() < told.cosigned:
        found.append(f"the witness cosigned {told.cosigned} and remembers {home.remembered()}")
    return found


def _unclean(told: Told, fault: str) -> list[str]:
    """A killed process is killed; any other fault is refused with a code, and the process ends by itself."""
    if fault == "kill" or not told.reached:
        return []
    return [] if told.ended and told.status == 0 else [f"the process ended with {told.status}: {told.failed}"]


def _class_of(call: str, folder: Path) -> str:
    """What a call is for: a file's name, or that it is a tile."""
    paths = re.findall(re.escape(str(folder)) + r"/([^>\"]*)", call)
    name = paths[-1] if paths else ""
    return "tile" if "/tile/" in name or name.endswith("/tile") else name.rpartition("/")[2]


def _fits(point: Point, wanted: tuple[str, str, str, str, str]) -> bool:
    return (point.story, point.role, point.call, point.file) == wanted[:4]


def prove(proof: Proof, options: argparse.Namespace) -> int:
    began = time.monotonic()
    with ThreadPoolExecutor(options.workers) as pool:
        pairs = [(story, role) for story in homes.STORIES for role in homes.ROLES]
        points = [p for some in pool.map(lambda pair: proof.points(*pair), pairs) for p in some]
        wanted = [(p, fault) for p in points for fault in FAULTS]
        if options.point:
            wanted = [(p, fault) for p, fault in wanted if f"{p}/{fault}" in options.point]
        elif options.sample:
            wanted = random.Random(options.seed).sample(wanted, min(options.sample, len(wanted)))
        results = []
        for result in pool.map(lambda one: _tried(proof, *one), wanted):
            results.append(result)
            if len(results) % 200 == 0:
                print(f"{len(results)} of {len(wanted)}, {sum(bool(r[3]) for r in results)} wrong", file=sys.stderr)
        controls = {} if options.point else {n: _seen(proof, pool, points, n, options) for n in CONTROLS}
    bad = [result for result in results if result[3]]
    for point, fault, _, wrong in bad[:30]:
        print(f"{point}/{fault} ({point.file}): {'; '.join(wrong)}", file=sys.stderr)
    reached = [(p, fault) for p, fault, happened, _ in results if happened]
    by_fault, by_role = Counter(fault for _, fault in reached), Counter(p.role for p, _ in reached)
    print(
        f"iofaults: {sum(r[2] and not r[3] for r in results)} of {len(reached)} faults at {len({p for p, _ in reached})} calls"
        " leave a log that verifies and holds every acknowledged entry"
        f" ({', '.join(f'{fault} {count}' for fault, count in by_fault.items())};"
        f" {', '.join(f'{role} {count}' for role, count in by_role.items())})"
        + "".join(f"; {name}: {sum(seen)} of {len(seen)} told" for name, seen in controls.items())
        + (f"; {len(results) - len(reached)} not come by again" if len(results) > len(reached) else "")
        + f"; {time.monotonic() - began:.0f} s"
    )
    green = [name for name, seen in controls.items() if not seen or not all(seen)]
    return 1 if bad or green or not reached or len(reached) < 0.95 * len(results) else 0


def _tried(proof: Proof, point: Point, fault: str) -> tuple[Point, str, bool, list[str]]:
    """One fault; when threads met in another order and it was not come by, once more."""
    happened, wrong = proof.wrong(point, fault)
    if not happened and not wrong:
        happened, wrong = proof.wrong(point, fault)
    return point, fault, happened, wrong


def _seen(
    proof: Proof, pool: ThreadPoolExecutor, points: list[Point], name: str, options: argparse.Namespace
) -> list[bool]:
    """Whether each fault of a control left something wrong in that test build."""
    return list(pool.map(lambda one: bool(proof.wrong(one[0], one[1], name)[1]), _control(points, name, options)))


def _control(points: list[Point], name: str, options: argparse.Namespace) -> list[tuple[Point, str]]:
    """The points of a control. Of early acknowledgements the first of each sort: later calls are also those of denials."""
    found = []
    for sort in CONTROLS[name]:
        some = [(p, sort[4]) for p in points if _fits(p, sort)]
        found += some[:1] if options.sample or name == "early" else some
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--sample", type=int, default=0, help="so many faults, chosen by the seed")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--point", nargs="+", help="these faults alone")
    options = parser.parse_args()
    configure("proof", "error")
    try:
        strace = program("strace", "strace", "libunwind8")
    except LookupError as e:
        raise SystemExit(f"iofaults: NOT PROVEN: {e}") from e
    with tempfile.TemporaryDirectory(prefix="falaj-proof-") as root:
        return prove(Proof(Path(root), strace), options)


if __name__ == "__main__":
    sys.exit(main())
