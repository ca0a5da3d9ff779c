"""What the command line takes for a dossier: every file that its manifest lists, with the bytes that it lists, and no other."""

from __future__ import annotations

import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from falaj.entrypoints.cli.commands.evidence import _unpack, evidence_export
from falaj.kernel.errors import Conflict, Integrity
from falaj.lifecycle.loop.dossier.model import MANIFEST, SIGNATURE, Item, item, manifest_text, tar

FILES = [item("model/model.onnx", b"graph"), item("model.sig", b"{}")]


def packed(folder: Path, items: list[Item]) -> Path:
    path = folder / "dossier.tar"
    path.write_bytes(b"".join(tar(items, lambda digest: digest.encode())))
    return path


def whole() -> list[Item]:
    return [*FILES, item(MANIFEST, manifest_text(FILES)), item(SIGNATURE, b"s" * 64)]


def test_what_is_whole_is_unpacked(tmp_path: Path) -> None:
    assert _unpack(packed(tmp_path, whole()), tmp_path / "out") == 4
    assert (tmp_path / "out/model/model.onnx").read_bytes() == b"graph"


@pytest.mark.parametrize(
    "spoil",
    [
        lambda items: [i for i in items if i.path != "model.sig"],
        lambda items: [i for i in items if i.path != MANIFEST],
        lambda items: [*items, item("model/more", b"x")],
        lambda items: [item("model/model.onnx", b"other"), *items[1:]],
        lambda items: [*items, item("../outside", b"x")],
    ],
    ids=["missing", "no manifest", "one more", "other bytes", "outside"],
)
def test_what_is_not_whole_is_refused(spoil: Callable[[list[Item]], list[Item]], tmp_path: Path) -> None:
    with pytest.raises(Integrity, match="not whole"):
        _unpack(packed(tmp_path, spoil(whole())), tmp_path / "out")
    assert not (tmp_path / "outside").exists()


def test_what_broke_off_is_refused(tmp_path: Path) -> None:
    path = packed(tmp_path, whole())
    path.write_bytes(path.read_bytes()[:700])
    with pytest.raises(Integrity, match="not whole"):
        _unpack(path, tmp_path / "out")


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE, tarfile.DIRTYPE])
@pytest.mark.parametrize("target", ["other", "manifest", "../up", "/etc/passwd"])
def test_a_folder_holds_files_only_and_no_links(kind: bytes, target: str, tmp_path: Path) -> None:
    about = tarfile.TarInfo("more")
    about.type, about.linkname = kind, target
    path = packed(tmp_path, whole())
    path.write_bytes(about.tobuf() + path.read_bytes())
    with pytest.raises(Integrity, match="not whole"):
        _unpack(path, tmp_path / "out")
    assert not (tmp_path / "out" / "more").is_symlink()


def test_a_file_that_goes_up_and_comes_back_is_refused_too(tmp_path: Path) -> None:
    path = packed(tmp_path, whole())
    path.write_bytes(tarfile.TarInfo("1/../more").tobuf() + path.read_bytes())
    with pytest.raises(Integrity, match="not whole"):
        _unpack(path, tmp_path / "out")


def test_a_folder_that_is_there_is_left_alone(tmp_path: Path) -> None:
    with pytest.raises(Conflict):
        evidence_export("late-flight@1", tmp_path)
