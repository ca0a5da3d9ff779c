"""Changes through the door, alone and beside a bulk writer of metric points in the same home.

    python bench/metrics_writer.py [--seconds 3] [--rounds 3] [--limit-ms 100]

The home's two databases as the control plane opens them: `falaj.db` durable (an fsync a commit) with the policy, the
change, its audit entry and its stored operation in one transaction; `metrics.db` beside it, where one thread writes
learning curves as fast as they are committed, 1,000 points a call. Rounds alternate: alone, beside the writer.

Exits 1 when the 99th percentile of a change beside the writer is above the limit.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import threading
import time
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "src")]

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey  # noqa: E402  # the paths come first

from falaj.bootstrap.control_plane import actions  # noqa: E402
from falaj.governance.audit.publisher import Publisher  # noqa: E402
from falaj.governance.audit.service import AuditService  # noqa: E402
from falaj.governance.audit.store import SqlAuditStore  # noqa: E402
from falaj.governance.door import Done, Door, Intent  # noqa: E402
from falaj.governance.identity.model import IDENTITY_REVOKE  # noqa: E402
from falaj.governance.policy.decide import CedarAuthoriser, policy_text  # noqa: E402
from falaj.kernel.access import Principal, Resource  # noqa: E402
from falaj.kernel.clock import SystemClock  # noqa: E402
from falaj.storage.sql.migrate import migrate  # noqa: E402
from falaj.storage.sql.sqlite import SqliteDatabase  # noqa: E402
from falaj.workflow.events import EventLog  # noqa: E402

ADMIN = Principal("owner", "person", ("platform-admin",))
BATCH = 1000


class Home:
    """The SQL half of a home: door, log with its publisher, and the learning curves."""

    def __init__(self, folder: Path) -> None:
        clock, store = SystemClock(), SqlAuditStore()
        self.database = SqliteDatabase(folder / "falaj.db")
        migrate(self.database)
        self.metrics = SqliteDatabase(folder / "metrics.db", durable=False)
        self.events = EventLog(self.metrics, clock)
        self.publisher = Publisher(
            self.database, store, folder / "audit", Ed25519PrivateKey.generate(), "falaj.local/audit", clock
        )
        policy = CedarAuthoriser(policy_text(), actions())
        self.door = Door(self.database, policy, AuditService(self.database, store, self.publisher), clock)
        self.publisher.start()
        self._points = 0

    def changes(self, seconds: float) -> list[float]:
        """Milliseconds of each change, one after the other."""
        took, end = [], time.perf_counter() + seconds
        while (began := time.perf_counter()) < end:
            self.door.change(Intent(ADMIN, IDENTITY_REVOKE, Resource("Account", "x")), lambda _tx: Done({"n": 1}))
            took.append((time.perf_counter() - began) * 1000)
        return took

    def beside_the_writer(self, seconds: float) -> tuple[list[float], float]:
        """Milliseconds of each change, and the points a second that were committed meanwhile."""
        stop, before, began = threading.Event(), self._points, time.perf_counter()
        writer = threading.Thread(target=self._write, args=(stop,))
        writer.start()
        took = self.changes(seconds)
        stop.set()
        writer.join()
        return took, (self._points - before) / (time.perf_counter() - began)

    def _write(self, stop: threading.Event) -> None:
        while not stop.is_set():
            run = f"run_{self._points}"
            self.events.points(run, [("loss", step, 1 / (step + 1)) for step in range(BATCH)])
            self.metrics.change(lambda _tx: None)  # returns once what was handed in before it is committed
            self._points += BATCH

    def close(self) -> None:
        self.publisher.stop()
        self.metrics.close()
        self.database.close()


def percentiles(took: list[float]) -> tuple[float, float]:
    """p50 and p99."""
    return statistics.median(took), statistics.quantiles(took, n=100)[98]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--limit-ms", type=float, default=100.0)
    options = parser.parse_args()
    alone: list[float] = []
    beside: list[float] = []
    rates: list[float] = []
    with tempfile.TemporaryDirectory(prefix="falaj-bench-") as folder:
        home = Home(Path(folder))
        home.changes(0.2)
        for _ in range(options.rounds):
            alone += home.changes(options.seconds)
            took, rate = home.beside_the_writer(options.seconds)
            beside += took
            rates.append(rate)
        home.close()
    (p50, p99), (p50_beside, p99_beside) = percentiles(alone), percentiles(beside)
    print(
        f"metrics_writer: a change p50 {p50:.2f} p99 {p99:.2f} ms alone ({len(alone)}),"
        f" p50 {p50_beside:.2f} p99 {p99_beside:.2f} ms beside {statistics.median(rates):,.0f} points/s ({len(beside)}):"
        f" p50 ×{p50_beside / p50:.2f}, p99 ×{p99_beside / p99:.2f}, limit p99 {options.limit_ms:g} ms"
        f" ({os.cpu_count()} cores, Python {sys.version.split()[0]}, sqlalchemy {metadata.version('sqlalchemy')},"
        f" cedarpy {metadata.version('cedarpy')})"
    )
    if p99_beside > options.limit_ms:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
