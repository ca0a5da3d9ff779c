"""Processes that left their group are found by the folder that they work in; their memory counts."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from falaj.workflow import processes
from falaj.workflow.child import ChildRunner
from tests.workflow.children import wait_for

pytestmark = pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="the system does not show processes")
_SLEEP = [sys.executable, "-c", "import time; print(flush=True); x = bytearray(b'x') * 50_000_000; time.sleep(60)"]


@pytest.fixture
def stray(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process in a session of its own, with a step's folder as its own temporary one."""
    place = str(tmp_path / "tmp" / "flow" / "step")
    with subprocess.Popen(_SLEEP, env={"TMPDIR": place}, start_new_session=True, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stdout.readline()
        yield process
        process.kill()


def test_a_process_is_ended_with_the_folder_that_it_works_in(stray: subprocess.Popen[bytes], tmp_path: Path) -> None:
    processes.kill_working_in(f"{tmp_path / 'tmp' / 'flow' / 'ste'}\0")  # a name that begins alike is another folder
    processes.kill_working_in(f"{tmp_path / 'tmp' / 'flow' / 'other'}\0")
    assert stray.poll() is None
    processes.kill_working_in(f"{tmp_path / 'tmp' / 'flow' / 'step'}\0")
    assert stray.wait(20) == -9


def test_what_an_earlier_control_plane_left_is_ended_by_the_next(
    stray: subprocess.Popen[bytes], tmp_path: Path
) -> None:
    ChildRunner(tmp_path / "tmp2", memory_mb=1000, seconds=10).sweep()
    assert stray.poll() is None
    ChildRunner(tmp_path / "tmp", memory_mb=1000, seconds=10).sweep()
    assert stray.wait(20) == -9


def test_memory_is_that_of_a_process_and_of_what_it_started(stray: subprocess.Popen[bytes]) -> None:
    wait_for(lambda: processes.resident_mb(stray.pid) > 50)
    whole = processes.memory_mb(os.getpid(), 1e9)
    assert whole >= processes.resident_mb(os.getpid()) + 40  # the child is counted
    assert processes.memory_mb(os.getpid(), 1) <= whole  # what two share is counted once
    assert processes.memory_mb(1 << 30, 1) == 0.0
