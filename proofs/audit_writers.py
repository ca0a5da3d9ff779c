"""Sixteen writers at once leave a log without a gap, without a duplicate and without a lost entry.

    python proofs/audit_writers.py [--writers 16] [--changes 5000] [--seconds 900]

A home's database (WAL, an fsync a commit) with the door as the control plane opens it: policy, change, audit entry and
stored operation in one transaction, while the publisher signs in the background and two witnesses cosign. Each writer is
a thread that makes its changes one after the other; one in 16 is denied by policy, which is an entry as well.

Afterwards: indices are 0, 1, 2, … without a gap; each change that was acknowledged has exactly one entry and each entry
a change; the entries of a writer stand in the order in which they were acknowledged; every checkpoint that was signed
meanwhile is proven to be the beginning of the last one; the log verifies, with its quorum. Exits 1 otherwise.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "src")]

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey  # noqa: E402  # the paths come first

from falaj.bootstrap.control_plane import actions  # noqa: E402
from falaj.governance.audit import merkle, note, tiles  # noqa: E402
from falaj.governance.audit.model import decode  # noqa: E402
from falaj.governance.audit.publisher import Publisher  # noqa: E402
from falaj.governance.audit.quorum import parse_policy  # noqa: E402
from falaj.governance.audit.service import AuditService  # noqa: E402
from falaj.governance.audit.store import SqlAuditStore  # noqa: E402
from falaj.governance.audit.witness import Witness, create  # noqa: E402
from falaj.governance.audit.witnessing import Answer, Witnesses  # noqa: E402
from falaj.governance.door import Done, Door, Intent  # noqa: E402
from falaj.governance.identity.model import IDENTITY_REVOKE  # noqa: E402
from falaj.governance.policy.decide import CedarAuthoriser, default_policy  # noqa: E402
from falaj.kernel.access import Principal, Resource  # noqa: E402
from falaj.kernel.clock import SystemClock  # noqa: E402
from falaj.kernel.errors import Denied  # noqa: E402
from falaj.kernel.log import configure  # noqa: E402
from falaj.storage.sql.migrate import migrate  # noqa: E402
from falaj.storage.sql.sqlite import SqliteDatabase  # noqa: E402

ADMIN = Principal("owner", "person", ("platform-admin",))
VIEWER = Principal("guest", "person", ("viewer",))
DENIED_ONE_IN = 16


class Home:
    """The SQL half of a home, its publisher, its witnesses."""

    def __init__(self, folder: Path) -> None:
        self.store = SqlAuditStore()
        self.database = SqliteDatabase(folder / "falaj.db")
        migrate(self.database)
        key, clock = Ed25519PrivateKey.generate(), SystemClock()
        self.publisher = Publisher(self.database, self.store, folder / "audit", key, "falaj.local/audit", clock)
        self.publisher.cosigners = self._witnesses(folder)
        self.audit = AuditService(self.database, self.store, self.publisher)
        self.door = Door(self.database, CedarAuthoriser(default_policy(), actions()), self.audit, clock)
        self.checkpoints: list[bytes] = []
        self._stop = threading.Event()
        self._watcher = threading.Thread(target=self._watch)

    def _witnesses(self, folder: Path) -> Witnesses:
        witnesses, lines = {}, []
        for name in ("one", "two"):
            lines.append(f"witness {name} {create(folder / name, name)} http://{name}")
            witnesses[name] = Witness(folder / name, SystemClock())
            witnesses[name].trust(self.publisher.vkey)

        def post(url: str, body: bytes) -> Answer:
            reply = witnesses[url.split("/")[2]].add_checkpoint(body)
            return Answer(reply.status, reply.kind.partition(";")[0], reply.body)

        return Witnesses(parse_policy("\n".join([*lines, "group g all one two", "quorum g", ""]).encode()), post)

    def start(self) -> None:
        self.publisher.start()
        self._watcher.start()

    def stop(self) -> None:
        self._stop.set()
        self._watcher.join()
        self.publisher.stop()

    def _watch(self) -> None:
        """Collect what is signed, as anybody who looks from time to time would."""
        while not self._stop.wait(0.1):
            raw = self.publisher.checkpoint
            if raw and (not self.checkpoints or self.checkpoints[-1] != raw):
                self.checkpoints.append(raw)


def write(home: Home, writer: int, changes: int, until: float) -> list[str]:
    """The names of a writer's acknowledged changes and denials, in their order."""
    done: list[str] = []
    for n in range(changes):
        if time.monotonic() > until:
            break
        name = f"w{writer}-{n}"
        denied = n % DENIED_ONE_IN == DENIED_ONE_IN - 1
        intent = Intent(VIEWER if denied else ADMIN, IDENTITY_REVOKE, Resource("Account", name), operation_id=name)
        try:
            home.door.change(intent, lambda _tx: Done({"ok": True}))
        except Denied:
            if not denied:
                raise
        done.append(name)
    return done


