"""A short run of `proofs/swaps.py`, with its controls."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[4]


@pytest.mark.timeout(300)
def test_nothing_foreign_answers_and_a_data_plane_that_does_not_look_is_caught() -> None:
    command = [sys.executable, "proofs/swaps.py", "--swaps", "40", "--models", "8", "--seed", "1"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    told = re.match(
        r"swaps: 0 foreign answers of \d+ after (\d+) swaps .* 0 did not load once they were back;"
        r" unchecked: caught; reopened: caught",
        done.stdout,
    )
    assert told and int(told[1]) >= 40, done.stdout
