"""Every single flipped byte of a published, cosigned audit log is found, and the right file is named.

    python proofs/audit.py [--entries 260] [--small 3] [--sample 0] [--workers 0] [--seconds 1800]

Publishes logs of the entries that a home writes, the larger one with its key replaced on the way, lets two witnesses
cosign them, copies them, and in the copy changes every byte of every file, one after the other, each time asking the
verifier for the whole folder. In the larger log a byte is changed in one of its eight bits, another one at each byte, and
outside the tiles also in the bit that changes a letter's case; in the small log each byte takes all its 255 other values.
`--sample N` changes only N bytes of each log, spread over all files, and each to at most 8 values.

A change counts as found when the verifier refuses the folder and says which file: its path, or, for an entry and its
hash, which of the two the signed root contradicts. Exits 1 when one change goes unseen or is put on another file, when
an untouched log does not verify, or when the time was not enough for all.
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

import msgspec  # noqa: E402  # the paths come first
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey  # noqa: E402

from falaj.governance.audit.note import unsigned, verifier_of  # noqa: E402
from falaj.governance.audit.publisher import Publisher  # noqa: E402
from falaj.governance.audit.quorum import WitnessPolicy, parse_policy  # noqa: E402
from falaj.governance.audit.rotation import ACTION, KEY, Rotation, state  # noqa: E402
from falaj.governance.audit.service import AuditService  # noqa: E402
from falaj.governance.audit.store import SqlAuditStore  # noqa: E402
from falaj.governance.audit.verify import demanding_quorum, verify_folder  # noqa: E402
from falaj.governance.audit.witness import Witness, create  # noqa: E402
from falaj.governance.audit.witnessing import Answer, Witnesses  # noqa: E402
from falaj.governance.door import Event  # noqa: E402
from falaj.kernel.clock import SystemClock  # noqa: E402
from falaj.kernel.log import configure  # noqa: E402
from falaj.storage.sql.schema import metadata as tables  # noqa: E402
from falaj.storage.sql.sqlite import SqliteDatabase  # noqa: E402

CASE = 0x20
Place = tuple[str, int]


class Published(msgspec.Struct, frozen=True):
    """A log that was published: its folder, its key, its witnesses' policy, and whether all values are tried."""

    folder: Path
    vkey: str
    policy: bytes
    every_value: bool

    @property
    def witnesses(self) -> WitnessPolicy:
        return parse_policy(self.policy)


def publish(home: Path, entries: int, *, every_value: bool, rotated: bool = False) -> Published:
    """A log of a home, cosigned by two witnesses; one whose key was replaced is checked by the key that it had before."""
    home.mkdir()
    database, store = SqliteDatabase(home / "falaj.db", durable=False), SqlAuditStore()
    database.change(tables.create_all)
    key = Ed25519PrivateKey.generate()
    publisher = Publisher(database, store, home / "audit", key, "falaj.local/audit", SystemClock())
    vkey = publisher.vkey
    witnesses, lines = {}, []
    for name in ("one", "two"):
        known = create(home / name, f"{name}.example")
        witnesses[name] = Witness(home / name, SystemClock())
        witnesses[name].trust(publisher.vkey)
        lines.append(f"witness {name} {known} http://{name}")
    policy = "\n".join([*lines, "group both all one two", "quorum both", ""]).encode()

    def post(url: str, body: bytes) -> Answer:
        reply = witnesses[url.split("/")[2]].add_checkpoint(body)
        return Answer(reply.status, reply.kind.partition(";")[0], reply.body)

    publisher.cosigners = Witnesses(parse_policy(policy), post)
    log = AuditService(database, store, publisher)
    database.change(lambda tx: log.record_many(tx, [event(n) for n in range(entries)]))
    publisher.publish()
    if rotated:
        statement = replace_key(publisher, key)
        told = {"key": KEY, "statement": statement.decode()}
        at = datetime(2026, 1, 1, tzinfo=UTC)
        rotation = Event(at, "owner", ACTION, "Key", KEY, "done", "op_rotation", told)
        database.change(lambda tx: log.record_many(tx, [rotation]))
        publisher.publish()
        for witness in witnesses.values():
            witness.follow(statement)
    publisher.witnessed()
    database.close()
    return Published(publisher.folder, vkey, policy, every_value)


def replace_key(publisher: Publisher, old: Ed25519PrivateKey) -> bytes:
    """Let another key sign from now on; returns the statement of it."""
    new, head = Ed25519PrivateKey.generate(), unsigned(publisher.checkpoint)
    names = [verifier_of(head.origin, k.public_key()) for k in (old, new)]
    statement = state(Rotation(names[0], names[1], head.size, head.root), old, new)
    publisher.take_over(new, statement)
    return statement


