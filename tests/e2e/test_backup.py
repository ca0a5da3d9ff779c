"""A sample of the proof of backups: two under load, restored, compared, carried on; its controls turn red."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.entrypoints.cli.shell import cleaned, gone

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.timeout(240)


def test_a_sample_of_the_proof_of_backups_holds(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "proofs" / "backup.py"), "--sample"]
    environment = {**os.environ, "TMPDIR": str(tmp_path)}  # its homes are below, so whatever it leaves is found
    with cleaned(tmp_path):
        done = subprocess.run(
            command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=230, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        (line,) = done.stdout.splitlines()
        assert line.startswith("backup: 2 backups under load") and "0 differ" in line and "0 unseen" in line
        assert gone(tmp_path) and list(tmp_path.iterdir()) == []
