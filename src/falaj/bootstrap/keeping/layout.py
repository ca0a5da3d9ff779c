"""What of a home goes into a backup, and in which order it is read.

Everything is kept but: private keys and tokens (`falaj keys backup` is for keys), what only a running process needs, and
what is written again from the rest. SQLite files, the online store and the audit log's edge are copied by their own means.

The order makes the copy whole although the home is in use. The SQL head is taken first: what it names is there
already and never changes. A segment's salts are read before the segment, for they are made when it is complete; a table's
log before its data files, for those are there before the log names them.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

DATABASES = ("falaj.db", "metrics.db", "flows.db")
ONLINE = "online/data.mdb"
AUDIT = "audit"
_NOT_KEPT = {
    "keys", "keys.new", "tokens", "run", "tmp", "parcels", "lock", "online", AUDIT, *DATABASES,
}  # fmt: skip
_OF_THE_PLANE = {"key.pem", "bundle.json", "trust.json", "last-good.json", "status", "sockets"}
"""A data plane's own key is made anew, its bundle is published again for it; `last-good.json` may know a generation
that the SQL head does not, and would refuse what the restored home publishes."""
_PASSING = (".log", ".lock", ".new", "-wal", "-shm", "-journal", ".pid", ".sock")
_PLANE = re.compile(r"(?:plane|environments/[^/]+/plane)/(?P<first>[^/]+)")
_BEFORE_UPGRADE = re.compile(r"falaj-schema-\d{4}\.db\Z")
_COMMIT = re.compile(r"(\d{20})\.(?:json|checkpoint.*\.parquet)\Z")
LOG = "_delta_log"
_LAST = "_last_checkpoint"


def kept(name: str) -> bool:
    """Whether a file, by its path below the home, is read as it is."""
    parts = PurePosixPath(name).parts
    if parts[0] in _NOT_KEPT or any(p.startswith(".") for p in parts) or name.endswith(_PASSING):
        return False
    plane = _PLANE.match(name)
    return not (plane and plane["first"] in _OF_THE_PLANE) and not _BEFORE_UPGRADE.match(name)


def rank(name: str) -> int:
    """When a file is read: 0 before 1 before 2."""
    parts = PurePosixPath(name).parts
    if name.endswith(".salts") or parts[-1] == _LAST:
        return 0
    return 1 if LOG in parts else 2


def files(home: Path, wanted: int) -> Iterator[str]:
    """The files of one rank that are there now and are kept, sorted; a table's log without a gap."""
    found: list[str] = []
    for base, folders, names in os.walk(home):
        here = Path(base).relative_to(home)
        folders[:] = sorted(f for f in folders if _worth((here / f).as_posix()))
        paths = ((here / n).as_posix() for n in names)
        found += [p for p in paths if kept(p) and rank(p) == wanted and (home / p).is_file()]
    if wanted == 1:
        found = list(_without_gaps(found))
    yield from sorted(found)


def _worth(folder: str) -> bool:
    return kept(f"{folder}/x")


def _without_gaps(names: list[str]) -> Iterator[str]:
    """A folder is not listed at one moment: an entry of a log may be seen and the one before it not."""
    logs: dict[str, list[int]] = {}
    for name in names:
        path = PurePosixPath(name)
        if path.suffix == ".json" and (match := _COMMIT.match(path.name)):
            logs.setdefault(path.parent.as_posix(), []).append(int(match[1]))
    ends: dict[str, int] = {}
    for folder, versions in logs.items():
        versions.sort()
        gap = next((i for i in range(1, len(versions)) if versions[i] != versions[i - 1] + 1), len(versions))
        ends[folder] = versions[gap - 1]
    for name in names:
        path = PurePosixPath(name)
        match = _COMMIT.match(path.name)
        if match is None or int(match[1]) <= ends.get(path.parent.as_posix(), -1):
            yield name
