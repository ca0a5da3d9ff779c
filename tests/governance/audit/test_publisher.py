from __future__ import annotations

import shutil
import time
from collections.abc import Callable

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from falaj.governance.audit import merkle, note, publisher, tiles
from falaj.governance.audit.publisher import Publisher
from falaj.governance.audit.verify import verify_folder
from falaj.kernel.errors import Integrity, Unavailable
from tests.governance.audit.support import ORIGIN, Log


def eventually(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.01)


def signed(log: Log) -> note.Checkpoint:
    return note.open_checkpoint((log.folder / "checkpoint").read_bytes(), note.parse_vkey(log.publisher.vkey))


def leaves(log: Log) -> list[bytes]:
    return [merkle.leaf_hash(row.data) for row in log.database.read(lambda tx: log.store.entries(tx, 0, 10**6))]


def edit(log: Log, index: int) -> None:
    """Change a row as a careful forger does: bytes, leaf and column agree with each other."""
    row = log.database.read(lambda tx: log.store.entries(tx, index, 1))[0]
    data = row.data.replace(b'"owner"', b'"other"')
    log.sql(
        "UPDATE audit_entries SET data=?, leaf=?, principal='other' WHERE idx=?", data, merkle.leaf_hash(data), index
    )


def test_an_empty_log_has_a_checkpoint(log: Log) -> None:
    assert log.publisher.publish().size == 0
    assert signed(log).root == merkle.EMPTY_ROOT
    assert verify_folder(log.folder, log.publisher.vkey).ok


def test_growing_over_tile_borders_with_restarts(log: Log) -> None:
    sizes = []
    for step in (1, 3, 251, 1, 1, 300, 255, 700, 0, 1):
        log.append(step)
        published = log.publisher.publish()
        sizes.append(published.size)
        report = verify_folder(log.folder, log.publisher.vkey)
        assert (report.ok, report.size, report.root, report.problems) == (True, published.size, published.root, ())
        assert signed(log).root == merkle.root_from_leaves(leaves(log))
        if step % 2:
            log.restart()
    assert sizes[-1] == 1513
    assert set(log.files()) == {"checkpoint", "vkey", "head", *tiles.paths(1513)}


def test_every_checkpoint_extends_the_one_before(log: Log) -> None:
    before = None
    for step in (1, 1, 6, 100, 200, 17):
        log.append(step)
        log.publisher.publish()
        now = signed(log)
        if before:
            proof = merkle.consistency_proof(merkle.nodes_of(leaves(log)), before.size, now.size)
            merkle.verify_consistency(before.size, now.size, before.root, now.root, proof)
        before = now


def test_a_long_backlog_is_signed_in_rounds(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publisher, "ROUND", 300)
    log.append(1000)
    assert log.publisher.publish().size == 1000
    log.restart()
    assert log.publisher.publish().size == 1000
    assert log.service.verify().ok


def test_nothing_new_writes_nothing(log: Log) -> None:
    log.append(5)
    first = log.publisher.publish()
    stamps = {p: p.stat().st_mtime_ns for p in log.folder.rglob("*")}
    assert log.publisher.publish() == first
    assert {p: p.stat().st_mtime_ns for p in log.folder.rglob("*")} == stamps


def test_background_publishing(log: Log) -> None:
    log.publisher.start()
    eventually((log.folder / "checkpoint").exists)
    log.append(3)
    eventually(lambda: log.publisher.signed_size == 3)
    log.append(300)
    eventually(lambda: log.publisher.signed_size == 303)
    log.append(1)
    log.publisher.stop()
    assert signed(log).size == 304
    assert log.publisher.failure is None


def test_what_another_process_committed_is_found_without_a_poke(log: Log) -> None:
    log.publisher.start()
    eventually((log.folder / "checkpoint").exists)
    running = log.publisher
    log.restart()
    log.append(2)  # pokes the new publisher, which has no thread
    eventually(lambda: signed(log).size == 2)
    running.stop()


@pytest.mark.parametrize("index", [0, 255, 256, 300])
def test_an_edited_row_is_never_signed_over(log: Log, index: int) -> None:
    log.append(301)
    log.publisher.publish()
    before = log.files()
    edit(log, index)
    log.append(1)
    log.restart()
    with pytest.raises(Integrity, match=f"entry {index}: its bytes in the database"):
        log.publisher.publish()
    assert log.files() == before


def test_an_edit_in_the_last_tile_is_seen_without_a_restart(log: Log) -> None:
    log.append(301)
    log.publisher.publish()
    before = log.files()
    edit(log, 299)
    log.append(1)
    with pytest.raises(Integrity, match="entry 299 was changed"):
        log.publisher.publish()
    assert log.files() == before
    assert isinstance(log.publisher.failure, Integrity)


