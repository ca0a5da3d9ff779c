"""The log's shards: a kill at any point of a switch loses nothing, and no shard can be dropped, exchanged or cut off unseen.

    python proofs/shards.py [--writers 3] [--points 400] [--every 1] [--sample 0] [--seconds 900]

First, processes with a home's door, log and witness seal the shard while writers go on, and each is killed by SIGKILL at another
one of the points that the switch passes: before and after each transaction, and before and after each flush and rename of a file.
What is left must hold as it lies (a switch may be half done), and after a start: contiguous, every acknowledged entry there, in
one shard or in two, each kept checkpoint still the beginning, the witness content. It ends with the first process that no kill met.

Then copies of a log in three shards: shards dropped, exchanged for those of another log by the same key, moved, beheaded, links
cut with the log's own key; and each byte of all files flipped. Each must be refused by every vkey, and the place named.

Controls: a build that takes the old shard's end from before the transaction must be caught, and the untouched copy must hold.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "src")]

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey  # noqa: E402  # the paths come first

from falaj.governance.audit import note, sharding, shards  # noqa: E402
from falaj.governance.audit.model import Conditions  # noqa: E402
from falaj.governance.audit.publisher import Publisher  # noqa: E402
from falaj.governance.audit.quorum import parse_policy  # noqa: E402
from falaj.governance.audit.service import AuditService  # noqa: E402
from falaj.governance.audit.sharded import prove_extends, verify_log  # noqa: E402
from falaj.governance.audit.sharding import ShardService  # noqa: E402
from falaj.governance.audit.store import SqlAuditStore  # noqa: E402
from falaj.governance.audit.witness import Witness, create  # noqa: E402
from falaj.governance.audit.witnessing import Answer, Witnesses  # noqa: E402
from falaj.governance.door import Done, Door, Intent  # noqa: E402
from falaj.kernel.access import SYSTEM, Action, Decision, Question, Resource  # noqa: E402
from falaj.kernel.clock import SystemClock  # noqa: E402
from falaj.kernel.errors import FalajError  # noqa: E402
from falaj.kernel.log import configure  # noqa: E402
from falaj.storage.sql.schema import metadata as tables  # noqa: E402
from falaj.storage.sql.sqlite import SqliteDatabase  # noqa: E402

ORIGIN = "falaj.example/log"
KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
WORK = Action("proof.work", "system", "Home", "do something")


class Everyone:
    """Who may is not what is proven here."""

    def decide(self, question: Question) -> Decision:  # noqa: ARG002  # the protocol's name
        return Decision(True)


class Home:
    """A home's door, log and witness, as the control plane puts them together."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.log = folder, folder / "audit"
        self.database = SqliteDatabase(folder / "falaj.db")
        self.database.change(tables.create_all)
        self.store, clock = SqlAuditStore(), SystemClock()
        if not (folder / "w").exists():
            create(folder / "w", "w.example")
            Witness(folder / "w", clock).trust(note.verifier_of(ORIGIN, KEY.public_key()).vkey)
        self.witness = Witness(folder / "w", clock)
        self.policy = parse_policy(f"witness w {self.witness.vkey} http://w\nquorum w\n".encode())
        asked = Witnesses(self.policy, self._post)
        self.publisher = Publisher(self.database, self.store, self.log, KEY, ORIGIN, clock, asked)
        self.audit = AuditService(self.database, self.store, self.publisher)
        self.door = Door(self.database, Everyone(), self.audit, clock)
        self.shards = ShardService(self.publisher, self.database, self.store, self.door, "none")

    def _post(self, _url: str, body: bytes) -> Answer:
        reply = self.witness.add_checkpoint(body)
        return Answer(reply.status, reply.kind.partition(";")[0], reply.body)

    def work(self, name: str) -> None:
        self.door.change(Intent(SYSTEM, WORK, Resource("Home", "*"), name), lambda _tx: Done(name))

    def settled(self) -> None:
        self.publisher.publish()
        self.publisher.witnessed()


# killed


