"""Something in every store of a home, and whether it is read."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from falaj.bootstrap.control_plane import ControlPlane
from falaj.kernel.clock import SystemClock
from falaj.lifecycle.serving.plane.journal import Journal, Prediction, iter_records
from falaj.storage.blobs.local import blob_path
from falaj.storage.lake import delta
from falaj.storage.online.lmdb_store import OnlineReader, OnlineWriter, ViewMeta

VIEW = "sha256:" + "ab" * 32


def filled(plane: ControlPlane, number: int) -> dict[Path, bytes]:
    """Something in every store; returns the files that hold it, as they are."""
    home = plane.layout.home
    files = [blob_path(plane.layout.blobs, plane.blobs.put(b"blob %d" % number))]
    delta.append(home / "lake" / "t", pl.DataFrame({"a": [number]}), f"op{number}")
    files += list((home / "lake" / "t").glob("part-*"))
    writer = OnlineWriter(home / "online", map_bytes=1 << 20)
    view = VIEW.replace("ab", f"a{number}")
    writer.replace(ViewMeta(view, f"2013-04-0{number}T00:00:00.000Z", ("a",), 0, f"op{number}"), [("k", (1, (1.0,)))])
    writer.close()
    journal = Journal(home / "j", SystemClock())
    journal.append(Prediction(journal.next_id, number, "m", "m@1", VIEW, "p", 1, "1", 1, {"x": [number]}, {"y": [0.5]}))
    journal.close()
    files += list((home / "j").glob("*.seg"))
    return {file: file.read_bytes() for file in files}


def told(plane: ControlPlane, number: int) -> None:
    """What `filled` put there is read, by the keys that this process holds now."""
    home = plane.layout.home
    assert any(plane.blobs.get("sha256:" + p.name) == b"blob %d" % number for p in plane.layout.blobs.glob("*/*"))
    assert number in delta.scan(home / "lake" / "t", delta.head(home / "lake" / "t")).collect()["a"].to_list()
    reader = OnlineReader(home / "online", map_bytes=1 << 20)
    assert reader.get_many(VIEW.replace("ab", f"a{number}"), ["k"]) == [(1, (1.0,))]
    reader.close()
    assert number in [r.at for s in (home / "j").glob("*.seg") for r in iter_records(s)]
