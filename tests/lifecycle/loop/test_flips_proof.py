"""A sample of `proofs/flips.py`, with its controls; and that it fails when the time was not enough."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "proofs/flips.py", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=280, check=False)


@pytest.mark.timeout(300)
def test_a_sample_of_flipped_bytes_is_found_each_in_its_file() -> None:
    done = run("--sample", "4")
    assert done.returncode == 0, done.stdout + done.stderr
    told = re.match(r"flips: (\d+) of (\d+) changes in \d+ files found, .* controls: 2 of 2 told", done.stdout)
    assert told and told[1] == told[2] and int(told[1]) > 150, done.stdout


@pytest.mark.timeout(300)
def test_too_little_time_is_no_success() -> None:
    done = run("--sample", "4", "--seconds", "0")
    assert done.returncode == 1 and "not all of them" in done.stdout, done.stdout + done.stderr