def child(folder: Path, at: int, writers: int) -> None:
    """Seal the shard while others write; killed at the point of this number. Acknowledged entries go to standard output."""
    home = Home(folder)
    for n in range(3):
        home.work(f"before_{n}")
    home.settled()
    (folder / "kept").write_bytes(home.publisher.checkpoint)
    passed, lock, armed = 0, threading.Lock(), threading.Event()

    def point() -> None:
        nonlocal passed
        if armed.is_set():
            with lock:
                passed += 1
                if passed == at:
                    os.kill(os.getpid(), signal.SIGKILL)

    def around(owner: Any, name: str) -> None:
        real: Callable[..., Any] = getattr(owner, name)

        def both(*args: Any, **kwargs: Any) -> Any:
            point()
            result = real(*args, **kwargs)
            point()
            return result

        setattr(owner, name, both)

    around(os, "fsync")
    around(Path, "replace")
    around(home.database, "change")
    done = threading.Event()

    def write(who: int) -> None:
        n = 0
        while not done.is_set():
            home.work(f"op_{who}_{n}")
            os.write(1, f"op_{who}_{n}\n".encode())
            n += 1

    threads = [threading.Thread(target=write, args=(who,), daemon=True) for who in range(writers)]
    for thread in threads:
        thread.start()
    armed.set()
    home.shards.begin(SYSTEM, "a new year")
    os.write(1, b"sealed\n")
    armed.clear()
    done.set()
    for thread in threads:
        thread.join()


def left(folder: Path, acknowledged: list[str]) -> tuple[str, int]:
    """What is wrong with the home that a killed process left (empty: nothing), and how many shards it has after a start."""
    vkey = note.verifier_of(ORIGIN, KEY.public_key()).vkey
    lying = verify_log(folder / "audit", vkey, midway=True)
    wrong = [p for p in lying.problems if "left by an interrupted publication" not in p]  # a start takes those away
    if wrong:
        return f"as it lies: {wrong[0]}", 0
    home = Home(folder)
    try:
        home.work("after")
        home.settled()
        found = home.audit.verify()
        count = len(home.audit.shards())
        entries = home.audit.search(Conditions(limit=1000))
        known = {f.entry.operation_id for f in entries}
        missing = [name for name in acknowledged if name != "sealed" and name not in known]
        begun = sum(f.entry.action == "audit.shard" for f in entries)
        prove_extends((folder / "kept").read_bytes(), home.log, vkey)
        if not found.ok or found.unsigned:
            return f"after a start: {found.problems[:1]}", count
        if missing or [f.index for f in entries] != list(range(len(entries)))[::-1]:
            return f"{len(missing)} acknowledged entries are gone, or the numbers have gaps", count
        if count != 1 + begun or ("sealed" in acknowledged and count != 2):
            return f"{begun} entries begin a shard, and there are {count}", count
        if home.publisher.quorum is not True or any(s.refused for s in home.witness.logs()):
            return f"the witness is not content: {home.witness.logs()}", count
    except FalajError as e:
        return f"after a start: {e.message}", 0
    else:
        return "", count
    finally:
        home.database.close()


def killed(scratch: Path, options: argparse.Namespace, until: float) -> tuple[int, int, int, list[str]]:
    """(kills, homes before the switch, homes after it, what is wrong), one process for each point."""
    kills, before, after, wrong = 0, 0, 0, list[str]()
    for at in range(1, options.points + 1, options.every):
        if time.monotonic() > until:
            return kills, before, after, [*wrong, "the time was not enough for all points"]
        folder = scratch / f"home{at}"
        folder.mkdir()
        command = [sys.executable, __file__, "--child", str(folder), "--at", str(at), "--writers", str(options.writers)]
        ended = subprocess.run(command, stdout=subprocess.PIPE, check=False, timeout=120)  # this file
        if ended.returncode not in (0, -signal.SIGKILL):
            return kills, before, after, [*wrong, f"point {at}: the process ended with {ended.returncode}"]
        why, count = left(folder, ended.stdout.decode().split("\n")[:-1])
        if why:
            wrong.append(f"point {at}: {why}")
        before, after = before + (count == 1), after + (count == 2)
        shutil.rmtree(folder)
        if ended.returncode == 0:
            return kills, before, after, wrong
        kills += 1
    return kills, before, after, [*wrong, f"{options.points} points were not enough"]


