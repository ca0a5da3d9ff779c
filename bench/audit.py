"""What the audit log costs: durable appends beside raw SQLite, decisions, verification, and what the door adds.

    python bench/audit.py [--seconds 2] [--rounds 3] [--entries 20000] [--least-single 0.35] [--least-grouped 0.35]

Appends: entries as a home writes them, encoded and hashed, with index and head in one transaction, alone and in groups
of 128 (the group commit of the writing thread); beside them Python's own `sqlite3` on the same disk, writing the very
same finished rows with the same indexes and head row in the same groups, WAL and synchronous=FULL. Rounds alternate; the
figure is the ratio of the medians, so that it says the same on another disk. Decisions: one policy question after
another. Verification: a published folder of `--entries`, every byte from its bytes to the signed root. The door: a whole
change with policy, change, entry and stored operation, less the same change of the database alone.

Exits 1 when a ratio falls below its least.
"""

from __future__ import annotations

import argparse
import os
import sqlite3
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from importlib import metadata as distributions
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "src")]

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey  # noqa: E402  # the paths come first
from sqlalchemy import text  # noqa: E402

from falaj.bootstrap.control_plane import actions  # noqa: E402
from falaj.governance.audit.publisher import Publisher  # noqa: E402
from falaj.governance.audit.service import AuditService  # noqa: E402
from falaj.governance.audit.store import SqlAuditStore  # noqa: E402
from falaj.governance.audit.verify import verify_folder  # noqa: E402
from falaj.governance.door import Done, Door, Event, Intent  # noqa: E402
from falaj.governance.identity.model import IDENTITY_REVOKE  # noqa: E402
from falaj.governance.policy.decide import CedarAuthoriser, default_policy  # noqa: E402
from falaj.kernel.access import Principal, Question, Resource  # noqa: E402
from falaj.kernel.clock import SystemClock  # noqa: E402
from falaj.kernel.log import configure  # noqa: E402
from falaj.storage.sql.migrate import migrate  # noqa: E402
from falaj.storage.sql.sqlite import SqliteDatabase  # noqa: E402

GROUP = 128
ADMIN = Principal("owner", "person", ("platform-admin",))
_INSERT = "INSERT INTO audit_entries VALUES (?,?,?,?,?,?,?,?,?,?)"


class Home:
    """A home's database, log and door; nothing publishes in the background."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.path = folder / "falaj.db"
        self.store = SqlAuditStore()
        self.database = SqliteDatabase(self.path)
        migrate(self.database)
        self.publisher = Publisher(
            self.database,
            self.store,
            folder / "audit",
            Ed25519PrivateKey.generate(),
            "falaj.local/audit",
            SystemClock(),
        )
        self.audit = AuditService(self.database, self.store, self.publisher)
        self.policy = CedarAuthoriser(default_policy(), actions())
        self.door = Door(self.database, self.policy, self.audit, SystemClock())
        self.made = 0

    def event(self) -> Event:
        """An entry like those of a home: some 300 bytes."""
        self.made += 1
        n = self.made
        detail = {"digest": f"sha256:{n:064x}", "run": n}
        return Event(
            datetime.now(UTC), "owner", "registry.register", "ModelVersion", f"delay@{n}", "done", f"op_{n}", detail
        )

    def append(self, group: int) -> None:
        """`group` changes that wait for their commit together, each with its entry."""
        waiting = []
        for _ in range(group):
            event = self.event()
            waiting.append(self.database.submit(lambda tx, e=event: self.audit.record(tx, e)))
        for future in waiting:
            future.result()


class Raw:
    """The same rows by Python's own `sqlite3`, finished beforehand."""

    def __init__(self, folder: Path, like: Home) -> None:
        folder.mkdir()
        self.connection = sqlite3.connect(folder / "raw.db", isolation_level=None)
        self.connection.execute("PRAGMA journal_mode=WAL")
        self.connection.execute("PRAGMA synchronous=FULL")
        with sqlite3.connect(like.path) as source:
            made = "SELECT sql FROM sqlite_master WHERE tbl_name IN ('audit_entries','audit_head') AND sql IS NOT NULL"
            for (statement,) in source.execute(made):
                self.connection.execute(statement)
            self.rows: list[tuple[Any, ...]] = source.execute("SELECT * FROM audit_entries ORDER BY idx").fetchall()
        self.connection.execute("INSERT INTO audit_head VALUES (1, 0)")
        self.size = 0

    def append(self, group: int) -> None:
        """`group` rows and the head in one transaction."""
        rows = [(self.size + i, *self.rows[(self.size + i) % len(self.rows)][1:]) for i in range(group)]
        self.connection.execute("BEGIN IMMEDIATE")
        self.connection.executemany(_INSERT, rows)
        self.size += group
        self.connection.execute("UPDATE audit_head SET size = ? WHERE id = 1", (self.size,))
        self.connection.execute("COMMIT")


