"""Lake, online store, journal: whether what SQL names can be read."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import msgspec

from falaj.bootstrap.doctor.model import BROKEN, NOTE, PROBLEM, WELL, Finding, Patient
from falaj.kernel.errors import FalajError, Integrity
from falaj.lifecycle.data.model import dataset_digest
from falaj.lifecycle.serving import seals
from falaj.lifecycle.serving.plane.journal import SUFFIX, frames_of, is_sealed
from falaj.storage import sealed as sealed_file
from falaj.storage.online.lmdb_store import OnlineReader

_RESTORE = "restore the lake folder from a backup of the same moment as the database: falaj restore"
_MAGIC = b"PAR1"  # at both ends of a Parquet file


def lake(patient: Patient) -> Iterator[Finding]:
    """Whether each version that SQL names is in its table with all its files; `--deep` looks at the files' ends and
    compares each dataset with its digest."""
    wanted = patient.rows("SELECT name, max(version), digest FROM dataset_versions GROUP BY name")
    tables = [(patient.home / "lake" / "datasets" / n, int(v), str(d)) for n, v, d in wanted]
    tables += [(patient.home / "lake" / "predictions" / m, v, "") for m, v in _shipped(patient).items()]
    bad = 0
    for table, version, digest in tables:
        try:
            files = active_files(table, version)
        except Integrity as e:
            bad += 1
            yield Finding("lake", "lake_version_missing", BROKEN, e.message, _RESTORE)
            continue
        why = next((w for path, size in files if (w := _differs(table / path, size, patient.deep))), "")
        if not why and patient.deep and digest and dataset_digest(files) != digest:
            why = f"{table.name}@{version} has other files than were recorded"
        if why:
            bad += 1
            yield Finding("lake", "lake_file_missing", BROKEN, f"{table.name}@{version}: {why}", _RESTORE)
    if not bad:
        yield Finding("lake", "lake", WELL, f"{len(tables)} tables have the versions that are named")


def online(patient: Patient) -> Iterator[Finding]:
    """Whether each view that was materialised is in the online store."""
    views = patient.rows("SELECT view, digest, max(id) FROM materializations GROUP BY digest")
    if not views:
        return
    refill = "fill it again: falaj features materialize"
    reader = OnlineReader(patient.home / "online")
    try:
        missing = [view for view, digest, _ in views if reader.meta(digest) is None]
    except FalajError as e:
        yield Finding("online", e.code, PROBLEM, e.message, refill)
        return
    finally:
        reader.close()
    for view in missing:
        yield Finding("online", "view_not_online", PROBLEM, f"the online store holds nothing of {view}", refill)
    if not missing:
        yield Finding("online", "online", WELL, f"{len(views)} materialised views are in the online store")


def journal(patient: Patient) -> Iterator[Finding]:
    """Whether the record of predictions is whole: sealed segments beside their rows, others by their frames."""
    folder = patient.home / "plane" / "journal"
    sealed = {s: (size, root) for s, size, root in patient.rows("SELECT segment, bytes, root FROM journal_segments")}
    bad = 0
    for name, (size, root) in sealed.items():
        if why := _segment(folder / f"{name}{SUFFIX}", size, root, patient.deep):
            bad += 1
            yield Finding(
                "journal", "segment_broken", BROKEN, f"the journal segment {name} {why}",
                f"restore {name}{SUFFIX} and {name}{seals.SALTS} from a backup; its rows are in the lake",
            )  # fmt: skip
    waiting = [p for p in sorted(folder.glob(f"*{SUFFIX}")) if p.stem not in sealed and is_sealed(p)]
    for path in waiting:
        try:
            sum(1 for _ in frames_of(path))
        except Integrity as e:
            bad += 1
            yield Finding(
                "journal", "segment_damaged", BROKEN, e.message,
                "restore it from a backup; what stands before that place can still be read (falaj why)",
            )  # fmt: skip
    if not bad:
        rest = f", {len(waiting)} wait to be shipped" if waiting else ""
        yield Finding("journal", "journal", WELL, f"{len(sealed)} sealed segments are there{rest}")


def active_files(table: Path, version: int) -> list[tuple[str, int]]:
    """The data files of a Delta version as (path below the table, bytes), from the table's log alone.

    Raises `Integrity` when an entry of the log is missing or cannot be read.
    """
    files: dict[str, int] = {}
    for number in range(version + 1):
        entry = table / "_delta_log" / f"{number:020d}.json"
        try:
            actions: list[dict[str, Any]] = [msgspec.json.decode(x) for x in entry.read_bytes().splitlines() if x]
        except (OSError, msgspec.DecodeError, UnicodeDecodeError) as e:
            raise Integrity(
                f"{table.name}@{version} is named, but entry {number} of the table's log cannot be read",
                hint=_RESTORE,
                code="lake_version_missing",
            ) from e
        for action in actions:
            if "add" in action:
                files[unquote(action["add"]["path"])] = int(action["add"]["size"])
            elif "remove" in action:
                files.pop(unquote(action["remove"]["path"]), None)
    return sorted(files.items())


def quarantine(patient: Patient) -> Iterator[Finding]:
    """Tables of rows that broke their contract: SQL names only how many they are."""
    for table in sorted((patient.home / "lake" / "quarantine").glob("*")):
        versions = len(list((table / "_delta_log").glob("*.json")))
        try:
            files = active_files(table, versions - 1)
        except Integrity as e:
            yield Finding("lake", "quarantine_broken", NOTE, e.message, _RESTORE)
            continue
        if why := next((w for path, size in files if (w := _differs(table / path, size, patient.deep))), ""):
            yield Finding("lake", "quarantine_broken", NOTE, f"the quarantine of {table.name}: {why}", _RESTORE)


def _shipped(patient: Patient) -> dict[str, int]:
    """The newest version of each predictions table that a sealed segment names."""
    newest: dict[str, int] = {}
    for (tables,) in patient.rows("SELECT tables FROM journal_segments"):
        for table in msgspec.json.decode(tables):
            newest[table["model"]] = max(newest.get(table["model"], -1), int(table["version"]))
    return newest


def _differs(path: Path, size: int, deep: bool) -> str:
    if not path.is_file():
        return f"{path.name} is missing"
    if path.stat().st_size != size:
        return f"{path.name} has {path.stat().st_size} bytes instead of {size}"
    if deep:
        with path.open("rb") as f:
            head = f.read(4)
            if sealed_file.is_sealed(head):
                return ""  # its bytes are checked whenever they are read: none that was changed opens
            f.seek(-4, 2)
            if head != _MAGIC or f.read(4) != _MAGIC:
                return f"{path.name} is no Parquet file any more"
    return ""


def _segment(path: Path, size: int, root: str, deep: bool) -> str:
    if not path.is_file():
        return "is missing"
    if path.stat().st_size != size:
        return f"has {path.stat().st_size} bytes instead of {size}"
    if not path.with_suffix(seals.SALTS).is_file():
        return "has lost its salts"
    if deep:
        try:
            if seals.check(path).root != root:
                return "has another root than the audit log says"
        except Integrity as e:
            return e.message
    return ""
