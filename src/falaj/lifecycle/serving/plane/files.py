"""Files of the data plane's folder that are replaced as a whole."""

from __future__ import annotations

import os
import threading
from pathlib import Path

from falaj.kernel.files import flush


def replace_file(path: Path, data: bytes, *, sync: bool = False) -> None:
    """Replace a file so that readers see the old or the new one, whole; with `sync` the new one survives a power cut."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}")  # two threads may write at once
    with temporary.open("wb") as f:
        f.write(data)
        if sync:
            f.flush()
            os.fsync(f.fileno())
    temporary.replace(path)
    if sync:
        flush(path.parent)
