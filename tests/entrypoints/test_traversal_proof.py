"""A sample of the proof that no name becomes a path; all of it is `make prove NAME=traversal`."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

PROOF = Path(__file__).parents[2] / "proofs" / "traversal.py"


def proved(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(PROOF), "--sample", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280, check=False)
    assert done.stdout.startswith("traversal: "), done.stderr
    return done


@pytest.mark.timeout(300)
def test_a_sample_of_names_leads_nowhere() -> None:
    done = proved()
    assert done.returncode == 0, done.stderr
    told = re.search(r"at (\d+) places of (\d+) routes: (\d+) requests, (\d+) answered", done.stdout)
    assert told is not None
    places, routes, requests, answered = map(int, told.groups())
    assert places > 150 and routes > 90 and requests > 2000 and answered > 100, done.stdout


@pytest.mark.timeout(300)
def test_a_route_and_an_unpacker_that_join_what_they_are_told_are_found() -> None:
    done = proved("--broken")
    assert done.returncode == 1
    told = re.search(r"; (\d+) and (\d+) calls of the operating system reached out", done.stdout)
    assert told is not None and int(told[1]) > 0 and int(told[2]) > 0, done.stdout
    assert "/api/v1/joined/{name:path}" in done.stderr  # an answer held what a canary says
