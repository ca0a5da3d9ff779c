"""A sample of the proof of the loop: the year whose days were exchanged, told in full. In it nothing may drift."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.entrypoints.cli.shell import cleaned, gone

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.timeout(600)


def test_a_sample_of_the_proof_of_the_loop_holds(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "proofs" / "loop.py"), "--sample"]
    environment = {**os.environ, "TMPDIR": str(tmp_path)}  # its home is below, so whatever it leaves is found
    with cleaned(tmp_path):
        done = subprocess.run(
            command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=570, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        (line,) = done.stdout.splitlines()
        assert line.startswith(
            "loop: 1 tellings of the year, each as it must be. shuffled: 0 drift incidents, 0 retrain"
        )
        assert "0 failed requests, flight-delay@1 serves" in line
        assert gone(tmp_path) and list(tmp_path.iterdir()) == []
