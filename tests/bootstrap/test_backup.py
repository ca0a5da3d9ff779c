"""Backups of a running home: what is in one, what is not, what restoring refuses."""

from __future__ import annotations

import random
import shutil
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from falaj.bootstrap.keeping import layout
from falaj.bootstrap.keeping.restoring import NOTE, Restoring, check_backup, restore
from falaj.governance.signing.dsse import verify_envelope
from falaj.governance.signing.keys import KeyRing
from falaj.governance.signing.recovery import read_folder
from falaj.kernel.errors import Conflict, FalajError, Integrity, Invalid
from falaj.lifecycle.loop.keeping.model import HOME_BACKUP, HOME_RESTORE, Progress
from falaj.storage.archive import reading
from tests.lifecycle.house import House, house


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """A house with a version that serves."""
    with house(tmp_path_factory.mktemp("house")) as opened:
        opened.packaged()
        yield opened


def taken(home: House, folder: Path) -> Progress:
    """A backup by the owner, waited for."""
    backup = home.plane.keeping.backups.start(home.owner, str(folder))
    state = home.plane.keeping.backups.state(backup, 30.0)
    assert state.state == "done", state.error
    return state


def keys_of(home: House) -> dict[str, bytes]:
    return read_folder(home.plane.layout.keys)


def silent(_text: str, _done: int, _total: int) -> None:
    """No progress."""


def restored(home: House, folder: Path, target: Path) -> Any:
    return restore(Restoring(folder, keys_of(home), target), silent)


def test_every_acknowledged_change_is_there(home: House, tmp_path: Path) -> None:
    token = home.plane.identity.grant(home.owner, home.risk, 5).id
    state = taken(home, tmp_path / "backups")
    later = home.plane.identity.grant(home.owner, home.risk, 5).id
    done = restored(home, tmp_path / "backups", tmp_path / "new")
    with closing(sqlite3.connect(tmp_path / "new" / "falaj.db")) as database:
        tokens = {row[0] for row in database.execute("SELECT id FROM tokens")}
        versions = database.execute("SELECT digest, state FROM versions").fetchall()
        actions = [row[0] for row in database.execute("SELECT action FROM audit_entries ORDER BY idx")]
    assert token in tokens and later not in tokens
    assert versions and state.result is not None and done.log_size == state.result.log_size
    assert actions[-2:] == [HOME_RESTORE.name, "identity.grant"] and actions[done.log_size - 1] == HOME_BACKUP.name


def test_a_token_that_has_expired_is_not_counted_as_valid(home: House, tmp_path: Path) -> None:
    taken(home, tmp_path / "backups")
    valid = restored(home, tmp_path / "backups", tmp_path / "new").tokens
    late = home.plane.identity.grant(home.owner, home.risk, 5).id
    ended = text("UPDATE tokens SET expires_at = '2000-01-01T00:00:00.000Z' WHERE id = :id")
    home.plane.database.change(lambda tx: tx.execute(ended, {"id": late}))
    taken(home, tmp_path / "backups")
    assert restored(home, tmp_path / "backups", tmp_path / "newer").tokens == valid


def test_no_private_key_and_no_token_is_in_a_backup(home: House, tmp_path: Path) -> None:
    taken(home, tmp_path / "backups")
    secrets = [*keys_of(home).values(), *(p.read_bytes().strip() for p in home.plane.layout.tokens.glob("*"))]
    secrets += [p.read_bytes() for p in home.plane.layout.home.rglob("key.pem")]
    for path in (p for p in (tmp_path / "backups").rglob("*") if p.is_file()):
        data = path.read_bytes()
        assert not any(secret in data for secret in secrets), path
        assert b"PRIVATE KEY" not in data
        assert path.stat().st_mode & 0o077 == 0


def test_every_flipped_byte_is_refused_with_the_file_named(home: House, tmp_path: Path) -> None:
    state = taken(home, tmp_path / "backups")
    folder, chance = tmp_path / "backups", random.Random(7)
    named = {f"{f.sha256[7:]}": f.path for f in _manifest(home, folder).files if f.size}
    objects = sorted(p for p in folder.glob("sealed/*/*") if p.stat().st_size)
    for path in [folder / "backups" / f"{state.id}.json", *chance.sample(objects, min(12, len(objects)))]:
        data = bytearray(path.read_bytes())
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
        whole, _ = path.read_bytes(), path.write_bytes(data)
        with pytest.raises(FalajError) as refused:
            restored(home, folder, tmp_path / "new")
        path.write_bytes(whole)
        assert not (tmp_path / "new").exists()
        if path.name in named:
            assert isinstance(refused.value, Integrity) and refused.value.code == "backup_damaged"
            assert path.name in refused.value.message
    assert restored(home, folder, tmp_path / "new").files == len(_manifest(home, folder).files)
    assert not list(tmp_path.glob(".new*"))


def _manifest(home: House, folder: Path) -> Any:
    key = home.plane.keys.attestation.public_key()
    return reading.read_manifest(folder, "", lambda e: verify_envelope(e, "application/vnd.falaj.backup+json", (key,)))


def test_checking_a_backup_writes_nothing_beside_it(home: House, tmp_path: Path) -> None:
    folder = tmp_path / "backups"
    taken(home, folder)
    before = {p: p.stat().st_mtime_ns for p in (folder, *folder.rglob("*"))}
    manifest = check_backup(folder, keys_of(home), "", silent)
    assert manifest == _manifest(home, folder)
    assert {p: p.stat().st_mtime_ns for p in (folder, *folder.rglob("*"))} == before
    with pytest.raises(Integrity) as refused:
        check_backup(folder, {n: k for n, k in keys_of(home).items() if n != "attestation.pem"}, "", silent)
    assert refused.value.code == "key_missing"


