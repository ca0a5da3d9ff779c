"""What a home holds, told so that two homes in which the same was done tell the same.

What may differ between two runs is told by a name of its own, each for its reason:

    ids            are random; by order of appearance, so that what refers to what still counts
    digests        of what holds a time or a signature (evidence, bundles, blobs) differ; by order of appearance
    times          of the machine
    milliseconds   of rehearsals and step processes; how many requests had come when a rollout was judged
    process ids, ports, token hashes
    keys of stores, as wrapped; that they open is seen by opening what they are for
    bundles        for staging's rehearsals count as one: a rehearsal that was cut off is done again, and its data
                   plane is told of a new token for it

The audit log gives the order of appearance, the tables follow in the order of their rows.
"""

from __future__ import annotations

import base64
import contextlib
import re
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lmdb
import msgspec
import polars as pl

from falaj.bootstrap.encryption import unlock
from falaj.bootstrap.layout import Layout
from falaj.governance.audit.verify import verify_folder
from falaj.governance.signing.keys import KeyRing
from falaj.kernel.errors import FalajError
from falaj.storage import keychain
from falaj.storage.blobs.local import LocalBlobs
from falaj.storage.lake import delta
from falaj.storage.online.fillings import opened_filling, prefix_of

_VOLATILE = re.compile(
    r"(?P<digest>sha256:[0-9a-f]{64})|(?P<hex>\b[0-9a-f]{64}\b)|(?P<short>\b[0-9a-f]{12}\b)"
    r"|(?P<id>\b[a-z]{2,4}_[0-9a-hjkmnp-tv-z]{26}\b)|(?P<token>\b[0-9a-hjkmnp-tv-z]{16}\b)|(?P<requests>\bon \d+ requests)"
    r"|(?P<time>\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?Z)|(?P<port>http://127\.0\.0\.1:\d+)"
)
_MACHINE = {"p50_ms", "p99_ms", "seconds", "peak_mb", "updated_at", "hash", "leaf", "wrapped"}
_SKIPPED = {"alembic_version", "audit_head"}
_FLOW = "select workflow_uuid, name, status from workflow_status order by created_at, workflow_uuid"
_STEP = "select workflow_uuid, function_name from operation_outputs order by rowid"


class Teller:
    """Tells values with what is random replaced by names in order of appearance."""

    def __init__(self) -> None:
        self._names: dict[str, str] = {}
        self._kinds: dict[str, int] = {}

    def __call__(self, value: Any) -> Any:
        if isinstance(value, dict):
            volatile = {*_MACHINE, "requests"} if "rollout" in value else _MACHINE
            return {self(k): "…" if k in volatile else self(v) for k, v in value.items()}
        if isinstance(value, list | tuple):
            return [self(v) for v in value]
        return _VOLATILE.sub(self._named, value) if isinstance(value, str) else value

    def _named(self, found: re.Match[str]) -> str:
        kind, text = str(found.lastgroup), found[0]
        if kind in ("time", "port", "token", "requests"):
            return f"<{kind}>"
        if kind == "id":
            kind = text.partition("_")[0]
        else:
            kind, text = "digest", text.removeprefix("sha256:")[:12]
        if text not in self._names:
            self._kinds[kind] = self._kinds.get(kind, 0) + 1
            self._names[text] = f"<{kind} {self._kinds[kind]}>"
        return self._names[text]


def summary(home: Path) -> dict[str, Any]:
    """Everything that counts in a home whose processes have ended."""
    layout, tell = Layout(home), Teller()
    with _opened(layout.database) as database:
        entries = [_entry(data) for (data,) in database.execute("select data from audit_entries order by idx")]
        tables = {name: list(_rows(database, name)) for name in _tables(database) if name != "audit_entries"}
    size = len(entries)
    entries = _rehearsed_once(entries, tables)
    told: dict[str, Any] = {"audit": [tell(e) for e in entries]}
    told |= {name: [tell(row) for row in rows] for name, rows in tables.items()}
    told["log"] = _log(layout, size)
    told["blobs"] = _blobs(layout, (entries, tables))
    told["lake"] = _lake(layout, tables)
    told["online"] = tell(_online(layout))
    told["flows"] = _flows(layout, tell)
    told["scores"] = _scores(layout)
    told["files"] = _files(home)
    return told


