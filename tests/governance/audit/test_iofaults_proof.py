"""A few faults of `proofs/iofaults.py`, and how a program that it needs is found."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tools import debian

ROOT = Path(__file__).parents[3]


@pytest.mark.timeout(300)
def test_a_sample_of_the_faults_leaves_a_whole_log_and_the_controls_do_not() -> None:
    """Fails, and says so, where there is no strace and none can be fetched."""
    command = [sys.executable, "proofs/iofaults.py", "--sample", "12", "--seed", "3"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    told = re.match(
        r"iofaults: (\d+) of (\d+) faults at \d+ calls leave .*; early: 2 of 2 told; in-place: 1 of 1 told", done.stdout
    )
    assert told and told[1] == told[2] and int(told[1]) >= 11, done.stdout


def test_a_program_that_cannot_be_had_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(debian, "FOLDER", tmp_path / "debian")
    with pytest.raises(LookupError, match="no apt to fetch it: install strace"):
        debian.program("strace", "strace", "libunwind8")


def test_a_program_that_was_unpacked_before_is_run_with_its_libraries(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(debian, "FOLDER", tmp_path / "debian")
    program, library = tmp_path / "debian/usr/bin/strace", tmp_path / "debian/usr/lib/x/libunwind.so.8"
    for path in (program, library):
        path.parent.mkdir(parents=True)
        path.touch(0o755)
    assert debian.program("strace") == ["env", f"LD_LIBRARY_PATH={library.parent}", str(program)]
