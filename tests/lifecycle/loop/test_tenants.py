"""Two projects in one home: the proof, and its control."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    "options",
    [(), ("--broken",), ("--unfiltered", "/api/v1/incidents")],
    ids=["as it is", "broken", "one list unfiltered"],
)
def test_two_projects_see_nothing_of_each_other_and_a_hole_is_seen(options: tuple[str, ...]) -> None:
    command, broken = [sys.executable, str(ROOT / "proofs/tenants.py"), *options], bool(options)
    done = subprocess.run(command, capture_output=True, text=True, timeout=500, check=False)
    (line,) = done.stdout.splitlines()
    assert (done.returncode == 1) is broken, line + done.stderr
    assert ("asked across, 0 visible;" in line) is not broken and "0 changed by the other; 2 of 2 see their own" in line
    assert broken or "without its filter 12 of 12 lists show the other's" in line
