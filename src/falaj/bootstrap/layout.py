"""Where things are below a home, and how it is taken: by one process at a time, and never for a new one by mistake."""

from __future__ import annotations

import os
from pathlib import Path

from falaj.kernel import locks
from falaj.kernel.environments import PRODUCTION
from falaj.kernel.errors import Conflict, Integrity
from falaj.lifecycle.serving.process import plane_folder


class Layout:
    """Where things are below a home."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.lock = home / "lock"
        self.database = home / "falaj.db"
        self.flows = home / "flows.db"
        self.metrics = home / "metrics.db"
        self.keys = home / "keys"
        self.blobs = home / "blobs"
        self.lake = home / "lake"
        self.online = home / "online"
        self.plane = plane_folder(home, PRODUCTION)
        self.audit = home / "audit"
        self.projects = home / "projects"
        self.scratch = home / "tmp"
        self.tokens = home / "tokens"
        self.run = home / "run"


def take_lock(path: Path) -> int:
    """Lock a home for this process. Raises `Conflict` when another process has it."""
    descriptor = locks.take(path)
    if descriptor is None:
        pid = locks.holder(path)
        raise Conflict(
            f"another process (pid {pid or 'unknown'}) has this home open",
            hint=f"wait until it ends, or end it: `kill {pid or 'PID'}`; after `falaj up` several commands can work at once",
            code="home_locked",
        )
    return descriptor


def check_database(database: Path, log: Path) -> None:
    """Raises `Integrity` when a home has a published log and no database: it must not begin anew unnoticed."""
    if (log / "checkpoint").exists() and not (database.exists() and database.stat().st_size):
        raise Integrity(
            f"{database.name} is missing or empty, and the audit log of this home is not",
            hint=f"change nothing, copy the home as it is, and restore {database.name} from a backup",
            code="database_missing",
        )


def keep_token(path: Path, token: str) -> None:
    """Write a token that only its owner can read; survives a power cut."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="ascii") as f:
        f.write(token + "\n")
        f.flush()
        os.fsync(f.fileno())