def differences(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    """What differs, in short."""
    found: list[str] = []
    for name in sorted({*one, *other}, key=lambda n: (n != "audit", n)):
        here, there = one.get(name), other.get(name)
        if here == there:
            continue
        if isinstance(here, list) and isinstance(there, list):
            texts, others = ([msgspec.json.encode(x).decode() for x in side] for side in (here, there))
            missing = [f"{name}: missing {t[:400]}" for t in texts if t not in others]
            more = [f"{name}: more {t[:400]}" for t in others if t not in texts]
            all_of_it = missing + more or [f"{name}: other order or number ({len(here)}, {len(there)})"]
            found += all_of_it if not found else [f"{name}: {len(all_of_it)} more differences"]
        else:
            found.append(f"{name}: {here!r} is {there!r}"[:800])
    return found


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[sqlite3.Connection]:
    connection = sqlite3.connect(path)
    try:
        yield connection
    finally:
        connection.close()


def _tables(database: sqlite3.Connection) -> list[str]:
    rows = database.execute(
        "select name from sqlite_master where type = 'table' and name not like 'sqlite_%' order by name"
    )
    return [name for (name,) in rows if name not in _SKIPPED]


def _rows(database: sqlite3.Connection, table: str) -> Iterator[dict[str, Any]]:
    cursor = database.execute(f'select * from "{table}" order by rowid')  # noqa: S608  its own tables
    names = [d[0] for d in cursor.description]
    for row in cursor:
        yield {n: _decoded(v) for n, v in zip(names, row, strict=True)}


def _decoded(value: Any) -> Any:
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, str) and value[:1] in ("{", "["):
        with contextlib.suppress(msgspec.DecodeError):
            return msgspec.json.decode(value)
    return value


def _entry(data: bytes) -> dict[str, Any]:
    return msgspec.json.decode(data, type=dict[str, Any])