# copies


def grown(folder: Path, times: int) -> Home:
    """A home whose log has three shards."""
    folder.mkdir()
    home = Home(folder)
    for number in range(3):
        for n in range(times):
            home.work(f"{number}_{n}")
        if number < 2:
            home.shards.begin(SYSTEM, "a new year")
    home.settled()
    return home


def deeds(foreign: Path) -> dict[str, tuple[Callable[[Path], object], str]]:
    """What is done to a copy, and the words by which it must be named."""

    def exchange(number: int) -> Callable[[Path], object]:
        def do(folder: Path) -> None:
            place = shards.place(number)
            for name in ("checkpoint", "vkey", "tile", "head"):
                path = folder / place / name
                (shutil.rmtree if path.is_dir() else Path.unlink)(path)
                source = foreign / place / name
                (shutil.copytree if source.is_dir() else shutil.copy)(source, path)

        return do

    def behead(folder: Path) -> None:
        for name in ("checkpoint", "vkey", "tile", "head"):
            path = folder / name
            (shutil.rmtree if path.is_dir() else Path.unlink)(path)
            (folder / "shard/2" / name).rename(path)
        (folder / "shard/2").rmdir()
        (folder / "shard/3").rename(folder / "shard/2")

    def signed_anew(number: int, after: str) -> Callable[[Path], object]:
        def do(folder: Path) -> None:
            path = folder / shards.place(number) / "checkpoint"
            head = note.unsigned(path.read_bytes())
            plain = note.Checkpoint(head.origin, head.size, head.root)
            text = (shards.sealed(plain, after) if after else plain).text
            path.write_bytes(note.sign(text, [(head.origin, KEY)]))

        return do

    elsewhere = note.verifier_of(f"{ORIGIN}/1999", KEY.public_key()).vkey
    return {
        "drop the newest": (lambda f: shutil.rmtree(f / "shard/3"), "shard/3: it is missing"),
        "drop all but the first": (lambda f: shutil.rmtree(f / "shard"), "shard/2: it is missing"),
        "drop the middle": (lambda f: shutil.rmtree(f / "shard/2"), "shard/2: it is missing"),
        "drop the first": (behead, f"{ORIGIN}: it is missing"),
        "exchange the first": (exchange(1), "names another end"),
        "exchange the middle": (exchange(2), "shard/2"),
        "exchange the newest": (exchange(3), "shard/3"),
        "a shard twice": (lambda f: shutil.copytree(f / "shard/3", f / "shard/4"), "shard/4"),
        "a shard moved": (lambda f: (f / "shard/2").rename(f / "shard/7"), "shard/7"),
        "the link cut": (signed_anew(1, ""), "is not final"),
        "the second link cut": (signed_anew(2, ""), "is not final"),
        "the link bent": (signed_anew(1, elsewhere), "names another"),
        "one more announced": (signed_anew(3, elsewhere), "shard/4: it is missing"),
    }


def attacked(scratch: Path) -> tuple[int, list[str]]:
    """(deeds, those that went unseen or unnamed), each judged by the vkey of every shard."""
    good, foreign = grown(scratch / "good", 3), grown(scratch / "foreign", 4)
    vkeys = [s.vkey for s in good.audit.shards()]
    wrong = [f"the untouched log does not hold by {v}" for v in vkeys if not verify_log(good.log, v, exported=True).ok]
    done = deeds(foreign.log)
    for name, (deed, words) in done.items():
        copy = scratch / "copy"
        shutil.copytree(good.log, copy)
        deed(copy)
        reports = [verify_log(copy, vkey, exported=True) for vkey in (*vkeys, None)]
        if any(r.ok for r in reports):
            wrong.append(f"{name}: unseen")
        if not any(words in text for r in reports for text in r.problems):
            wrong.append(f"{name}: not named: {[r.problems[:2] for r in reports]}")
        shutil.rmtree(copy)
    return len(done), wrong


