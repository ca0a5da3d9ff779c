"""The composition root of a data plane worker."""

from __future__ import annotations

from pathlib import Path

import msgspec

from falaj.kernel.clock import HomeClock
from falaj.kernel.log import configure
from falaj.lifecycle.serving.plane.worker import Worker
from falaj.storage.online.lmdb_store import OnlineReader


class PlaneOptions(msgspec.Struct, frozen=True):
    """Where a data plane finds what it needs: its folder, encrypted blobs, online features, the home's clock."""

    folder: Path
    blobs: Path
    online: Path
    home: Path
    address: str
    log_level: str = "info"


def application(options: PlaneOptions) -> Worker:
    """The RSGI application; called in the worker's process."""
    configure("data-plane", options.log_level)
    return Worker(options.folder, options.blobs, OnlineReader(options.online), HomeClock(options.home), options.address)