def test_the_background_stops_at_a_fork_and_says_so(log: Log) -> None:
    log.append(3)
    log.publisher.publish()
    edit(log, 1)
    log.publisher.start()
    log.append(1)
    eventually(lambda: log.publisher.failure is not None)
    log.publisher.stop()
    assert signed(log).size == 3


def test_a_database_from_an_older_backup_is_refused(log: Log) -> None:
    log.append(3)
    log.database.close()
    shutil.copy(log.home / "falaj.db", log.home / "backup")
    log.open()
    log.append(4)
    log.publisher.publish()
    before = log.files()
    log.database.close()
    shutil.copy(log.home / "backup", log.home / "falaj.db")
    log.open()
    with pytest.raises(Integrity, match="does not hold every entry"):
        log.publisher.publish()
    log.clock.shows = log.clock.shows.replace(year=2027)
    log.append(10)  # grown past the signed size again, with another history
    with pytest.raises(Integrity, match="do not give the root that was signed at 7"):
        log.publisher.publish()
    assert log.files() == before


def test_a_shrunken_database_is_refused_while_running(log: Log) -> None:
    log.append(5)
    log.publisher.publish()
    log.sql("DELETE FROM audit_entries WHERE idx = 4")
    log.sql("UPDATE audit_head SET size = 4")
    with pytest.raises(Integrity, match="holds 4 entries, but 5 were signed"):
        log.publisher.publish()


def test_a_missing_row_is_refused(log: Log) -> None:
    log.append(5)
    log.sql("DELETE FROM audit_entries WHERE idx = 2")
    with pytest.raises(Integrity, match="does not hold every entry"):
        log.publisher.publish()


def test_a_foreign_checkpoint_in_the_folder_stops_signing(log: Log) -> None:
    log.append(5)
    log.publisher.publish()
    fork = note.sign(note.Checkpoint(ORIGIN, 6, bytes(32)).text, [(ORIGIN, log.key)])
    (log.folder / "checkpoint").write_bytes(fork)
    log.append(5)
    with pytest.raises(Integrity, match="not the one that was signed last"):
        log.publisher.publish()
    log.restart()
    with pytest.raises(Integrity, match="do not belong together"):
        log.publisher.publish()
    (log.folder / "head").unlink()
    with pytest.raises(Integrity, match="do not give the root that was signed at 6"):
        log.publisher.publish()
    assert (log.folder / "checkpoint").read_bytes() == fork


def test_another_key_or_origin_is_refused(log: Log) -> None:
    log.append(1)
    log.publisher.publish()
    for key, origin in ((Ed25519PrivateKey.generate(), ORIGIN), (log.key, "other.example/log")):
        other = Publisher(log.database, log.store, log.folder, key, origin, log.clock)
        with pytest.raises(Integrity, match="another key or origin"):
            other.publish()
    (log.folder / "vkey").unlink()
    log.restart()
    with pytest.raises(Integrity, match="no verification key"):
        log.publisher.publish()


def test_a_crash_before_the_checkpoint_is_finished_to_the_same_tree(log: Log) -> None:
    log.append(5)
    log.publisher.publish()
    at_five = (log.folder / "checkpoint").read_bytes()
    log.append(4)
    log.publisher.publish()
    at_nine = log.files()
    (log.folder / "checkpoint").write_bytes(at_five)  # the state in which the crash left it: head 9, checkpoint 5
    log.append(3)
    log.restart()
    assert log.publisher.publish().size == 12
    edit(log, 7)
    for name, data in at_nine.items():
        (log.folder / name).parent.mkdir(parents=True, exist_ok=True)
        (log.folder / name).write_bytes(data)
    (log.folder / "checkpoint").write_bytes(at_five)
    log.restart()
    with pytest.raises(Integrity, match="root of the head that was persisted at 9"):
        log.publisher.publish()
    assert (log.folder / "checkpoint").read_bytes() == at_five


def test_a_folder_that_cannot_be_written_is_not_tried_again_in_this_process(log: Log) -> None:
    log.append(2)
    log.publisher.publish()
    obstacle = log.folder / "tile/0/000.p/3"
    obstacle.mkdir()
    log.append(1)
    with pytest.raises(Unavailable, match="cannot be written"):
        log.publisher.publish()
    obstacle.rmdir()
    with pytest.raises(Unavailable, match="cannot be written"):
        log.publisher.publish()
    assert signed(log).size == 2
    log.restart()
    assert log.publisher.publish().size == 3
    assert verify_folder(log.folder, log.publisher.vkey).ok