def faults(home: Home, acknowledged: list[list[str]]) -> list[str]:
    """What is wrong with the log afterwards; nothing if it is whole."""
    found: list[str] = []
    size = home.audit.size()
    rows = home.database.read(lambda tx: home.store.entries(tx, 0, size + 1))
    if [row.index for row in rows] != list(range(size)):
        found.append("the indices have a gap or a duplicate")
    entries = [decode(row.data) for row in rows]
    counted = Counter(e.resource_id for e in entries)
    expected = {name for names in acknowledged for name in names}
    if set(counted) != expected or set(counted.values()) != {1}:
        lost, surplus = len(expected - set(counted)), len(set(counted) - expected)
        found.append(f"{lost} lost, {surplus} nobody's, {sum(c > 1 for c in counted.values())} twice")
    order = {name: index for index, name in enumerate(e.resource_id for e in entries)}
    for names in acknowledged:
        places = [order.get(name, -1) for name in names]
        if places != sorted(places):
            found.append("a writer's entries are out of order")
    wrong = sum((e.outcome == "denied") != (e.principal == VIEWER.name) for e in entries)
    if wrong:
        found.append(f"{wrong} entries with a wrong outcome")
    verification = home.audit.verify()
    found += verification.problems
    if verification.folder.quorum is not True:
        found.append("the last checkpoint has no quorum")
    return found + _unproven(home)


def _unproven(home: Home) -> list[str]:
    verifier = note.parse_vkey(home.publisher.vkey)
    last = note.open_checkpoint(home.publisher.checkpoint, verifier)
    nodes = tiles.stored_nodes(home.publisher.folder, last.size)
    for raw in home.checkpoints:
        one = note.open_checkpoint(raw, verifier)
        if one.size:
            path = merkle.consistency_proof(nodes, one.size, last.size)
            merkle.verify_consistency(one.size, last.size, one.root, last.root, path)
    return []


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--writers", type=int, default=16)
    parser.add_argument("--changes", type=int, default=5000, help="of each writer")
    parser.add_argument("--seconds", type=float, default=900.0)
    parser.add_argument("--lose", action="store_true", help="claim one more change than was made: the proof must fail")
    options = parser.parse_args()
    configure("proof", "error")
    with tempfile.TemporaryDirectory(prefix="falaj-proof-") as folder:
        home = Home(Path(folder))
        home.start()
        began = time.monotonic()
        with ThreadPoolExecutor(options.writers) as pool:
            futures = [
                pool.submit(write, home, w, options.changes, began + options.seconds) for w in range(options.writers)
            ]
            acknowledged = [f.result() for f in futures]
        took = time.monotonic() - began
        home.stop()
        if options.lose:
            acknowledged[0].append("never-made")
        wrong = faults(home, acknowledged)
        home.database.close()
    made = sum(len(names) for names in acknowledged)
    for line in wrong[:20]:
        print(f"wrong: {line}", file=sys.stderr)
    print(
        f"audit_writers: {made} entries of {options.writers} writers x {options.changes}, contiguous, none twice, none lost:"
        f" {'no' if wrong else 'yes'}; {len(home.checkpoints)} checkpoints, each the beginning of the last, cosigned by 2"
        f" ({made / took:,.0f} changes/s, {took:.0f} s)"
    )
    if wrong or made < options.writers * options.changes:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
