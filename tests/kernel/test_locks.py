from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from falaj.kernel import locks

_HOLD = """
import sys
from pathlib import Path
from falaj.kernel import locks
assert locks.take(Path(sys.argv[1])) is not None
print("held", flush=True)
sys.stdin.read()
"""


def test_a_lock_ends_with_its_process_even_while_nobody_has_buried_it(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    assert not locks.held(path) and locks.holder(path) == 0
    process = subprocess.Popen(
        [sys.executable, "-c", _HOLD, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdin is not None and process.stdout is not None
    with process.stdin, process.stdout:
        assert process.stdout.readline() == "held\n"
        assert locks.held(path) and locks.holder(path) == process.pid
        assert locks.take(path) is None
        process.kill()
        deadline = time.monotonic() + 10
        while locks.held(path):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        os.kill(process.pid, 0)  # a zombie until it is waited for
        assert locks.holder(path) == process.pid
        process.wait()
    descriptor = locks.take(path)
    assert descriptor is not None and locks.held(path) and locks.holder(path) == os.getpid()
    os.close(descriptor)
    assert not locks.held(path)


def test_a_lock_that_could_not_be_signed_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", full)
        with pytest.raises(OSError, match="No space left"):
            locks.take(tmp_path / "lock")
    descriptor = locks.take(tmp_path / "lock")
    assert descriptor is not None
    os.close(descriptor)
