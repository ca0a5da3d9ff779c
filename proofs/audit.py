"""Every single flipped byte of a published audit log is found.

    python proofs/audit.py [--entries 260] [--sample 0] [--workers 0] [--seconds 600]

Publishes a log of the entries that a home writes, copies it, and in the copy flips every byte of every file, one after
the other, each time asking the verifier for the whole folder: one of the eight bits, another one at each byte, and
outside the tiles also the bit that changes a letter's case. `--sample N` flips only N bytes, spread over all files.

Exits 1 when one flip goes unseen, when the untouched log does not verify, or when the time was not enough for all.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "src")]

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey  # noqa: E402  # the paths come first

from falaj.governance.audit.publisher import Publisher  # noqa: E402
from falaj.governance.audit.service import AuditService  # noqa: E402
from falaj.governance.audit.store import SqlAuditStore  # noqa: E402
from falaj.governance.audit.verify import verify_folder  # noqa: E402
from falaj.governance.door import Event  # noqa: E402
from falaj.kernel.clock import SystemClock  # noqa: E402
from falaj.storage.sql.schema import metadata as tables  # noqa: E402
from falaj.storage.sql.sqlite import SqliteDatabase  # noqa: E402

CASE = 0x20
Place = tuple[str, int]


def publish(home: Path, entries: int) -> tuple[Path, str]:
    """A log of a home: its folder and its verification key."""
    database, store = SqliteDatabase(home / "falaj.db", durable=False), SqlAuditStore()
    database.change(tables.create_all)
    publisher = Publisher(
        database, store, home / "audit", Ed25519PrivateKey.generate(), "falaj.local/audit", SystemClock()
    )
    log = AuditService(database, store, publisher)
    database.change(lambda tx: log.record_many(tx, [event(n) for n in range(entries)]))
    publisher.publish()
    database.close()
    return publisher.folder, publisher.vkey


def event(n: int) -> Event:
    at = datetime(2026, 1, 1, tzinfo=UTC)
    return Event(at, "owner", "loop.build", "Model", f"delay@{n}", "done", f"bld_{n}", {"run": n})


def places(folder: Path, sample: int) -> list[Place]:
    """(file, offset) of every byte, or of `sample` of them at equal distances."""
    files = sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())
    found = [(name, at) for name in files for at in range((folder / name).stat().st_size)]
    return found[:: max(1, len(found) // sample)] if sample else found


def masks(name: str, at: int) -> set[int]:
    """Tiles are hashed, so one bit is as good as another; what is text is also tried in the other case."""
    return {1 << at % 8} if name.startswith("tile/") else {1 << at % 8, CASE}


def flip_all(source: Path, vkey: str, where: list[Place], until: float) -> tuple[int, int, list[str]]:
    """(bytes, flips, what went unseen) of one worker, in a copy of its own."""
    with tempfile.TemporaryDirectory(prefix="falaj-proof-") as scratch:
        folder = Path(scratch) / "audit"
        shutil.copytree(source, folder)
        done, flips, unseen = 0, 0, []
        for name, at in where:
            if time.monotonic() > until:
                break
            path = folder / name
            good = path.read_bytes()
            for mask in masks(name, at):
                path.write_bytes(good[:at] + bytes([good[at] ^ mask]) + good[at + 1 :])
                flips += 1
                if verify_folder(folder, vkey).ok:
                    unseen.append(f"{name} byte {at} ^ {mask:#04x}")
            path.write_bytes(good)
            done += 1
        if not verify_folder(folder, vkey).ok:
            unseen.append("the untouched copy does not verify")
        return done, flips, unseen


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--entries", type=int, default=260, help="more than 256 give a full tile and a partial one")
    parser.add_argument("--sample", type=int, default=0)
    parser.add_argument("--workers", type=int, default=0, help="0: one a core")
    parser.add_argument("--seconds", type=float, default=600.0)
    options = parser.parse_args()
    workers = options.workers or os.cpu_count() or 1
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="falaj-proof-") as home:
        folder, vkey = publish(Path(home), options.entries)
        where = places(folder, options.sample)
        files = len({name for name, _ in where})
        if not verify_folder(folder, vkey).ok:
            raise SystemExit("the untouched log does not verify")
        with ProcessPoolExecutor(workers) as pool:
            shares = [where[i::workers] for i in range(workers)]
            futures = [pool.submit(flip_all, folder, vkey, s, started + options.seconds) for s in shares]
            results = [f.result() for f in futures]
    done, flips = sum(d for d, _, _ in results), sum(f for _, f, _ in results)
    unseen = [u for _, _, found in results for u in found]
    for line in unseen[:20]:
        print(f"unseen: {line}", file=sys.stderr)
    print(
        f"audit: {flips - len(unseen)} of {flips} flips in {done} of {len(where)} bytes of {files} files found"
        f" ({options.entries} entries, {time.monotonic() - started:.0f} s, {workers} workers,"
        f" Python {sys.version.split()[0]}, cryptography {metadata.version('cryptography')})"
    )
    if unseen or done < len(where):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
