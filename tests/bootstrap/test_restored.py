"""A restored home, opened: it serves again and knows what it is a copy of. One control plane a process, so apart."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from falaj.bootstrap.control_plane import ControlPlane
from falaj.bootstrap.keeping.restoring import Restoring, read_note, restore, twin_of
from falaj.governance.signing.recovery import read_folder
from falaj.kernel.access import SYSTEM
from falaj.kernel.settings import Settings
from falaj.lifecycle.rollout.model import all_to
from falaj.storage.blobs.local import blob_path
from falaj.workflow.moving import moved_text
from tests.lifecycle.house import house


def silent(_text: str, _done: int, _total: int) -> None:
    """No progress."""


def test_a_restored_home_opens_serves_and_verifies(tmp_path: Path) -> None:
    with house(tmp_path / "first") as opened:
        opened.packaged()
        backup = opened.plane.keeping.backups.start(opened.owner, str(tmp_path / "backups"))
        assert opened.plane.keeping.backups.state(backup, 30.0).state == "done"
        keys = read_folder(opened.plane.layout.keys)
        assert twin_of(str(opened.plane.layout.home), socket.gethostname(), tmp_path) > 0
        done = restore(Restoring(tmp_path / "backups", keys, tmp_path / "new"), silent)
        assert done.twin > 0 and "open now" in done.warnings[0]
    plane = ControlPlane(Settings(home=tmp_path / "new", project=tmp_path))
    try:
        plane.start()
        assert plane.audit.verify().ok
        assert plane.serving.generation() > 0
        assert (tmp_path / "new" / "plane" / "key.pem").exists()
        assert plane.identity.authenticate((tmp_path / "new" / "tokens" / "owner").read_text().strip()).name == "owner"
    finally:
        plane.close()
    note = read_note(tmp_path / "new")
    assert note is not None and note.backup == backup and note.of == str(tmp_path / "first" / "home")


def test_a_home_whose_bundle_cannot_be_made_anew_opens_and_says_so(tmp_path: Path) -> None:
    with house(tmp_path / "first") as opened:
        version = opened.approved()
        opened.plane.registry.admit(version.digest, "production", SYSTEM)
        opened.plane.rollout.set_plan(all_to(version.model, version.digest), "risk", opened.operation())
        opened.plane.serving.publish("risk")
        layout, signature = opened.plane.layout, version.signature
    path = blob_path(layout.blobs, signature)
    kept = path.read_bytes()
    path.unlink()
    (layout.plane / "key.pem").unlink()  # the next one cannot open what is sealed to this one
    with reopened(layout.home) as plane:
        (told,) = plane.incidents.open_of("*")
        assert told.kind == "bundle" and "carries no signature" in told.reason and "production" in told.reason
        generation = plane.serving.generation()
    path.write_bytes(kept)
    with reopened(layout.home) as plane:
        assert plane.incidents.open_of("*") == []
        assert plane.serving.generation() == generation + 1


@contextmanager
def reopened(home: Path) -> Iterator[ControlPlane]:
    plane = ControlPlane(Settings(home=home, project=home.parent))
    try:
        plane.start()
        yield plane
    finally:
        plane.close()


def test_what_flows_remember_of_the_old_place_is_moved() -> None:
    told = {
        "task": {"table": "/old/home/lake/f", "code": "/old/home", "other": "/old/homestead/x", "n": 3},
        "l": ["/old/home/a"],
    }
    moved = msgspec.json.decode(moved_text(msgspec.json.encode(told).decode(), "/old/home", "/new"))
    assert moved == {
        "task": {"table": "/new/lake/f", "code": "/new", "other": "/old/homestead/x", "n": 3},
        "l": ["/new/a"],
    }
    assert moved_text("not about it", "/old/home", "/new") == "not about it"


def test_a_place_is_moved_however_json_writes_its_name() -> None:
    old = '/old/the "home"'
    told = msgspec.json.encode({"table": f"{old}/lake"}).decode()
    assert msgspec.json.decode(moved_text(told, old, "/new")) == {"table": "/new/lake"}
