"""A sample of `proofs/admission.py`, with each single change and all of its controls."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]


@pytest.mark.timeout(300)
def test_one_combination_is_let_in_and_each_check_that_is_switched_off_shows() -> None:
    command = [sys.executable, "proofs/admission.py", "--sample", "40", "--seed", "5"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    told = re.match(
        r"admission: 1 of \d+ combinations admitted by the registry, 1 of \d+ loaded by a data plane; \d+ changed documents"
        r" refused, \d+ changed in what is only a hint; checks switched off: 8 of 8 told",
        done.stdout,
    )
    assert told, done.stdout