def flipped(scratch: Path, until: float, sample: int) -> tuple[int, int, list[str]]:
    """(flips, files, those that went unseen or were put on another shard): one bit of each byte of a log in three shards."""
    home = grown(scratch / "small", 1)
    vkey = home.publisher.vkey
    files = sorted(p for p in home.log.rglob("*") if p.is_file())
    places = [(path, at) for path in files for at in range(path.stat().st_size)]
    flips, wrong = 0, list[str]()
    for path, at in places[:: max(1, len(places) // sample)] if sample else places:
        number, name = shards.split(path.relative_to(home.log).as_posix()) or (0, "")
        at_fault = f"{shards.place(number)[:-1]}: " if number > 1 else name.split("/")[0]
        good = path.read_bytes()
        path.write_bytes(good[:at] + bytes([good[at] ^ (1 << at % 8)]) + good[at + 1 :])
        flips += 1
        report = verify_log(home.log, vkey, home.policy)
        path.write_bytes(good)
        if report.ok or not any(at_fault in text for text in report.problems):
            wrong.append(f"{shards.place(number)}{name} byte {at}: {report.problems[:2]}")
        if time.monotonic() > until:
            return flips, len(files), [*wrong, "the time was not enough for all bytes"]
    if not verify_log(home.log, vkey).ok:
        wrong.append("the untouched log does not hold")
    return flips, len(files), wrong


def careless(scratch: Path) -> bool:
    """Whether a build is caught that takes the old shard's end from before the transaction, while an entry comes between."""
    folder = scratch / "careless"
    folder.mkdir()
    home = Home(folder)
    home.work("before")
    # past the module's exports: what is proven here is that its one rule is needed
    real, change = vars(sharding)["tiles"], home.door.change

    def late(intent: Intent, do: Any) -> Any:
        home.door.change = change  # type: ignore[method-assign]
        home.work("between")
        return change(intent, do)

    home.door.change = late  # type: ignore[method-assign]
    vars(sharding)["tiles"] = SimpleNamespace(grow=lambda edge, _leaves: (edge, {}))
    try:
        home.shards.begin(SYSTEM, "a new year")
    except FalajError:
        return True
    finally:
        vars(sharding)["tiles"] = real
    return not home.audit.verify().ok


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--writers", type=int, default=3)
    parser.add_argument("--points", type=int, default=400, help="at which processes are killed at the most")
    parser.add_argument("--every", type=int, default=1, help="kill at every such point only")
    parser.add_argument("--sample", type=int, default=0, help="flip about that many bytes only")
    parser.add_argument("--seconds", type=float, default=900.0)
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--at", type=int, default=0, help=argparse.SUPPRESS)
    options = parser.parse_args()
    configure("proof", "error")
    if options.child:
        child(options.child, options.at, options.writers)
        return
    started = time.monotonic()
    until = started + options.seconds
    with tempfile.TemporaryDirectory(prefix="falaj-proof-") as folder:
        scratch = Path(folder)
        count, wrong = attacked(scratch)
        flips, files, unseen = flipped(scratch, until, options.sample)
        if not careless(scratch):
            wrong.append("control: a build that takes the end from before the transaction was not caught")
        kills, before, after, broken = killed(scratch, options, until)
    wrong += unseen + broken
    for line in wrong[:20]:
        print(f"wrong: {line}", file=sys.stderr)
    print(
        f"shards: {kills} kills during a switch beside {options.writers} writers left {before} homes before it and {after} after it,"
        f" each whole; {count} deeds on shards and links named by each of 3 vkeys; {flips} flips in {files} files found in"
        f" their shard; the careless build caught ({time.monotonic() - started:.0f} s,"
        f" {len(wrong)} wrong, Python {sys.version.split()[0]})"
    )
    if wrong or not kills or not before or not after:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