def test_a_missing_file_is_refused(home: House, tmp_path: Path) -> None:
    taken(home, tmp_path / "backups")
    next((tmp_path / "backups").glob("sealed/*/*")).unlink()
    with pytest.raises(Integrity, match="is missing"):
        restored(home, tmp_path / "backups", tmp_path / "new")


def test_half_a_backup_is_none(home: House, tmp_path: Path) -> None:
    taken(home, tmp_path / "backups")
    for path in (tmp_path / "backups" / "backups").glob("*.json"):
        path.unlink()
    with pytest.raises(FalajError) as refused:
        restored(home, tmp_path / "backups", tmp_path / "new")
    assert refused.value.code == "no_backup"


def test_a_second_backup_copies_only_what_is_new(home: House, tmp_path: Path) -> None:
    first, second = taken(home, tmp_path / "backups"), taken(home, tmp_path / "backups")
    assert first.result is not None and second.result is not None
    blobs = sum(p.stat().st_size for p in home.plane.layout.blobs.rglob("*") if p.is_file())
    assert second.result.written <= second.result.bytes - blobs
    assert reading.backups(tmp_path / "backups") == [first.id, second.id]


def test_a_damaged_object_of_an_earlier_backup_is_not_trusted(home: House, tmp_path: Path) -> None:
    taken(home, tmp_path / "backups")
    for path in (tmp_path / "backups").glob("sealed/*/*"):
        path.write_bytes(path.read_bytes()[::-1])
    taken(home, tmp_path / "backups")
    restored(home, tmp_path / "backups", tmp_path / "new")


def test_another_homes_keys_open_nothing(home: House, tmp_path: Path) -> None:
    taken(home, tmp_path / "backups")
    KeyRing(tmp_path / "other")
    with pytest.raises(Integrity) as refused:
        restore(Restoring(tmp_path / "backups", read_folder(tmp_path / "other"), tmp_path / "new"), silent)
    assert refused.value.code == "backup_not_signed"
    assert not (tmp_path / "new").exists()


def test_a_place_that_is_taken_is_left_alone(home: House, tmp_path: Path) -> None:
    taken(home, tmp_path / "backups")
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "mine").write_text("mine", "utf-8")
    with pytest.raises(Conflict) as refused:
        restored(home, tmp_path / "backups", tmp_path / "new")
    assert refused.value.code == "folder_not_empty"
    (tmp_path / "new" / "mine").unlink()
    restored(home, tmp_path / "backups", tmp_path / "new")
    assert (tmp_path / "new" / NOTE).exists()


def test_it_is_no_place_for_a_backup(home: House, tmp_path: Path) -> None:
    for place in (str(home.plane.layout.home / "backups"), "backups", f"{tmp_path}/a\0b"):
        with pytest.raises(Invalid) as refused:
            home.plane.keeping.backups.start(home.owner, place)
        assert refused.value.code == "backup_in_home"
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters" / "dear.txt").write_text("…", "utf-8")
    backup = home.plane.keeping.backups.start(home.owner, str(tmp_path / "letters"))
    error = home.plane.keeping.backups.state(backup, 30.0).error
    assert error is not None and error["code"] == "folder_not_empty"


def test_only_an_administrator_takes_one(home: House, tmp_path: Path) -> None:
    with pytest.raises(FalajError) as refused:
        home.plane.keeping.backups.start(home.author, str(tmp_path / "backups"))
    assert refused.value.code == "denied_by_policy"
    assert not (tmp_path / "backups").exists()


def test_changes_go_on_while_it_is_taken(home: House, tmp_path: Path) -> None:
    stop, granted = threading.Event(), []

    def grant() -> None:
        while not stop.is_set():
            granted.append(home.plane.identity.grant(home.owner, home.risk, 5).id)

    thread = threading.Thread(target=grant)
    thread.start()
    try:
        before = list(granted)
        taken(home, tmp_path / "backups")
    finally:
        stop.set()
        thread.join()
    restored(home, tmp_path / "backups", tmp_path / "new")
    with closing(sqlite3.connect(tmp_path / "new" / "falaj.db")) as database:
        tokens = {row[0] for row in database.execute("SELECT id FROM tokens")}
    assert set(before) <= tokens and len(granted) > len(before)


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("keys/log.pem", False), ("tokens/owner", False), ("plane/key.pem", False), ("plane/last-good.json", False),
        ("environments/staging/plane/key.pem", False), ("falaj.db-wal", False), ("falaj-schema-0001.db", False),
        ("tmp/x/model.onnx", False), ("parcels/tab_x", False), ("blobs/ab/.abc.1234", False),
        ("plane/journal/a.seg", True), ("plane/journal/a.salts", True), ("plane/guard.json", True), ("clock.json", True),
        ("environments/staging/plane/journal/a.seg", True), ("blobs/ab/abc", True), ("projects/x/flights.py", True),
        ("lake/datasets/f/_delta_log/00000000000000000000.json", True), ("something/that/comes/later.bin", True),
    ],
)  # fmt: skip
def test_what_is_kept(name: str, wanted: bool) -> None:
    assert layout.kept(name) is wanted


def test_a_log_with_a_gap_ends_before_it(tmp_path: Path) -> None:
    log = tmp_path / "lake" / "datasets" / "f" / "_delta_log"
    log.mkdir(parents=True)
    for version in (0, 1, 3):
        (log / f"{version:020d}.json").write_text("{}", "utf-8")
    (log / f"{3:020d}.checkpoint.parquet").write_text("x", "utf-8")
    assert [Path(n).name[18:20] for n in layout.files(tmp_path, 1)] == ["00", "01"]
    shutil.rmtree(log)
