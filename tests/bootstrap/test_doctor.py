"""Planted damages: each is found by its name, and what can be mended safely is."""

from __future__ import annotations

import json
import os
import shutil
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import timedelta
from pathlib import Path
from shlex import quote

import msgspec
import pytest

from falaj.bootstrap.control_plane import ControlPlane
from falaj.bootstrap.doctor import examining, folder, machine, planes, stores, truth
from falaj.bootstrap.doctor.examining import CHECKS, examine
from falaj.bootstrap.doctor.mending import mend, wants_opening
from falaj.bootstrap.doctor.model import BROKEN, NOTE, PROBLEM, WELL, Check, Patient, Report
from falaj.bootstrap.keeping.restoring import Note
from falaj.entrypoints.cli.client import connect
from falaj.governance.audit.model import Stored
from falaj.governance.audit.publisher import Publisher, all_rows
from falaj.governance.audit.service import AuditService
from falaj.governance.audit.store import SqlAuditStore
from falaj.governance.door import Event
from falaj.governance.signing.keys import KeyRing
from falaj.kernel import locks
from falaj.kernel.clock import HomeClock, parse_iso, set_replay
from falaj.kernel.settings import Settings
from falaj.storage.blobs.local import blob_path
from falaj.storage.sql.database import Tx
from falaj.storage.sql.sqlite import SqliteDatabase
from tests.homes import unpacked

