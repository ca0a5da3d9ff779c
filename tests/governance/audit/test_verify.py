from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import falaj
from falaj.governance.audit import merkle, note, tiles
from falaj.governance.audit.model import Report
from falaj.governance.audit.publisher import all_rows
from falaj.governance.audit.verify import verify_database_entries, verify_folder
from tests.governance.audit.support import Log

Logs = Callable[[int], Log]


def copied(source: Log, to: Path) -> Path:
    shutil.copytree(source.folder, to)
    return to


def flip(path: Path, at: int, mask: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= mask
    path.write_bytes(bytes(data))


def rows_against_tiles(log: Log) -> Report:
    return log.database.read(
        lambda tx: verify_database_entries(all_rows(log.store, tx), log.folder, log.publisher.vkey)
    )


def test_a_good_folder(small_log: Logs) -> None:
    for size in (0, 1, 255, 256, 257, 600):
        log = small_log(size)
        report = verify_folder(log.folder, log.publisher.vkey)
        assert (report.ok, report.size, report.problems) == (True, size, ())
        assert report.checked_bytes == sum(len(data) for data in log.files().values())
        assert verify_folder(log.folder, None).ok


@pytest.mark.parametrize("trusted", [True, False])
def test_every_flipped_byte_of_every_file_is_found(small_log: Logs, tmp_path: Path, trusted: bool) -> None:
    log = small_log(3)
    folder = copied(log, tmp_path / "audit")
    vkey = log.publisher.vkey if trusted else None
    for name, data in log.files().items():
        if name.startswith("tile") and not trusted:
            continue  # what is checked there does not depend on where the key came from
        for at in range(len(data)):
            for mask in (1 << at % 8,) if name.startswith("tile") else (1 << at % 8, 0x20):  # 0x20: a letter's case
                flip(folder / name, at, mask)
                report = verify_folder(folder, vkey)
                assert not report.ok, f"byte {at} of {name} xor {mask:#x}"
                assert report.problems
                flip(folder / name, at, mask)
    assert verify_folder(folder, vkey).ok


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_a_flipped_byte_in_a_log_of_two_levels_is_found(small_log: Logs, data: st.DataObject) -> None:
    log = small_log(600)
    files = log.files()
    name = data.draw(st.sampled_from(sorted(files)))
    at = data.draw(st.integers(0, len(files[name]) - 1))
    mask = data.draw(st.integers(1, 255))
    flip(log.folder / name, at, mask)
    try:
        report = verify_folder(log.folder, log.publisher.vkey)
    finally:
        flip(log.folder / name, at, mask)
    assert not report.ok
    if name.startswith("tile"):
        assert any(name in text or text.startswith("entry ") for text in report.problems)


def test_the_changed_entry_is_named(small_log: Logs, tmp_path: Path) -> None:
    log = small_log(600)
    folder = copied(log, tmp_path / "audit")
    bundle = folder / "tile/entries/000"
    entries, _ = tiles.decode_entries(bundle.read_bytes())
    entries[17] = entries[17].replace(b'"owner"', b'"other"')
    bundle.write_bytes(tiles.encode_entries(entries))
    assert verify_folder(folder, log.publisher.vkey).problems == (
        "entry 17: its bytes in tile/entries/000 do not give the leaf hash in tile/0/000",
        "the tiles give the signed root: the entries were changed, not the tiles",
    )
    tile = folder / "tile/0/000"
    tile.write_bytes(b"".join(merkle.leaf_hash(entry) for entry in entries))
    assert verify_folder(folder, log.publisher.vkey).problems == (
        "tile/1/000.p/2: hash 0 is not the root of tile/0/000",
        "neither the entries nor the tiles give the root that checkpoint signs",
    )


def test_the_changed_tile_is_named(small_log: Logs, tmp_path: Path) -> None:
    log = small_log(600)
    folder = copied(log, tmp_path / "audit")
    flip(folder / "tile/0/001", 32 * 9, 1)
    assert verify_folder(folder, log.publisher.vkey).problems == (
        "entry 265: its bytes in tile/entries/001 do not give the leaf hash in tile/0/001",
        "tile/1/000.p/2: hash 1 is not the root of tile/0/001",
        "the entries give the signed root: the tiles were changed, not the entries",
    )


def test_each_missing_file_is_found(small_log: Logs, tmp_path: Path) -> None:
    log = small_log(600)
    folder = copied(log, tmp_path / "audit")
    for name, data in log.files().items():
        (folder / name).unlink()
        problems = verify_folder(folder, log.publisher.vkey).problems
        assert f"{name}: it is missing" in problems
        (folder / name).write_bytes(data)
    assert verify_folder(folder, log.publisher.vkey).ok


@pytest.mark.parametrize(
    "name",
    [
        "note.txt",
        "tile/0/003",
        "tile/0/002.p/200",
        "tile/0/001.p/7",
        "tile/entries/000.p/3",
        "tile/2/000.p/1",
        "tile/0/000.p/300",
        "tile/0/000.p/0",
        "checkpoint.new",
        ".hidden",
    ],
)
def test_each_surplus_file_is_found(small_log: Logs, tmp_path: Path, name: str) -> None:
    folder = copied(small_log(600), tmp_path / "audit")
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(b"x" * 32)
    (problem,) = verify_folder(folder, None).problems
    assert problem.startswith(f"{name}: it does not belong to this log")
    assert ("interrupted" in problem) == (name == "checkpoint.new")


def test_links_are_not_files_of_the_log(small_log: Logs, tmp_path: Path) -> None:
    log = small_log(600)
    folder = copied(log, tmp_path / "audit")
    (folder / "link").symlink_to(tmp_path)
    (folder / "tile/0/000").unlink()
    (folder / "tile/0/000").symlink_to(log.folder / "tile/0/000")
    problems = verify_folder(folder, log.publisher.vkey).problems
    assert "link: it does not belong to this log" in problems
    assert "tile/0/000: it is missing" in problems


def test_an_older_partial_tile_may_stay_if_it_is_true(small_log: Logs, tmp_path: Path) -> None:
    folder = copied(small_log(600), tmp_path / "audit")
    whole = (folder / "tile/0/002.p/88").read_bytes()
    (folder / "tile/0/002.p/7").write_bytes(whole[: 7 * 32])
    assert verify_folder(folder, None).ok
    flip(folder / "tile/0/002.p/7", 40, 1)
    assert verify_folder(folder, None).problems == ("tile/0/002.p/7: it does not belong to this log",)


def test_a_folder_signed_by_another_key_is_refused(small_log: Logs, tmp_path: Path) -> None:
    log = small_log(5)
    other = Ed25519PrivateKey.from_private_bytes(bytes(32))
    folder = copied(log, tmp_path / "audit")
    verifier = note.verifier_of("falaj.example/log", other.public_key())
    checkpoint = note.parse_checkpoint((folder / "checkpoint").read_text("utf-8").rpartition("\n\n")[0] + "\n")
    (folder / "vkey").write_text(verifier.vkey + "\n", "utf-8")
    (folder / "checkpoint").write_bytes(note.sign(checkpoint.text, [("falaj.example/log", other)]))
    assert verify_folder(folder, None).ok
    assert verify_folder(folder, log.publisher.vkey).problems == (
        "vkey: it is not the trusted key",
        "checkpoint: no signature by a known key",
    )


def test_a_huge_signed_size_ends_soon(small_log: Logs, tmp_path: Path) -> None:
    log = small_log(5)
    folder = copied(log, tmp_path / "audit")
    text = note.Checkpoint("falaj.example/log", 10**18, bytes(32)).text
    (folder / "checkpoint").write_bytes(note.sign(text, [("falaj.example/log", log.key)]))
    assert "the rest is not listed" in verify_folder(folder, log.publisher.vkey).problems[-1]


def test_nothing_there(tmp_path: Path, small_log: Logs) -> None:
    assert verify_folder(tmp_path / "none", None).problems == ("vkey: it is missing",)
    report = verify_folder(tmp_path, small_log(5).publisher.vkey)
    assert report.problems == ("vkey: it is missing", "checkpoint: it is missing")
    assert (report.ok, report.size, report.root) == (False, 0, "")


def test_rows_that_agree(log: Log) -> None:
    log.append(600)
    log.publisher.publish()
    log.append(3)
    report = rows_against_tiles(log)
    assert (report.ok, report.size, report.problems) == (True, 600, ())


@pytest.mark.parametrize(
    ("statement", "problems"),
    [
        (
            "UPDATE audit_entries SET data = CAST(replace(CAST(data AS TEXT), 'owner', 'other') AS BLOB),"
            " principal = 'other' WHERE idx = 17",
            ("entry 17: its bytes in the database do not give the leaf hash in tile/0/000",),
        ),
        (
            "UPDATE audit_entries SET data = CAST(replace(CAST(data AS TEXT), 'owner', 'other') AS BLOB),"
            " principal = 'other' WHERE idx = 601",
            ("entry 601: the leaf hash in the database is not that of its bytes",),
        ),
        (
            "UPDATE audit_entries SET data = x'00' WHERE idx = 300",
            (
                "entry 300: its bytes in the database do not give the leaf hash in tile/0/001",
                "entry 300: its bytes in the database are not an audit entry",
            ),
        ),
        (
            "UPDATE audit_entries SET leaf = zeroblob(32) WHERE idx = 599",
            ("entry 599: the leaf hash in the database is not that of its bytes",),
        ),
        (
            "UPDATE audit_entries SET principal = 'nobody' WHERE idx = 5",
            ("entry 5: the column principal in the database is not what its bytes say",),
        ),
        ("DELETE FROM audit_entries WHERE idx = 5", ("entry 5: it is missing in the database",)),
        (
            "DELETE FROM audit_entries WHERE idx > 5 AND idx < 300",
            ("entries 6 to 299: they are missing in the database",),
        ),
        ("UPDATE audit_head SET size = 500", ("entries 500 to 599: they are missing in the database",)),
    ],
)
def test_a_changed_database_is_found_and_named(log: Log, statement: str, problems: tuple[str, ...]) -> None:
    log.append(600)
    log.publisher.publish()
    log.append(3)
    log.sql(statement)
    assert rows_against_tiles(log).problems == problems


def test_rows_given_twice_are_found(log: Log) -> None:
    log.append(3)
    log.publisher.publish()
    rows = log.database.read(lambda tx: log.store.entries(tx, 0, 3))
    report = verify_database_entries([rows[0], rows[0], *rows[1:]], log.folder)
    assert report.problems == ("entry 0: the database holds it twice or out of order",)


def test_rows_are_not_believed_because_the_tiles_were_changed_too(log: Log) -> None:
    log.append(3)
    log.publisher.publish()
    log.sql("UPDATE audit_entries SET data = CAST(replace(CAST(data AS TEXT), 'owner', 'other') AS BLOB) WHERE idx = 1")
    rows = log.database.read(lambda tx: log.store.entries(tx, 0, 3))
    (log.folder / "tile/0/000.p/3").write_bytes(b"".join(merkle.leaf_hash(row.data) for row in rows))
    assert "the leaf hashes in tile/0 do not give the root that checkpoint signs" in rows_against_tiles(log).problems


def test_the_verifier_needs_no_sql() -> None:
    source = Path(falaj.__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-c", "import sys, falaj.governance.audit.verify; print('sqlalchemy' in sys.modules)"],
        env={**os.environ, "PYTHONPATH": str(source)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "False"