def rate(work: Callable[[int], None], group: int, seconds: float) -> float:
    """Rows a second."""
    done, began = 0, time.perf_counter()
    while (now := time.perf_counter()) < began + seconds:
        work(group)
        done += group
    return done / (now - began)


def medians(works: Sequence[Callable[[int], None]], group: int, options: argparse.Namespace) -> list[float]:
    """Rows a second of each work, the rounds alternating."""
    found: list[list[float]] = [[] for _ in works]
    for _ in range(options.rounds):
        for place, work in enumerate(works):
            found[place].append(rate(work, group, options.seconds))
    return [statistics.median(rates) for rates in found]


def decisions(home: Home, seconds: float) -> float:
    """Policy questions answered a second, by one thread."""
    question = Question(ADMIN, IDENTITY_REVOKE.name, Resource("Account", "x"), {})
    done, began = 0, time.perf_counter()
    while (now := time.perf_counter()) < began + seconds:
        home.policy.decide(question)
        done += 1
    return done / (now - began)


def verification(home: Home, entries: int) -> tuple[float, float]:
    """(entries a second, megabytes a second) of a published folder."""
    while (missing := entries - home.audit.size()) > 0:
        events = [home.event() for _ in range(min(4096, missing))]
        home.database.change(lambda tx, e=events: home.audit.record_many(tx, e))
    home.publisher.publish()
    began = time.perf_counter()
    report = verify_folder(home.publisher.folder, home.publisher.vkey)
    took = time.perf_counter() - began
    if not report.ok:
        raise SystemExit(f"the log does not verify: {report.problems}")
    return report.size / took, report.checked_bytes / took / 1e6


def door_cost(home: Home, seconds: float, rounds: int) -> tuple[float, float]:
    """Milliseconds of a change of the database alone, and of the same change through the door, as medians."""
    home.database.change(lambda tx: tx.execute(text("CREATE TABLE IF NOT EXISTS bench (n INTEGER)")))

    def write(tx: Any) -> None:
        tx.execute(text("INSERT INTO bench VALUES (1)"))

    def bare() -> None:
        home.database.change(write)

    def through() -> None:
        def do(tx: Any) -> Done[dict[str, int]]:
            write(tx)
            return Done({"n": 1})

        home.door.change(Intent(ADMIN, IDENTITY_REVOKE, Resource("Account", "x")), do)

    took: dict[Callable[[], None], list[float]] = {bare: [], through: []}
    for _ in range(rounds):
        for work, times in took.items():
            until = time.perf_counter() + seconds / 2
            while (began := time.perf_counter()) < until:
                work()
                times.append((time.perf_counter() - began) * 1000)
    return statistics.median(took[bare]), statistics.median(took[through])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--entries", type=int, default=20_000)
    parser.add_argument("--least-single", type=float, default=0.35)
    parser.add_argument("--least-grouped", type=float, default=0.35)
    options = parser.parse_args()
    configure("bench", "error")
    with tempfile.TemporaryDirectory(prefix="falaj-bench-") as folder:
        home = Home(Path(folder) / "home")
        for _ in range(8):
            home.append(GROUP)
        raw = Raw(Path(folder) / "raw", home)
        alone, raw_alone = medians([home.append, raw.append], 1, options)
        grouped, raw_grouped = medians([home.append, raw.append], GROUP, options)
        decided = decisions(home, options.seconds)
        bare, through = door_cost(home, options.seconds, options.rounds)
        verified, megabytes = verification(home, options.entries)
        home.database.close()
        raw.connection.close()
    single, group = alone / raw_alone, grouped / raw_grouped
    print(
        f"audit: durable appends {alone:,.0f}/s alone ({single:.2f} of raw SQLite's {raw_alone:,.0f}), {grouped:,.0f}/s in"
        f" groups of {GROUP} ({group:.2f} of {raw_grouped:,.0f}); {decided:,.0f} decisions/s; verified {verified:,.0f}"
        f" entries/s ({megabytes:.0f} MB/s); a change {bare:.2f} ms, through the door {through:.2f} ms"
        f" (+{through - bare:.2f}); {os.cpu_count()} cores, Python {sys.version.split()[0]},"
        f" SQLite {sqlite3.sqlite_version}, SQLAlchemy {distributions.version('sqlalchemy')}"
    )
    if single < options.least_single or group < options.least_grouped:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