def event(n: int) -> Event:
    at = datetime(2026, 1, 1, tzinfo=UTC)
    return Event(at, "owner", "loop.build", "Model", f"delay@{n}", "done", f"bld_{n}", {"run": n})


def places(folder: Path, sample: int) -> list[Place]:
    """(file, offset) of every byte, or of `sample` of them at equal distances."""
    files = sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())
    found = [(name, at) for name in files for at in range((folder / name).stat().st_size)]
    return found[:: max(1, len(found) // sample)] if sample else found


def masks(name: str, at: int, *, every_value: bool, sample: int) -> list[int]:
    """All 255 changes of a byte; or, for tiles are hashed, one bit, and of what is text also the other case."""
    if every_value:
        return list(range(1, 256, 32 if sample else 1))
    return [1 << at % 8] if name.startswith("tile/") else sorted({1 << at % 8, CASE})


def judged(log: Published, folder: Path, name: str) -> str:
    """Why a change of a file counts as unseen; empty when it was found and put on that file."""
    report = demanding_quorum(verify_folder(folder, log.vkey, log.witnesses), log.witnesses)
    if report.ok:
        return "unseen"
    said = "; ".join(report.problems)
    which = {
        "tile/entries": "the entries were changed, not the tiles",
        "tile/0/": "the tiles were changed, not the entries",
    }
    verdict = next((words for begin, words in which.items() if name.startswith(begin)), name)
    return "" if name in said and (verdict in said or "whole entries" in said) else f"put elsewhere: {said[:200]}"


def flip_all(log: Published, where: list[Place], until: float, sample: int) -> tuple[int, int, list[str]]:
    """(bytes, changes, what went unseen) of one worker, in a copy of its own."""
    with tempfile.TemporaryDirectory(prefix="falaj-proof-") as scratch:
        folder = Path(scratch) / "audit"
        shutil.copytree(log.folder, folder)
        done, flips, unseen = 0, 0, []
        for name, at in where:
            if time.monotonic() > until:
                break
            path = folder / name
            good = path.read_bytes()
            for mask in masks(name, at, every_value=log.every_value, sample=sample):
                path.write_bytes(good[:at] + bytes([good[at] ^ mask]) + good[at + 1 :])
                flips += 1
                why = judged(log, folder, name)
                if why:
                    unseen.append(f"{name} byte {at} ^ {mask:#04x}: {why}")
            path.write_bytes(good)
            done += 1
        if judged(log, folder, "") != "unseen":
            unseen.append("the untouched copy does not verify")
        return done, flips, unseen


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--entries", type=int, default=260, help="more than 256 give a full tile and a partial one")
    parser.add_argument("--small", type=int, default=3, help="entries of the log in which every value is tried")
    parser.add_argument("--sample", type=int, default=0)
    parser.add_argument("--workers", type=int, default=0, help="0: one a core")
    parser.add_argument("--seconds", type=float, default=1800.0)
    options = parser.parse_args()
    configure("proof", "error")
    workers = options.workers or os.cpu_count() or 1
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="falaj-proof-") as home:
        logs = [
            publish(Path(home) / "large", options.entries, every_value=False, rotated=True),
            publish(Path(home) / "small", options.small, every_value=True),
        ]
        if any(judged(log, log.folder, "") != "unseen" for log in logs):
            raise SystemExit("the untouched log does not verify")
        jobs = [(log, place) for log in logs for place in places(log.folder, options.sample)]
        files = len({(log.folder, name) for log, (name, _) in jobs})
        with ProcessPoolExecutor(workers) as pool:
            futures = [
                pool.submit(
                    flip_all, log, [p for of, p in jobs if of is log][i::workers],
                    started + options.seconds, options.sample,
                )
                for log in logs
                for i in range(workers)
            ]  # fmt: skip
            results = [f.result() for f in futures]
    done, flips = sum(d for d, _, _ in results), sum(f for _, f, _ in results)
    unseen = [u for _, _, found in results for u in found]
    for line in unseen[:20]:
        print(f"unseen: {line}", file=sys.stderr)
    print(
        f"audit: {flips - len(unseen)} of {flips} flips in {done} of {len(jobs)} bytes of {files} files found,"
        f" each in its file ({options.entries} and {options.small} entries, 2 witnesses,"
        f" {time.monotonic() - started:.0f} s, {workers} workers, Python {sys.version.split()[0]},"
        f" cryptography {metadata.version('cryptography')})"
    )
    if unseen or done < len(jobs):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
