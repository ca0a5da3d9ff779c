"""Copies of a home, for showing what is refused without harming the one that serves."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path


def copy_home(home: Path, target: Path) -> Path:
    """A consistent copy of what decisions rest on: databases, keys, blobs, tokens, log. No lake, no online store."""
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True, mode=0o700)
    for name in ("keys", "blobs", "tokens", "audit"):
        shutil.copytree(home / name, target / name)
    for name in ("falaj.db", "flows.db", "metrics.db"):
        with closing(sqlite3.connect(home / name)) as source, closing(sqlite3.connect(target / name)) as copy:
            source.backup(copy)
    shutil.copyfile(home / "clock.json", target / "clock.json")
    return target


def flip_byte(path: Path, at: int) -> None:
    """Change one bit of one byte."""
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.chmod(0o600)
    path.write_bytes(data)
