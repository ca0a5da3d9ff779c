"""A private data plane ends with whoever started it, also when that one is killed."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

from falaj.lifecycle.serving.service import live_workers
from tests.lifecycle.serving.plane.fleet import Home, eventually

ROOT = Path(__file__).parents[3]
PARENT = """
import sys
from pathlib import Path
from falaj.lifecycle.serving.process import PlaneFolders, start_plane

root = Path(sys.argv[1])
start_plane(PlaneFolders(root / "plane", root / "blobs", root / "online", root), with_parent=True)
print("started", flush=True)
sys.stdin.read()
"""


def test_a_data_plane_with_a_parent_ends_when_that_is_killed(tmp_path: Path) -> None:
    home = Home(tmp_path)
    command = [sys.executable, "-c", PARENT, str(tmp_path)]
    parent = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert parent.stdout and parent.stdout.readline() == b"started\n"
    assert len(live_workers(home.plane)) == 1
    parent.send_signal(signal.SIGKILL)
    parent.communicate()
    eventually(lambda: not live_workers(home.plane), "it serves on without anybody who could stop it")