LIGHT = tuple(c for c in CHECKS if c is not machine.libraries)  # it starts a process with every heavy library


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home of the first release, with its rights set and a log that all can see is signed."""
    project, _ = unpacked("0.1.0", tmp_path_factory.mktemp("pristine"))
    home = project / ".falaj"
    home.chmod(0o700)
    return home


@pytest.fixture
def home(pristine: Path, tmp_path: Path) -> Path:
    """A copy to damage."""
    copied = tmp_path / "home"
    shutil.copytree(pristine, copied)
    return copied


def look(home: Path, *checks: Check, deep: bool = False, port: int = 0) -> dict[str, str]:
    """What these checks find, by name: its level."""
    patient = Patient(Settings(home=home, project=home.parent, port=port), deep=deep)
    return {f.name: f.level for check in checks for f in check(patient)}


def sql(home: Path, statement: str, *values: object, name: str = "falaj.db") -> None:
    with closing(sqlite3.connect(home / name)) as database, database:
        database.execute(statement, values)


def one(home: Path, query: str) -> str:
    with closing(sqlite3.connect(home / "falaj.db")) as database:
        return str(database.execute(query).fetchone()[0])


def flip(path: Path, place: int) -> None:
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)


def files_of(home: Path) -> dict[str, bytes]:
    passing = ("-wal", "-shm", "lock.mdb")
    return {str(p): p.read_bytes() for p in home.rglob("*") if p.is_file() and not p.name.endswith(passing)}


def test_a_home_that_is_well_is_left_as_it_is(home: Path) -> None:
    before = files_of(home)
    report = examine(Settings(home=home, project=home.parent), deep=True)
    assert [f for f in report.findings if f.level in (PROBLEM, BROKEN)] == []
    assert report.exit_code == 0 and {f.check for f in report.findings} > {"audit", "keys", "blobs", "lake", "machine"}
    assert all(f.hint for f in report.findings if f.level == NOTE)
    assert files_of(home) == before


def _blob(home: Path) -> Path:
    return blob_path(home / "blobs", one(home, "SELECT envelope FROM statements"))


LOST = f"sha256:{'0' * 64}"


def _lost_waiver(home: Path) -> None:
    sql(home, "CREATE TABLE imports (id, files, artifacts, state)")
    sql(home, "CREATE TABLE waivers (id, statement)")
    sql(home, "INSERT INTO waivers VALUES ('wvr_0', '')")  # one that nobody has signed names no blob
    sql(home, "INSERT INTO waivers VALUES ('wvr_1', ?)", LOST)


def _lost_import(home: Path) -> None:
    _lost_waiver(home)
    sql(home, "DELETE FROM waivers")
    file = {"path": "m.onnx", "size": 1, "sha256": LOST}
    sql(home, "INSERT INTO imports VALUES ('imp_1', ?, '{}', 'finished')", json.dumps([file]))


def _lost_reference(home: Path) -> None:
    sql(home, "CREATE TABLE external_models (name, contract, profile)")
    sql(home, "INSERT INTO external_models VALUES ('bought', (SELECT envelope FROM statements), ?)", LOST)


def _damaged_database(home: Path) -> None:
    path = home / "falaj.db"
    data = bytearray(path.read_bytes())
    data[4096 * 3 : 4096 * 6] = b"\x55" * (4096 * 3)
    path.write_bytes(data)


def _exchanged_key(home: Path) -> None:
    shutil.copyfile(home / "keys" / "dev.pem", home / "keys" / "log.pem")


def _exchanged_kek(home: Path) -> None:
    (home / "keys" / "kek.bin").write_bytes(b"\x07" * 32)


def _moved_clock(home: Path) -> None:
    set_replay(home, parse_iso("2012-01-01T00:00:00Z"))


def _late(days: int) -> Callable[[Path], None]:
    def plant(home: Path) -> None:
        set_replay(home, parse_iso("2013-01-27T06:30:00Z") + timedelta(days=days))

    return plant


def _stuck_flow(home: Path) -> None:
    old = int((time.time() - 3 * 86_400) * 1000)
    sql(home, "UPDATE workflow_status SET status = 'PENDING', updated_at = ?", old, name="flows.db")


def _old_temporary(home: Path) -> None:
    path = home / "blobs" / "ab" / f".{'ab' * 32}.1234"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"half")
    os.utime(path, (0, 0))


def _twin(home: Path) -> None:
    twin = home.parent / "twin"
    twin.mkdir()
    assert locks.take(twin / "lock") is not None  # held until this process ends
    note = Note("bak_x", "2013-01-01T00:00:00Z", str(twin), socket.gethostname(), 1)
    (home / "restored.json").write_bytes(msgspec.json.encode(note))


DAMAGES: tuple[tuple[str, str, Check, Callable[[Path], object], bool], ...] = (
    ("open_to_others", PROBLEM, folder.rights, lambda h: (h / "keys" / "log.pem").chmod(0o644), False),
    ("two_homes", PROBLEM, folder.twin, _twin, False),
    ("left_over", PROBLEM, folder.left_over, _old_temporary, False),
    ("rotation_cut_short", PROBLEM, folder.successors, lambda h: shutil.copyfile(h / "keys" / "dev.pem", h / "keys" / ".dev.next"), False),
    ("database_missing", BROKEN, truth.databases, lambda h: (h / "metrics.db").unlink(), False),
    ("database_damaged", BROKEN, truth.databases, _damaged_database, False),
    ("home_is_newer", PROBLEM, truth.schema, lambda h: sql(h, "UPDATE alembic_version SET version_num = '9999'"), False),
    ("key_missing", BROKEN, truth.keys, lambda h: (h / "keys" / "model.pem").unlink(), False),
    ("keys_missing", BROKEN, truth.keys, lambda h: shutil.rmtree(h / "keys"), False),
    ("key_of_another_home", BROKEN, truth.keys, _exchanged_key, False),
    ("key_of_another_home", BROKEN, truth.keys, _exchanged_kek, False),
    ("log_broken", BROKEN, truth.audit_log, lambda h: sql(h, "UPDATE audit_entries SET principal = 'x' WHERE idx = 3"), False),
    ("log_broken", BROKEN, truth.audit_log, lambda h: flip(next(h.glob("audit/tile/entries/*.p/*")), 99), False),
    ("log_broken", BROKEN, truth.audit_log, lambda h: sql(h, "DELETE FROM audit_entries WHERE idx = 41"), False),
    ("log_broken", BROKEN, truth.audit_log, lambda h: (h / "audit" / "vkey").unlink(), False),
    ("blob_missing", BROKEN, truth.blobs, lambda h: _blob(h).unlink(), False),
    ("blob_missing", BROKEN, truth.blobs, _lost_waiver, False),
    ("blob_missing", BROKEN, truth.blobs, _lost_import, False),
    ("blob_missing", BROKEN, truth.blobs, _lost_reference, False),
    ("blob_broken", BROKEN, truth.blobs, lambda h: _blob(h).write_bytes(b"FJB1"), False),
    ("blob_broken", BROKEN, truth.blobs, lambda h: flip(_blob(h), 200), True),
    ("lake_version_missing", BROKEN, stores.lake, lambda h: next(h.glob("lake/datasets/*/_delta_log/*1.json")).unlink(), False),
    ("lake_file_missing", BROKEN, stores.lake, lambda h: next(h.glob("lake/datasets/*/*.parquet")).unlink(), False),
    ("lake_file_missing", BROKEN, stores.lake, lambda h: flip(next(h.glob("lake/datasets/*/*.parquet")), 0), True),
    ("online_store_missing", PROBLEM, stores.online, lambda h: shutil.rmtree(h / "online"), False),
    ("segment_broken", BROKEN, stores.journal, lambda h: next(h.glob("plane/journal/*.salts")).unlink(), False),
    ("segment_broken", BROKEN, stores.journal, lambda h: flip(min(h.glob("plane/journal/*.seg")), 300), True),
    ("segment_damaged", BROKEN, stores.journal, lambda h: flip(max(h.glob("plane/journal/*.seg")), 0), False),
    ("bundle_not_published", PROBLEM, planes.bundles, lambda h: (h / "plane" / "bundle.json").unlink(), False),
    ("not_sealed_to_me", PROBLEM, planes.bundles, lambda h: (h / "plane" / "key.pem").unlink(), False),
    ("trust_root_missing", PROBLEM, planes.bundles, lambda h: (h / "plane" / "trust.json").unlink(), False),
    ("guard_unreadable", PROBLEM, planes.bundles, lambda h: (h / "plane" / "guard.json").write_bytes(b"{"), False),
    ("guard_unreadable", PROBLEM, planes.bundles, lambda h: (h / "plane" / "guard.json").write_bytes(b'["\xff"]'), False),
    ("admission_expired", PROBLEM, planes.bundles, _late(4000), False),
    ("flow_stuck", PROBLEM, planes.flows, _stuck_flow, False),
    ("clock_behind", PROBLEM, planes.clock, _moved_clock, False),
    ("clock_unreadable", BROKEN, planes.clock, lambda h: (h / "clock.json").write_bytes(b"{"), False),
    ("no_administrator", PROBLEM, planes.tokens, lambda h: sql(h, "UPDATE tokens SET revoked_at = 'now'"), False),
    ("token_ends_soon", PROBLEM, planes.tokens, lambda h: sql(h, "UPDATE tokens SET expires_at = '2013-02-01T00:00:00.000Z'"), False),
)  # fmt: skip


@pytest.mark.parametrize(
    ("name", "level", "check", "plant", "deep"), DAMAGES, ids=lambda v: v if isinstance(v, str) else ""
)
def test_a_damage_is_found_by_its_name(
    home: Path, name: str, level: str, check: Check, plant: Callable[[Path], object], deep: bool
) -> None:
    assert set(look(home, check, deep=deep).values()) <= {WELL, NOTE}
    plant(home)
    found = look(home, check, deep=deep)
    assert found.get(name) == level, found


def test_an_import_that_failed_may_name_what_never_came(home: Path) -> None:
    _lost_import(home)
    sql(home, "UPDATE imports SET state = 'failed'")
    assert look(home, truth.blobs) == {"blobs": WELL}


def test_a_log_that_is_published_while_it_is_looked_at_is_well(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tiles that the checkpoint named a moment ago are outgrown, and taken away, before they are read."""
    database = SqliteDatabase(home / "falaj.db")
    log = KeyRing(home / "keys").log
    publisher = Publisher(database, SqlAuditStore(), home / "audit", log, "falaj.local/audit", HomeClock(home))
    audit, moved = AuditService(database, SqlAuditStore(), publisher), list[int]()
    event = Event(HomeClock(home).now(), "owner", "x", "Home", "*", "done", "op")

    def while_looking(store: SqlAuditStore, tx: Tx, first: int, end: int | None) -> Iterator[Stored]:
        if not moved:
            database.change(lambda own: audit.record_many(own, [event] * 300))
            moved.append(publisher.publish().size)
        yield from all_rows(store, tx, first, end)

    monkeypatch.setattr(truth, "all_rows", while_looking)
    try:
        found = look(home, truth.audit_log)
    finally:
        database.close()
    assert (found, len(moved)) == ({"audit": WELL}, 1)


