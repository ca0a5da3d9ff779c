from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from falaj.kernel.files import flush, write_private


def test_what_is_private_is_for_its_owner_only_whatever_the_umask_says(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        write_private(tmp_path / "secret", b"s3cret")
    finally:
        os.umask(before)
    assert (tmp_path / "secret").read_bytes() == b"s3cret"
    assert stat.S_IMODE((tmp_path / "secret").stat().st_mode) == 0o600


def test_nothing_is_written_over_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"older")
    with pytest.raises(FileExistsError):
        write_private(tmp_path / "secret", b"newer")
    assert (tmp_path / "secret").read_bytes() == b"older"


def test_half_a_secret_does_not_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_private(tmp_path / "secret", b"s3cret")
    assert list(tmp_path.iterdir()) == []


def test_a_file_and_a_folder_can_be_flushed_and_what_is_not_there_cannot(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"x")
    flush(tmp_path / "x")
    flush(tmp_path)
    with pytest.raises(FileNotFoundError):
        flush(tmp_path / "missing")
