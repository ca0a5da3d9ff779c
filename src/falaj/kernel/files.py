"""Files that survive a power cut, and files that only their owner may read."""

from __future__ import annotations

import os
from pathlib import Path


def flush(path: Path) -> None:
    """Have the system write a file to the disk; of a folder, the names in it. Raises `OSError`."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_private(path: Path, data: bytes) -> None:
    """Make a new file that only its owner can read, flushed; its name survives once the folder was flushed too.

    Raises `FileExistsError` for a name that is taken, `OSError` when it cannot be written; then nothing of it stays.
    """
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as f:
            f.write(data)
            f.flush()
            os.fsync(f.fileno())
    except BaseException:  # a secret that is half there helps nobody
        path.unlink(missing_ok=True)
        raise
