"""Temporary files lie in memory, go with the process, and one home never takes another one's away."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from falaj.bootstrap import scratch
from falaj.kernel.errors import Unavailable


@pytest.fixture
def link(tmp_path: Path) -> Path:
    return tmp_path / "home" / "tmp"


@pytest.fixture(autouse=True)
def home(link: Path) -> None:
    link.parent.mkdir()


def test_temporary_files_lie_in_memory_for_their_owner_only(link: Path) -> None:
    scratch.lay_out(link, "")
    folder = link.resolve()
    assert folder.parent == scratch.MEMORY and folder.stat().st_mode & 0o777 == 0o700
    (link / "rows").write_text("in clear")
    scratch.remove(link)
    assert not folder.exists() and not link.is_symlink()


def test_what_a_killed_process_left_is_removed_at_the_next_start(link: Path) -> None:
    scratch.lay_out(link, "")
    before = link.resolve()
    (link / "rows").write_text("in clear")
    scratch.lay_out(link, "")
    assert not before.exists() and not (link / "rows").exists() and link.resolve() != before
    scratch.remove(link)


def test_a_folder_on_the_disk_of_an_earlier_release_is_removed(link: Path) -> None:
    (link / "flow" / "train").mkdir(parents=True)
    scratch.lay_out(link, "")
    assert link.is_symlink() and not (link / "flow").exists()
    scratch.remove(link)


def test_a_copied_home_leaves_the_folder_of_the_one_that_it_is_a_copy_of(link: Path, tmp_path: Path) -> None:
    scratch.lay_out(link, "")
    (link / "rows").write_text("in clear")
    shutil.copytree(link.parent, tmp_path / "copy", symlinks=True)
    scratch.lay_out(tmp_path / "copy" / "tmp", "")
    assert (link / "rows").exists()
    for one in (link, tmp_path / "copy" / "tmp"):
        scratch.remove(one)


def test_without_memory_for_them_a_folder_must_be_named(
    link: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scratch, "MEMORY", tmp_path)
    with pytest.raises(Unavailable) as refused:
        scratch.lay_out(link, "")
    assert refused.value.code == "no_scratch_folder" and not link.exists()
    with pytest.raises(Unavailable):
        scratch.lay_out(link, str(tmp_path / "none"))
    scratch.lay_out(link, str(tmp_path))
    assert link.resolve().parent == tmp_path
    scratch.remove(link)
