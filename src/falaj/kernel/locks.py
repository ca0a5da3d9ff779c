"""Locks on files: held as long as a process lives, and gone with it, whatever becomes of its id."""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path

_PATIENCE = 0.25
_PAUSE = 0.01


def take(path: Path) -> int | None:
    """Lock a file for this process; returns the descriptor that holds it, None when another process has it.

    Waits a quarter of a second at most, because `held` takes the lock for a moment.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    until = time.monotonic() + _PATIENCE
    try:
        while not _locked(descriptor, fcntl.LOCK_EX):
            if time.monotonic() > until:
                os.close(descriptor)
                return None
            time.sleep(_PAUSE)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, str(os.getpid()).encode(), 0)
    except OSError:  # a lock that nobody was told of would be held as long as this process lives
        os.close(descriptor)
        raise
    return descriptor


def held(path: Path) -> bool:
    """Whether a process that lives has the lock. False for a file that is not there."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        return not _locked(descriptor, fcntl.LOCK_SH)
    finally:
        os.close(descriptor)


def holder(path: Path) -> int:
    """The id of the process that has the lock, or had it last; 0 when the file does not say."""
    try:
        return int(path.read_bytes()[:20])
    except (OSError, ValueError):
        return 0


def _locked(descriptor: int, how: int) -> bool:
    try:
        fcntl.flock(descriptor, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
