from __future__ import annotations

import io
import shutil
import tarfile
from pathlib import Path

import pytest

from falaj.governance.audit import note, tiles
from falaj.governance.audit.export import pack, place, unpack
from falaj.governance.audit.sharded import prove_extends
from falaj.governance.audit.verify import verify_folder
from falaj.kernel.errors import Conflict, FalajError, Integrity
from tests.governance.audit.support import Log


def exported(log: Log, to: Path) -> Path:
    packed = to.with_suffix(".tar")
    packed.write_bytes(b"".join(pack(log.service.snapshot())))
    unpack(packed, to)
    return to


def received(packed: Path, new: Path, to: Path) -> None:
    unpack(packed, new)
    place(new, to, None)


def tar(folder: Path, *files: tuple[str, bytes]) -> Path:
    path = folder / "made.tar"
    with tarfile.open(path, "w") as made:
        for name, data in files:
            about = tarfile.TarInfo(name)
            about.size = len(data)
            made.addfile(about, io.BytesIO(data))
    return path


@pytest.mark.parametrize("size", [0, 1, 256, 257, 600])
def test_an_export_is_the_log_by_its_paths(log: Log, tmp_path: Path, size: int) -> None:
    log.append(size)
    new = exported(log, tmp_path / "new")
    assert {p.relative_to(new).as_posix() for p in new.rglob("*") if p.is_file()} == {
        "checkpoint", "vkey", *tiles.paths(size),
    }  # fmt: skip
    report = place(new, tmp_path / "copy", log.publisher.vkey)
    assert (report.ok, report.size) == (True, size)
    assert verify_folder(tmp_path / "copy", log.publisher.vkey, exported=True).ok


def test_an_earlier_export_is_brought_up_to_date_only_by_the_same_log(log: Log, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    log.append(10)
    place(exported(log, tmp_path / "a"), copy, None)
    kept = (copy / "checkpoint").read_bytes()
    log.append(300)
    place(exported(log, tmp_path / "b"), copy, None)
    old, new = prove_extends(kept, copy, log.publisher.vkey)
    assert (old.size, new.size) == (10, 310)
    before = (copy / "checkpoint").read_bytes()
    for entries in (20, 400):  # it went back; it was rewritten and grew past
        home = tmp_path / f"other{entries}"
        home.mkdir()
        other = Log(home)
        other.clock.shows = other.clock.shows.replace(year=2027)
        other.append(entries)
        with pytest.raises(Integrity, match="does not begin with the one that was exported before") as e:
            place(exported(other, home / "c"), copy, None)
        assert e.value.code == "audit_fork"
        assert (home / "c" / "checkpoint").exists()
        other.database.close()
    assert (copy / "checkpoint").read_bytes() == before


def test_a_folder_that_is_no_export_is_left_alone(log: Log, tmp_path: Path) -> None:
    log.append(1)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis").write_text("years of work")
    with pytest.raises(Conflict, match="no earlier export"):
        place(exported(log, tmp_path / "new"), tmp_path / "mine", None)
    assert (tmp_path / "mine/thesis").read_text() == "years of work"
    (tmp_path / "empty").mkdir()
    assert place(tmp_path / "new", tmp_path / "empty", None).ok


def test_an_export_that_does_not_hold_is_not_placed(log: Log, tmp_path: Path) -> None:
    log.append(3)
    new = exported(log, tmp_path / "new")
    entries = new / "tile/entries/000.p/3"
    entries.write_bytes(entries.read_bytes().replace(b'"owner"', b'"other"'))
    with pytest.raises(Integrity, match="entry 0: its bytes"):
        place(new, tmp_path / "copy", None)
    assert not (tmp_path / "copy").exists()


@pytest.mark.parametrize("name", ["../evil", "/etc/evil", "tile/0/../../evil", "tile/0/1", "head", "tile/0/000.p/300"])
def test_only_files_of_a_log_are_unpacked(tmp_path: Path, name: str) -> None:
    with pytest.raises(Integrity, match="no file of a log"):
        unpack(tar(tmp_path, (name, b"x")), tmp_path / "out")
    assert not (tmp_path / "evil").exists()


def test_links_and_rests_are_not_unpacked(tmp_path: Path, log: Log) -> None:
    path = tmp_path / "link.tar"
    with tarfile.open(path, "w") as made:
        about = tarfile.TarInfo("checkpoint")
        about.type, about.linkname = tarfile.SYMTYPE, "/etc/passwd"
        made.addfile(about)
    with pytest.raises(Integrity, match="no file of a log"):
        unpack(path, tmp_path / "a")
    log.append(2)
    whole = b"".join(pack(log.service.snapshot()))
    for end in (10, 700, len(whole) // 2):
        path.write_bytes(whole[:end])
        shutil.rmtree(tmp_path / "b", ignore_errors=True)
        with pytest.raises(FalajError):
            received(path, tmp_path / "b", tmp_path / "c")


def test_tiles_can_be_had_in_every_width_of_an_earlier_checkpoint(log: Log) -> None:
    log.append(300)
    log.publisher.publish()
    whole = {name: (log.folder / name).read_bytes() for name in tiles.paths(300)}
    for size in (1, 5, 255, 256, 299, 300):
        for path in tiles.paths(size):
            name = tiles.parse_path(path)
            assert name is not None
            data = log.service.tile(name)
            assert data is not None
            bigger = next(v for k, v in whole.items() if k.partition(".p")[0] == path.partition(".p")[0])
            assert bigger.startswith(data)
    for path in ("tile/0/001.p/45", "tile/0/002.p/1", "tile/1/000.p/2", "tile/2/000.p/1", "tile/entries/001"):
        name = tiles.parse_path(path)
        assert name is not None
        assert log.service.tile(name) is None


@pytest.mark.parametrize(
    "path",
    ["tile/0/1", "tile/00/001", "tile/0/x000/001", "tile/0/000.p/0", "tile/0/000.p/256", "tile/0/000.p/01", "tile/x/001",
     "tile/0/001/", "tile//001", "tile/0/x001/x002/", "tile/0/../001", "tile/64/001/", "tile/0/٣٣٣", "vkey"],
)  # fmt: skip
def test_a_tile_has_one_path(path: str) -> None:
    assert tiles.parse_path(path) is None


def test_a_tile_that_is_cut_gives_no_proof(log: Log) -> None:
    log.append(300)
    log.publisher.publish()
    path = log.folder / "tile/0/000"
    path.write_bytes(path.read_bytes()[:-32])
    with pytest.raises(Integrity, match="missing or cut off"):
        log.service.prove(3)
    path.write_bytes(path.read_bytes() + bytes(32))
    with pytest.raises(Integrity, match="not proven to be in the tree"):
        log.service.prove(3)
    assert note.unsigned(log.publisher.checkpoint).size == 300