def _rehearsed_once(entries: list[dict[str, Any]], tables: dict[str, list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """The entries without the bundles of rehearsals that were cut off, which go from the tables too."""
    gone: list[dict[str, Any]] = []
    kept: list[dict[str, Any]] = []
    for entry in entries:
        before = kept[-1] if kept else {}
        if _for_rehearsal(entry) and _for_rehearsal(before) and _releases(entry) == _releases(before):
            gone.append(kept.pop())
        kept.append(entry)
    operations = {e["operation_id"] for e in gone}
    bundles = {e["detail"]["bundle"] for e in gone}
    tables["operations"] = [r for r in tables["operations"] if r["operation_id"] not in operations]
    tables["bundles"] = [r for r in tables["bundles"] if r["digest"] not in bundles]
    numbers = {
        r["generation"]: n for n, r in enumerate((r for r in tables["bundles"] if r["environment"] == "staging"), 1)
    }
    made = {r["digest"] for r in tables["bundles"] if r["environment"] == "staging"}
    for row in tables["bundles"]:
        if row["environment"] == "staging":
            row["generation"] = numbers[row["generation"]]
    told = [e["detail"] for e in kept if e["detail"].get("bundle") in made]
    told += [
        r["result"]
        for r in tables["operations"]
        if isinstance(r["result"], dict) and r["result"].get("envelope") in made
    ]
    for detail in told:
        if "generation" in detail:
            detail["generation"] = numbers[detail["generation"]]
    return kept


def _for_rehearsal(entry: dict[str, Any]) -> bool:
    return (entry.get("action"), entry.get("resource_id")) == ("serving.publish", "staging") and bool(_releases(entry))


def _releases(entry: dict[str, Any]) -> list[Any]:
    return list(entry["detail"]["releases"])


def _log(layout: Layout, entries: int) -> list[Any]:
    """Whether the published log verifies and holds every entry."""
    vkey = (layout.audit / "vkey").read_text().strip()
    report = verify_folder(layout.audit, vkey)
    return [report.ok, report.size == entries, *report.problems]


def _blobs(layout: Layout, named: Any) -> list[str]:
    """What is wrong with the blobs that a row or an entry names as one."""
    store, wrong = LocalBlobs(layout.blobs, KeyRing(layout.keys).kek), []
    for name, digest in sorted(set(_named_blobs(named, ""))):
        try:
            store.get(digest)
        except FalajError as e:
            wrong.append(f"{name}: {e.code}")
    return wrong


def _named_blobs(value: Any, key: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, dict):
        for k, v in value.items():
            yield from _named_blobs(v, "artifact" if key == "artifacts" else str(k))
    elif isinstance(value, list | tuple):
        for v in value:
            yield from _named_blobs(v, key)
    elif key in ("envelope", "bundle", "signature", "artifact") and str(value).startswith("sha256:"):
        yield key, str(value)


def _lake(layout: Layout, tables: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """The rows of every version that SQL names, and of the quarantine, by number and content."""
    unlock(layout.home)
    told: dict[str, Any] = {}
    for row in tables["dataset_versions"]:
        table = layout.lake / "datasets" / row["name"]
        told[f"{row['name']}@{row['version']}"] = _content(table, row["version"])
    for table in sorted((layout.lake / "quarantine").glob("*")):
        told[f"quarantine of {table.name}"] = delta.scan(table, delta.head(table)).collect().height
    for table in sorted((layout.lake / "predictions").glob("*")):
        told[f"predictions of {table.name}"] = delta.scan(table, delta.head(table)).collect().height
    return told


def _content(table: Path, version: int) -> list[Any]:
    frame = delta.scan(table, version).collect()
    lines = frame.select(pl.exclude("operation")).rows()
    return [frame.height, hash(tuple(sorted(map(repr, lines)))) if len(lines) < 10 else _sum(frame)]


def _sum(frame: pl.DataFrame) -> int:
    return int(frame.hash_rows(seed=1).sort().implode().hash(seed=1).item())


def _online(layout: Layout) -> list[Any]:
    """What each view was filled with, and its values opened; their names are keyed anew with each filling."""
    if not (layout.online / "data.mdb").exists():
        return []
    store = lmdb.open(str(layout.online), readonly=True, lock=False)
    with store.begin() as tx, tx.cursor() as cursor:
        found = {bytes(k): bytes(v) for k, v in cursor}
    store.close()
    keys, told = keychain.keys_of(layout.online).online, []
    for name in sorted(k for k in found if k.startswith(b"view\0")):
        meta = msgspec.msgpack.decode(found[name])
        prefix = prefix_of(meta["digest"])
        filling = opened_filling(meta["digest"], found[b"key\0" + prefix], keys)
        values = [msgspec.msgpack.decode(filling.open(k, v)) for k, v in found.items() if k.startswith(prefix)]
        told.append([meta, sorted(values, key=repr)])
    return told


def _flows(layout: Layout, tell: Teller) -> list[Any]:
    """Each flow with its steps; how often a step was tried is not told."""
    with _opened(layout.flows) as database:
        steps: dict[str, list[str]] = {}
        for flow, step in database.execute(_STEP):
            steps.setdefault(flow, []).append(step)
        return sorted(tell([f, name, status, steps.get(f, [])]) for f, name, status in database.execute(_FLOW))


def _scores(layout: Layout) -> dict[str, Any]:
    """What monitoring has made of the journal: rows of each of its tables."""
    with _opened(layout.metrics) as database:
        known = [t for t in _tables(database) if t not in ("flow_events", "metric_points")]
        count = 'select count(*) from "{}"'
        return {t: database.execute(count.format(t)).fetchone()[0] for t in known}


def _files(home: Path) -> list[str]:
    """Every file by kind, without those that are named by content or by version, and those that name processes."""
    told = set()
    for path in home.rglob("*"):
        name = path.relative_to(home).as_posix()
        if path.is_dir() or name.endswith(("-wal", "-shm")):
            continue
        first = path.relative_to(home).parts[0]
        if first == "run":
            continue
        if first == "blobs":
            name = "blobs/temporary" if path.name.startswith(".") else "blobs/…"
        elif first in ("lake", "projects"):
            name = f"{first}/…"
        elif first == "audit" and "/tile/" in name:
            name = "audit/temporary" if name.endswith(".new") else "audit/tile/…"
        elif "/journal/" in name:
            name = f"plane/journal/…{path.suffix}"
        elif "/status/" in name:
            name = "plane/status/…"
        elif first == "tmp":
            name = f"tmp/{path.name}"
        told.add(name)
    return sorted(told)