def test_a_home_in_ruins_is_still_told_about(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(examining, "CHECKS", LIGHT)
    _damaged_database(home)
    shutil.rmtree(home / "keys")
    (home / "clock.json").write_bytes(b"{")
    report = examine(Settings(home=home, project=home.parent))
    assert report.exit_code == 4
    assert {"database_damaged", "keys_missing", "clock_unreadable", "check_failed"} <= {f.name for f in report.findings}
    assert all(f.hint for f in report.findings if f.level != WELL)


def test_there_is_no_home(tmp_path: Path) -> None:
    report = examine(Settings(home=tmp_path / "nothing", project=tmp_path))
    assert [f.name for f in report.findings] == ["no_home"] and report.exit_code == 1
    assert not (tmp_path / "nothing").exists()


def test_a_home_that_another_process_has_open_is_told(home: Path) -> None:
    assert look(home, folder.lock) == {"lock": WELL}
    with _held(home / "lock"):
        assert look(home, folder.lock) == {"lock_held": PROBLEM}


def test_a_port_that_is_taken_is_told(home: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        assert look(home, folder.ports, port=other.getsockname()[1]) == {"port_taken": PROBLEM}


@pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="this system does not show processes")
def test_a_process_that_nobody_waits_for_is_told(home: Path) -> None:
    script = (
        f"exec -a x {quote(sys.executable)} -c 'import time; time.sleep(60)' falaj.entrypoints.step {quote(str(home))}"
    )
    started = subprocess.run(
        ["bash", "-c", f"({script}) >/dev/null 2>&1 & echo $!"], capture_output=True, text=True, check=True
    )
    pid = int(started.stdout)
    try:
        deadline = time.monotonic() + 10
        while look(home, folder.processes) != {"orphan_process": PROBLEM}:
            assert time.monotonic() < deadline, look(home, folder.processes)
            time.sleep(0.05)
    finally:
        os.kill(pid, 9)


def test_what_is_safe_is_mended(home: Path) -> None:
    (home / "keys" / "log.pem").chmod(0o644)
    home.chmod(0o755)
    _old_temporary(home)
    (home / "plane" / "bundle.json").unlink()
    checks = (folder.rights, folder.left_over, planes.bundles)
    patient = Patient(Settings(home=home, project=home.parent), deep=False)
    report = Report(str(home), tuple(f for check in checks for f in check(patient)))
    assert len(mend(report)) == 3 and wants_opening(report)
    assert set(look(home, *checks)) & {"open_to_others", "left_over"} == set()


@pytest.mark.parametrize("name", ["production", "log", "kek"])
@pytest.mark.parametrize("committed", [False, True], ids=["before the commit", "after the commit"])
def test_a_rotation_that_was_cut_short_is_finished_and_not_removed(
    tmp_path: Path, name: str, committed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process is killed between the commit and the rename: the successor is the only copy of the key that holds."""
    settings = Settings(home=tmp_path / "left", project=tmp_path)
    plane = ControlPlane(Settings(home=tmp_path / "home", project=tmp_path))
    plane.start()
    owner = plane.identity.principal("owner")
    rotate: dict[str, Callable[[], object]] = {
        "production": lambda: plane.signing.rotate(owner, "production", "a new year"),
        "log": lambda: plane.log_keys.rotate(owner, "a new year"),
        "kek": lambda: plane.store_keys.rotate(plane.door, owner, "a new year"),
    }

    def crash(*_: object, **__: object) -> None:
        shutil.copytree(tmp_path / "home", settings.home)  # as it would lie there if the process were gone now
        raise KeyboardInterrupt

    for part in (plane.keys, plane.store_keys._keks):
        monkeypatch.setattr(part, "take_over", crash)
    monkeypatch.setattr(plane.publisher, "take_over", crash)
    if not committed:
        monkeypatch.setattr(plane.door, "change", crash)
    with pytest.raises(KeyboardInterrupt):
        rotate[name]()
    monkeypatch.undo()
    plane.close()
    (waiting,) = settings.home.glob("keys/.*.next")
    successor = waiting.read_bytes()
    os.utime(waiting, (0, 0))  # as left over as a file can be

    patient = Patient(settings, deep=False)
    report = Report(
        str(settings.home), tuple(f for check in (folder.left_over, folder.successors) for f in check(patient))
    )
    (found,) = report.findings
    assert (found.name, found.path) == ("rotation_cut_short", str(waiting)) and wants_opening(report)
    assert mend(report) == [] and waiting.read_bytes() == successor, "only an open home knows whose turn it is"
    with connect(settings) as client:  # what `--mend` does then
        client.get("/api/v1/status")
    assert look(settings.home, folder.left_over, folder.successors) == {}
    assert not list(settings.home.glob("keys/.*.next"))
    holds = settings.home / "keys" / ("kek.bin" if name == "kek" else f"{name}.pem")
    assert (holds.read_bytes() == successor) is committed
    assert look(settings.home, truth.keys, truth.audit_log, truth.blobs).keys() <= {"keys", "audit", "blobs"}


@contextmanager
def _held(path: Path) -> Iterator[None]:
    """Another process that has a lock."""
    code = "import fcntl, os, sys; f = open(sys.argv[1], 'w'); fcntl.flock(f, fcntl.LOCK_EX); print('held', flush=True); sys.stdin.read()"
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", code, str(path)], stdin=pipe, stdout=pipe, text=True) as process:
        assert process.stdin is not None and process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield
        process.stdin.close()
