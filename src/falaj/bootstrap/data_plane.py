"""The composition root of a data plane worker."""

from __future__ import annotations

from pathlib import Path

import msgspec

from falaj.kernel.clock import HomeClock
from falaj.kernel.log import configure
from falaj.lifecycle.serving.plane.front import Front, Outward
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
    outward: Outward | None = None
    local: tuple[str, int] = ("127.0.0.1", 0)


def application(options: PlaneOptions) -> Worker:
    """The RSGI application; called in the worker's process."""
    configure("data-plane", options.log_level)
    front = Front(options.outward, options.folder, options.local) if options.outward else None
    clock = HomeClock(options.home)
    return Worker(options.folder, options.blobs, OnlineReader(options.online), clock, options.address, front)
